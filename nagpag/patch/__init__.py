"""How ComfyUI is hooked: the only package that knows its patches, wrappers and options.

Registered on a clone of the model, nothing else:
- `wrappers`: an OUTER_SAMPLE wrapper makes the state of one sampling (`run`), and reports (`report`) and frees it at
  its end; PREDICT_NOISE and CALC_COND_BATCH wrappers hear where an evaluation begins and which conditions are the
  prompt's; an APPLY_MODEL wrapper works out, once per forward, what depends on the step and not on the block
  (`forward`). It is outside of what torch.compile compiles, where a DIFFUSION_MODEL wrapper would be inside;
- `memory`: a PREPARE_SAMPLING wrapper tells the host of what every block will hold from step to step, if they do;
- with reach prediction the CALC_COND_BATCH wrapper has the host work out the negative branch, too, and pushes what the
  sampler is given (`prediction`); only where there is no negative prompt something of ours is in the model, which is
  in the options of the evaluations whose attention is disturbed;
- `block`: replacements of blocks call the block with an attention function of ours (`attention`), put into that one
  call's own copy of the transformer options, or run the negative branch beside it (`branch`); either is merged
  (`merge`). What goes wrong there is caught in one place (`fallback`).

What stood in the two one-place slots before (an earlier block patch, an earlier attention override
such as SageAttention) is kept and called.
"""

from __future__ import annotations

import logging
from typing import Any

from comfy.patcher_extension import WrappersMP

from ..blocks import Block, merge_position, parse_blocks, with_strength
from ..settings import Settings
from .block import block_replacement
from .families import find_flux, find_model, known_models
from .family import Family, Found
from .memory import prepare_sampling
from .negative import refuse_hooks
from .plan import PLANS, Call, Plan, replacements
from .wrappers import apply_model, calc_cond_batch, outer_sample, predict_noise

__all__ = ["apply_guidance", "find_flux", "find_model", "make_plan"]

log = logging.getLogger("nag_pag_flux")


def apply_guidance(model: Any, settings: Settings) -> Any:
    """Return a clone of a ComfyUI MODEL that samples with guidance; `model` itself stays as it is.

    Raises ValueError where the blocks or the reach do not fit it, or the negative prompt has hooks.
    """
    refuse_hooks(settings.negative_conditioning)
    plan = make_plan(find_model(model), settings)
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    options[PLANS] = (*options.get(PLANS, ()), plan)
    if not plan.acts:
        return patched
    for position in plan.positions if plan.family.slots else ():
        plan.calls[position] = Call()
        if not plan.at_prediction:  # there a forward's own options have them, where something is to be disturbed
            _replace_block(patched, plan, position)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, plan.key, outer_sample(plan))
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, plan.key, predict_noise(plan))
    patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, plan.key, calc_cond_batch(plan))
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, plan.key, apply_model(plan))
    if plan.holds_each_block:
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, plan.key, prepare_sampling(plan))
    return patched


def make_plan(found: Found, settings: Settings) -> Plan:
    """Fit the settings to a model's blocks. Raises ValueError where they don't fit."""
    if found.why and (asked := _what_needs_blocks(settings)):
        raise ValueError(
            f"NAG-PAG can't guide this model with {asked}: {found.why}. That works with: {known_models()}. Any other "
            "model works with reach prediction and a negative prompt"
        )
    (doubles, singles), family = found.depths, found.family
    blocks = parse_blocks(settings.blocks, doubles, singles, found.heads, family.naming)
    chosen = with_strength(blocks, doubles)
    plan = Plan(settings, chosen, None, family, doubles, doubles + singles, family.patch(found.model))
    if not plan.acts:
        return plan
    if settings.in_attention and settings.carries_negative and (why := _why_none_is_carried(family)):
        raise ValueError(
            f"NAG-PAG: with {family.name} the attention can't be pushed away from that of a negative prompt: {why}. "
            "Take reach prediction, or switch negative_prompt off"
        )
    if family.why_no_branch and (settings.reach not in family.reaches or settings.reach_blocks):
        raise ValueError(
            f"NAG-PAG: with {family.name} only reach {' and '.join(map(repr, family.reaches))} work: "
            f"{family.why_no_branch}, so that no branch can run beside them. Take NAG-PAG Guidance (Advanced) with "
            "one of these and reach_blocks 0"
        )
    merge = merge_position(
        tuple(chosen) or (0,), doubles, singles, settings.reach, settings.reach_blocks, family.naming
    )
    if merge is not None:
        _say_what_lies_beyond(plan, [block for place, block in chosen.items() if place > merge], merge)
        plan.chosen = {place: block for place, block in chosen.items() if place <= merge}
    plan.merge = merge
    return plan


def _why_none_is_carried(family: Family) -> str:
    """Why the chosen blocks' attention knows no negative prompt, in words; empty where it does."""
    if family.why_no_branch:
        return f"{family.why_no_branch}, so that no branch can run beside them"
    return "" if family.joint else "the text is not in the attention that is guided"


def _what_needs_blocks(settings: Settings) -> str | None:
    """What of the settings asks for blocks, in words; None where a whole evaluation and a negative prompt will do."""
    if settings.blocks.strip() != "auto":
        return f'blocks "{settings.blocks.strip():.60}"'
    if settings.off:
        return None
    if settings.reach_blocks:
        return f"reach_blocks {settings.reach_blocks}"
    if settings.reach != "prediction":
        return f"reach {settings.reach}"
    return None if settings.carries_negative else "negative_prompt off"


def _say_what_lies_beyond(plan: Plan, blocks: list[Block], merge: int) -> None:
    if blocks:
        log.warning(
            "NAG-PAG: %s lie behind the merge (after %s): the branch does not pass them.",
            plan.words(blocks),
            plan.name(merge),
        )


def _replace_block(patched: Any, plan: Plan, position: int) -> None:
    slot = plan.slot(position)
    earlier = replacements(patched.model_options.get("transformer_options", {})).get(slot)
    plan.replacements[position] = block_replacement(plan, position, earlier)
    if earlier:
        plan.earlier[position] = earlier
    patched.set_model_patch_replace(plan.replacements[position], "dit", *slot)
