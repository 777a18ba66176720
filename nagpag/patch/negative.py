"""The negative prompt that a branch may carry: found where the sampler has it, and made into what the blocks take.

ComfyUI hands the guider the sampler's negative conditioning at cfg 1, too, and only leaves out its forward. A block
takes of a prompt its text tokens, their positions, an attention mask, and a part of the modulation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import torch
from comfy.sampler_helpers import cond_has_hooks, convert_cond
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from .fallback import Refusal, attempt
from .family import Family
from .forward import NEGATIVE_MARK, Chunk, Forward, options_of, rows_of
from .plan import Plan
from .report import Prompt, say_if_same, say_needless, say_no_negative
from .run import NegativeText, Run

# What makes a condition hold for a part of the picture or of the sampling only, and what it is where it does not.
WHOLE = {"area": None, "mask": None, "start_percent": 0.0, "end_percent": 1.0}


# --- finding it ---


def refuse_hooks(own: list | None) -> None:
    """Raise ValueError where a negative prompt of the node's own has hooks. own: a CONDITIONING, or None."""
    if own and cond_has_hooks(own):
        raise ValueError(
            "NAG-PAG: negative_conditioning has hooks (a LoRA for this prompt alone, say), and ComfyUI prepares those "
            "of the sampler's own conditions only. Wire it to the sampler's negative, and set negative_prompt to "
            "sampler's"
        )


def add_conditions(plan: Plan, conds: dict[str, list[dict]]) -> None:
    """Before a sampling: have the host work out a negative prompt of the node's own, too. Raises ValueError."""
    own = plan.settings.negative_conditioning
    if own is not None:
        conds[plan.negative_key] = [{**cond, "prompt_type": "negative"} for cond in convert_cond(own)]
    if plan.settings.carries_negative:
        listed = conds.get(_name(plan)) or []
        if plan.at_prediction:
            _check_whole(listed, plan.settings.start_percent, plan.settings.end_percent)
        else:
            _check_one(listed)


def identities(plan: Plan, conds: dict[str, list[dict]]) -> set[Hashable]:
    """Those of its conditions; conds: as a guider has them, before the host has added any."""
    listed = conds.get(_name(plan)) or [] if plan.settings.carries_negative else []
    return {cond["uuid"] for cond in listed if "uuid" in cond}


def _name(plan: Plan) -> str:
    return "negative" if plan.settings.negative_conditioning is None else plan.negative_key


def _check_whole(listed: list[dict], start: float, end: float) -> None:
    """Refuse negative prompts that leave out a part of the picture, or of what is guided of the sampling.

    Nothing is predicted there. start, end: the guided part, as start_percent and end_percent.
    """
    everywhere = [cond for cond in listed if cond.get("area") is None and cond.get("mask") is None]
    everywhere = [cond for cond in everywhere if cond.get("strength", 1.0) > 0]
    reached = start
    for cond in sorted(everywhere, key=lambda cond: cond.get("start_percent", 0.0)):
        if cond.get("start_percent", 0.0) <= reached:
            reached = max(reached, cond.get("end_percent", 1.0))
    if not listed or (everywhere and reached >= end):
        return
    where = (
        f"steps from {start:.0%} to {end:.0%} of the sampling are guided, and it holds for those up to {reached:.0%}"
    )
    raise Refusal(
        f"NAG-PAG: the negative prompt leaves a part of the {'sampling' if everywhere else 'picture'} out "
        f"({where if everywhere else 'it has areas or masks, or a strength of 0, alone'}); add one that holds for the "
        "rest, or switch negative_prompt off"
    )


def _check_one(listed: list[dict]) -> None:
    """Refuse what one branch beside the blocks can't stand for, before any step is done."""
    if len(listed) > 1:
        raise Refusal(
            f"NAG-PAG: with this reach negative_prompt carries one negative prompt, and there are {len(listed)} "
            "(Conditioning Combine, areas); give it one, or take reach prediction"
        )
    partial = [key for cond in listed for key, whole in WHOLE.items() if _is_partial(cond.get(key), whole)]
    if partial:
        raise Refusal(
            "NAG-PAG: the negative prompt holds for a part of the picture or of the sampling only "
            f"({', '.join(partial)}); give a whole one, or take reach prediction and add one for the rest"
        )


def _is_partial(value: Any, whole: float | None) -> bool:
    return value is not None and (whole is None or value != whole)


def hear_conditions(plan: Plan, run: Run, conds: dict[str, list[dict]]) -> None:
    """At an evaluation: keep the negative prompt as the host has worked it out, and say once what is odd about it.

    All zeros, as ConditioningZeroOut makes them, count as none: they are no text, and to be pushed away from what FLUX
    makes of them harmed by one judge of two (docs/evidence.md). A model of no family may have learned with them, as
    SVD has.
    """
    listed = conds.get(_name(plan)) or []
    texts = _texts(listed)
    if not run.heard_negative:
        run.heard_negative = True
        run.zeroed = _say_what_is_odd(plan, texts, list(prompts_in(conds)))
    run.against = listed if texts and not run.zeroed else []
    run.carried |= bool(run.against)


def _say_what_is_odd(plan: Plan, texts: list[Prompt], prompts: list[dict]) -> bool:
    """True for a negative prompt of zeros. texts: those of the negative prompt; prompts: the prompt's conditions."""
    zeroed = bool(texts) and bool(plan.family.stacks) and not any(text.any() for text, _ in texts)
    if not texts or zeroed:
        say_no_negative(plan, zeroed)
    else:
        if not plan.at_prediction:  # where more than the text may differ: areas, references, ControlNets
            say_if_same(texts, _texts(prompts))
        say_needless(plan.settings)
    return zeroed


def _texts(listed: Iterable[dict]) -> list[Prompt]:
    """The prompts of conditions that have a text."""
    return [prompt for prompt in map(_prompt, listed) if prompt is not None]


def prompts_in(conds: dict[str, list[dict]]) -> Iterator[dict]:
    """A guider's conditions that are the prompt's, by the names of their lists."""
    for name, listed in conds.items():
        if "negative" not in name:
            yield from listed or []


def _prompt(cond: dict) -> Prompt | None:
    model_conds = cond.get("model_conds")
    text = _tensor(model_conds, "c_crossattn")
    if text is None:  # some models of no family have their text under another name
        text = cond.get("cross_attn")
    return None if text is None else (text, _tensor(model_conds, "y"))


def _tensor(model_conds: dict | None, name: str) -> Tensor | None:
    found = (model_conds or {}).get(name)
    return None if found is None else found.cond


# --- making it into what the blocks take ---


def hand_out_text(plan: Plan, run: Run, chunks: tuple[Chunk, ...], model: Any, x: Tensor, given: dict) -> None:
    """Give each chunk whose branch is computed the negative prompt's text."""
    computed = [chunk for chunk in chunks if not chunk.reuses]
    context = _tensor(run.negative, "c_crossattn")
    if not computed or context is None:
        return
    family, y = plan.family, given.get("y")
    _check_text(plan, run, computed, model, given)
    text = None if family.refine else _negative_text(run, family, model, context, x)
    for chunk in computed:
        chunk.text = text or _refined(family, model, run.negative, x, given, chunk)
        own_y = None if y is None else y[chunk.rows]
        chunk.shift = _shift_of(chunk.text, family, model.diffusion_model, own_y, chunk.size)


def _check_text(plan: Plan, run: Run, computed: list[Chunk], model: Any, given: dict) -> None:
    """Raise where the negative prompt's text can't take the place of the prompt's."""
    family = plan.family
    negative = {name: _tensor(run.negative, name) for name in (*family.texts, "attention_mask")}
    own_tokens, tokens = _tokens(family, given), _tokens(family, negative)
    second = plan.positions[-1] >= plan.double_blocks
    if family.mask is None and (negative["attention_mask"] is not None or given.get("attention_mask") is not None):
        raise ValueError(f"a prompt has an attention mask, and {family.name} blocks take none with a negative prompt")
    if tokens != own_tokens and family.text_is_fixed(model.diffusion_model, given, second):
        raise ValueError(
            "with reference pictures by index_timestep_zero and a branch in single blocks both prompts have to be of "
            f"one length; the prompt has {own_tokens} tokens and the negative one {tokens}. Take reach double blocks, "
            "with no single block chosen"
        )
    if tokens != own_tokens and any(chunk.stream.mixed for chunk in computed if chunk.stream is not None):
        raise ValueError(
            "another patch acts on all of a batch, so that both prompts have to be of one length; "
            f"the prompt has {own_tokens} tokens and the negative one {tokens}. Set cfg to 1.0"
        )


def _tokens(family: Family, given: dict) -> int:
    """How many tokens of text a forward's arguments have."""
    return sum(given[name].shape[1] for name in family.texts if given.get(name) is not None)


def _negative_text(run: Run, family: Family, model: Any, context: Tensor, x: Tensor) -> NegativeText:
    """The sampling's negative prompt, projected; once a sampling, and anew where weights change while it runs.

    x: the latent, on which the text's positions may hang: then anew for another shape, too.
    """
    text = run.text
    shape = _shape(family, x)
    kept = text is not None and run.text_of is context and text.txt.device == x.device and text.shape == shape
    if text is None or not kept or getattr(model.current_patcher, "hook_patches", None):
        text = _projected(family, model, run.negative, context, x)
        run.text, run.text_of = text, context
    return text  # not the run's: the host may run prompts on several devices at once


def _refined(family: Family, model: Any, negative: dict | None, x: Tensor, given: dict, chunk: Chunk) -> NegativeText:
    """The negative prompt in the place of a chunk's own at this step, with what else that has: a picture, say."""
    own, dtype = rows_of(chunk.rows, len(x)), inference_dtype(model)
    texts = {name: _tensor(negative, name) for name in family.texts}
    texts = {name: None if text is None else repeat_to_batch_size(text, chunk.size) for name, text in texts.items()}
    arguments = {**{name: own(value) for name, value in given.items()}, **texts}
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            arguments[name] = value.to(x.device, dtype)
    arguments["timestep"] = model.model_sampling.timestep(own(given["t"])).float()
    assert family.refine is not None
    with torch.no_grad():
        return _as_blocks_take_it(family, model, negative, family.refine(model.diffusion_model, arguments), x)


def through_post_input(
    forward: Forward, ids: Callable, embed: Callable, patches: list[Callable], give_up: Callable[[Exception], None]
) -> Callable:
    """A post_input patch to stand before the others: what they do to the prompt's text they do to the negative one's.

    A style reference adds tokens there, for instance. ids: of text tokens, as a family makes them; embed: what makes
    rotary positions of them.
    """

    def patch(inputs: dict) -> dict:
        attempt(lambda: _patch_texts(forward, ids, embed, patches, inputs), give_up)
        return inputs

    return patch


def _patch_texts(forward: Forward, ids: Callable, embed: Callable, patches: list[Callable], inputs: dict) -> None:
    given = inputs.get("transformer_options")  # other packs' forwards, and older hosts, hand none on here
    if given is not None and NEGATIVE_MARK in given:
        return  # another application asks for its own
    for chunk in forward.chunks:
        text, stream = chunk.text, chunk.stream
        if text is None or stream is None:
            continue
        chunk.stream = None  # given up, unless all goes well
        own = rows_of(chunk.rows, forward.batch)
        options = {} if given is None else {"transformer_options": options_of(chunk, given)}
        out = {name: own(value) for name, value in inputs.items()}
        out |= {"txt": repeat_to_batch_size(text.txt, chunk.size).clone(), "img": out["img"].clone()}
        out["txt_ids"] = ids(text.txt).expand(chunk.size, -1, -1)
        for patch in stream.own(patches):
            out = patch({**out, **options})
        chunk.text = dataclasses.replace(text, txt=out["txt"], pe=embed(out["txt_ids"][:1]))
        chunk.stream = stream


def _projected(family: Family, model: Any, negative: dict | None, context: Tensor, x: Tensor) -> NegativeText:
    assert family.project is not None
    with torch.no_grad():
        txt = family.project(model.diffusion_model, context.to(x.device, inference_dtype(model)))
        return _as_blocks_take_it(family, model, negative, txt, x)


def _as_blocks_take_it(family: Family, model: Any, negative: dict | None, txt: Tensor, x: Tensor) -> NegativeText:
    """What goes with a text, besides."""
    flux, mask = model.diffusion_model, _tensor(negative, "attention_mask")
    pooled = pooled_part(family, flux, _tensor(negative, "y"), txt)
    pe = None if family.ids is None else getattr(flux, family.embedder)(family.ids(flux, txt, x))
    mask = family.prepare_mask(flux, None if mask is None else mask.to(x.device), txt, x)
    return NegativeText(txt, pe, pooled, mask, _shape(family, x))


def _shape(family: Family, x: Tensor) -> tuple[int, ...]:
    """What a text's positions hang on of a latent; nothing as a rule, so that tiles of several sizes share a text."""
    return tuple(x.shape[2:]) if family.ids_by_latent else ()


def inference_dtype(model: Any) -> torch.dtype:
    """What the host casts a model's inputs to."""
    if hasattr(model, "get_dtype_inference"):
        return model.get_dtype_inference()
    return model.manual_cast_dtype or model.get_dtype()


def _shift_of(text: NegativeText, family: Family, flux: Any, y: Tensor | None, rows: int) -> Tensor | None:
    """What the negative prompt's pooled vector adds to the modulation beyond the prompts' own y, (rows, hidden)."""
    with torch.no_grad():
        own = pooled_part(family, flux, y, text.txt)
    return None if own is None or text.pooled is None else in_rows(text.pooled, rows) - own


def in_rows(tensor: Tensor, rows: int) -> Tensor:
    """As many rows as the host would make of a conditioning: one broadcasts, several are repeated or cut."""
    return tensor if len(tensor) == 1 else repeat_to_batch_size(tensor, rows)


def pooled_part(family: Family, flux: Any, y: Tensor | None, like: Tensor) -> Tensor | None:
    """What a prompt's pooled vector adds to the modulation vector, (rows, hidden); None where the family has none."""
    if family.pooled is not None:
        return None if y is None else family.pooled(flux, y.to(like.device, like.dtype))
    if getattr(flux, "vector_in", None) is None:
        return None
    width = flux.params.vec_in_dim
    y = like.new_zeros(1, width) if y is None else y.to(like.device, like.dtype)
    return flux.vector_in(y[:, :width])
