"""What a block's attention becomes: guided away from its negative, or, in a negative branch, disturbed by it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..perturbation import negative_attention
from ..settings import Settings
from .fallback import Unheard, attempt, attempt_in_block
from .forward import NEGATIVE_MARK, Chunk, Forward, Stream, Visit, options_of, rows_of
from .merge import guide_heads_in_place, heads_in, noting
from .plan import Plan

OVERRIDE = "optimized_attention_override"


def with_attention(args: dict, attention: Callable) -> dict:
    return {**args, "transformer_options": {**args["transformer_options"], OVERRIDE: attention}}


def guided_attention(plan: Plan, forward: Forward, position: int, options: dict) -> Callable:
    """Attention whose picture rows, of the guided conditions, are guided away from the negative attention."""
    visit = forward.visits[position]
    before = _attention_before(plan, forward, visit, options)
    guide = _guide_rows(plan, forward, position, options)
    visit.expect()

    def attention(func, q, k, v, heads, *args, **kwargs):
        attend = functools.partial(before, func)
        z = attend(q, k, v, heads, *args, **kwargs)
        guided = attempt_in_block(plan, forward, visit, lambda: guide(attend, z, q, k, v, heads, _named(args, kwargs)))
        return z if guided is None else guided

    return attention


def attention_here(plan: Plan, forward: Forward, position: int, options: dict) -> Callable:
    """What a chosen block's attention becomes in this forward, which is not a branch beside the blocks."""
    if plan.at_prediction:
        rows = [chunk.rows for chunk in forward.chunks]
        return perturbed_attention(plan, forward, position, options, forward.picture, rows)
    return guided_attention(plan, forward, position, options)


def meeting_attention(
    plan: Plan,
    forward: Forward,
    position: int,
    options: dict,
    streams: list[Stream],
    through: Callable[[Stream, Callable], None],
) -> Callable:
    """Attention guided away from that of the branch, which goes on from what both make (NAG, arXiv 2505.21179).

    So the branch passes the block while the block is at work: through runs a stream through it, with an attention made
    of its options. Where a difference was kept, that stands in for the branch.
    """
    visit = forward.visits[position]
    before = _attention_before(plan, forward, visit, options)
    visit.expect()

    def attention(func, q, k, v, heads, *args, **kwargs):
        z = before(func, q, k, v, heads, *args, **kwargs)
        guided = attempt_in_block(plan, forward, visit, lambda: meet(z, heads, _named(args, kwargs)))
        return z if guided is None else guided

    def meet(z: Tensor, heads: int, kwargs: dict) -> Tensor:
        if visit.heard or NEGATIVE_MARK in kwargs.get("transformer_options", {}):
            return z
        visit.heard = True
        _check_joined(kwargs)
        z = z.clone()  # should the branch fail after it has guided, the plain one is there
        for stream in streams:
            met: list[Stream] = []
            through(stream, _joining(plan, forward, position, stream, z, met))
            if not met:
                raise Unheard()
        for chunk in forward.chunks:
            if chunk.differences:
                z_pos = z[chunk.rows, forward.picture].unflatten(-1, (heads, -1))
                _guide_from(plan, forward, position, chunk, z_pos, z_pos + chunk.differences[position])
        return z

    return attention


def _joining(
    plan: Plan, forward: Forward, position: int, stream: Stream, z: Tensor, met: list[Stream]
) -> Callable[[dict], Callable]:
    """Makes the attention of a stream, which guides the positive one's output z, in place, and gets it itself.

    met: takes down that it was called; a second call within the block is not the block's own.
    """

    def of(options: dict) -> Callable:
        before = _attention_before(plan, forward, forward.visits[position], options)

        def joining(func, q, k, v, heads, *args, **kwargs):
            own = before(func, q, k, v, heads, *args, **kwargs)
            if met:
                return own
            met.append(stream)
            own = _our_own(own, options)
            for chunk in stream.chunks:
                z_pos = z[chunk.rows, forward.picture].unflatten(-1, (heads, -1))
                z_neg = own[stream.rows_in(chunk), forward.picture_of(stream)].unflatten(-1, (heads, -1))
                if plan.renews and chunk.evaluation is not None:
                    chunk.renewed_in[position] = z_neg - z_pos
                _guide_from(plan, forward, position, chunk, z_pos, z_neg)
                ranges = plan.chosen[position].heads
                for minus, plus in zip(heads_in(z_neg, ranges), heads_in(z_pos, ranges), strict=True):
                    minus.copy_(plus)
            return own

        return joining

    return of


def _guide_from(plan: Plan, forward: Forward, position: int, chunk: Chunk, z_pos: Tensor, z_neg: Tensor) -> None:
    """Guide a chunk's picture in place, in the chosen heads."""
    note = noting(forward, forward.visits[position], chunk, plan.settings.tau)
    scale, ranges = plan.scale(position) * forward.strength, plan.chosen[position].heads
    guide_heads_in_place(z_pos, z_neg, ranges, scale, plan.settings, note)


def _check_joined(kwargs: dict) -> None:
    if kwargs.get("skip_output_reshape"):
        raise ValueError("its attention returns its heads apart, which guidance does not know")


def attention_of_all(
    plan: Plan, forward: Forward, model: Any, options: dict, give_up: Callable[[Exception], None]
) -> Callable:
    """Attention for a whole forward of a model whose blocks can't be replaced: ours where a chosen block asks for it.

    options: the forward's, without it. The host says in them which block is at work.
    """
    earlier = options.get(OVERRIDE)

    def attention(func, q, k, v, heads, *args, **kwargs):
        told = {**kwargs["transformer_options"], OVERRIDE: earlier}
        if not earlier:
            told.pop(OVERRIDE)
        guided = attempt(lambda: _guided_here(plan, forward, model, q, told), give_up)
        if guided is not None:
            return guided(func, q, k, v, heads, *args, **kwargs)
        attend = functools.partial(earlier, func) if earlier else func
        return attend(q, k, v, heads, *args, **{**kwargs, "transformer_options": told})

    return attention


def _guided_here(plan: Plan, forward: Forward, model: Any, q: Tensor, told: dict) -> Callable | None:
    """The attention that a chosen block is to have; None elsewhere, and where that fails."""
    visit = _visit_in(plan, forward, model, q, told)
    if visit is None:
        return None
    return attempt_in_block(plan, forward, visit, lambda: _guided_at(plan, forward, model, visit, q, told))


def _visit_in(plan: Plan, forward: Forward, model: Any, q: Tensor, told: dict) -> Visit | None:
    """The chosen block whose attention this is, the first time that it asks; None elsewhere."""
    if (NEGATIVE_MARK in told and plan.disturbed_key not in told) or forward.run.complained:
        return None
    visit = forward.visits.get(_place(plan, forward, model, q, told))
    if visit is None or visit.reached:
        return None
    visit.reached = True  # also where nothing is to be guided, or the report would miss the block
    return visit if forward.chunks and not visit.failed else None


def _place(plan: Plan, forward: Forward, model: Any, q: Tensor, told: dict) -> int:
    """Which block this is, -1 for none: as the host says it, or counted.

    Only a block's sequence has all tokens: those of layers that refine come from the text, references or picture alone.
    """
    if not plan.family.counted:
        return told.get("block_index", -1)
    if q.shape[2] != forward.prompt_tokens + _end(plan, forward, model):
        return -1
    forward.counted += 1
    return forward.counted - 1


def _end(plan: Plan, forward: Forward, model: Any) -> int:
    """How many tokens stand behind the text."""
    assert plan.family.sequence_end is not None
    return forward.ahead + plan.family.sequence_end(model, forward.tokens)


def _guided_at(plan: Plan, forward: Forward, model: Any, visit: Visit, q: Tensor, told: dict) -> Callable:
    _find_picture(plan, forward, model, q, told)
    return attention_here(plan, forward, visit.position, told)


def _find_picture(plan: Plan, forward: Forward, model: Any, q: Tensor, told: dict) -> None:
    """Note where the picture is in the sequence: where the host says, or at its end, but for what fills it up."""
    if q.shape[0] != forward.batch:
        raise ValueError(f"another patch calls it with {q.shape[0]} rows at once, of {forward.batch} in all")
    told_by_host = plan.family.sequence_end is None
    forward.txt_tokens = told["img_slice"][0] if told_by_host else q.shape[2] - _end(plan, forward, model)


def _guide_rows(plan: Plan, forward: Forward, position: int, options: dict) -> Callable:
    settings, ranges, visit = plan.settings, plan.chosen[position].heads, forward.visits[position]
    # (1 − u) Z⁺ + u Z⁻ as the negative branch is the same as u times the scale.
    scale = plan.scale(position) * settings.perturbation * forward.strength

    def guide(attend, z, q, k, v, heads, kwargs):
        if visit.heard or NEGATIVE_MARK in kwargs.get("transformer_options", {}):
            return z
        visit.heard = True
        z = _our_own(z, options)
        q, k, v, kwargs = _split_heads(q, k, v, heads, kwargs)
        for chunk in forward.chunks:
            own = rows_of(chunk.rows, q.shape[0])
            own_options = {"mask": _own_mask(kwargs, own), "transformer_options": options_of(chunk, options)}
            own_kwargs = {**kwargs, **own_options}
            z_neg = _negative(forward, forward.picture, settings, attend, own(q), own(k), own(v), heads, own_kwargs)
            z_pos = z[chunk.rows, forward.picture].unflatten(-1, (heads, -1))
            guide_heads_in_place(z_pos, z_neg, ranges, scale, settings, noting(forward, visit, chunk, settings.tau))
        return z

    return guide


def perturbed_attention(
    plan: Plan, forward: Forward, position: int, options: dict, picture: slice, rows: list[slice]
) -> Callable:
    """Attention of a negative stream: (1 − u) Z⁺ + u Z⁻ for the picture in `rows` (SoftPAG, arXiv 2506.10978)."""
    settings, ranges, share = plan.settings, plan.chosen[position].heads, plan.perturbation(position)
    visit = forward.visits[position]
    before = _attention_before(plan, forward, visit, options)
    visit.expect()

    def disturbed(func, q, k, v, heads, *args, **kwargs):
        attend = functools.partial(before, func)
        if visit.heard:
            return attend(q, k, v, heads, *args, **kwargs)
        visit.heard = True
        z = _our_own(attend(q, k, v, heads, *args, **kwargs), options)
        q, k, v, named = _split_heads(q, k, v, heads, _named(args, kwargs))
        own_kwargs = {**named, "transformer_options": options}
        z_neg = _negative(forward, picture, settings, attend, q, k, v, heads, own_kwargs)
        z_pos = z[:, picture].unflatten(-1, (heads, -1))
        for plus, minus in zip(heads_in(z_pos, ranges), heads_in(z_neg, ranges), strict=True):
            for own in rows:
                plus[own].copy_(torch.lerp(plus[own], minus[own], share))
        return z

    return disturbed


def _attention_before(plan: Plan, forward: Forward, visit: Visit, options: dict) -> Callable:
    """The attention that would run without this application: an earlier override, or the host's function."""
    earlier = options.get(OVERRIDE)

    def before(func, *args, **kwargs):
        own = attempt_in_block(plan, forward, visit, lambda: _options_before(options, kwargs))
        kwargs["transformer_options"] = options if own is None else own
        return earlier(func, *args, **kwargs) if earlier else func(*args, **kwargs)

    return before


def _options_before(options: dict, kwargs: dict) -> dict:
    """The options as they were, without our function; for a negative branch, with what they say of its rows."""
    given = kwargs.get("transformer_options", {})
    if NEGATIVE_MARK not in given:
        return options
    return {**options, **{name: given[name] for name in (NEGATIVE_MARK, "cond_or_uncond", "uuids") if name in given}}


def _named(args: tuple, kwargs: dict) -> dict:
    """The arguments of the host's attention behind heads by their names: some models give a mask by its place."""
    return {
        **dict(zip(("mask", "attn_precision", "skip_reshape", "skip_output_reshape"), args, strict=False)),
        **kwargs,
    }


def _split_heads(q: Tensor, k: Tensor, v: Tensor, heads: int, kwargs: dict) -> tuple[Tensor, Tensor, Tensor, dict]:
    """q, k, v as (batch, heads, tokens, head_dim), and what says so: some models give (batch, tokens, features)."""
    _check_joined(kwargs)
    if not kwargs.get("skip_reshape"):
        # SD 3 gives q with its heads joined, and v with its heads apart.
        q, k, v = (t.flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if kwargs.get("enable_gqa"):
        k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
        kwargs = {**kwargs, "enable_gqa": False}
    if k.shape[1] != heads or v.shape[1] != heads:
        raise ValueError(f"its attention shares {k.shape[1]} heads of keys among {heads}, which guidance does not know")
    return q, k, v, {**kwargs, "skip_reshape": True}


def _our_own(z: Tensor, options: dict) -> Tensor:
    """What attention returned, free to be changed in place: an override may keep its tensor for a later call."""
    return z.clone() if OVERRIDE in options else z


def _own_mask(kwargs: dict, own: Callable) -> Tensor | None:
    mask = kwargs.get("mask")
    return own(mask) if mask is not None and mask.ndim > 2 else mask


def _negative(
    forward: Forward,
    picture: slice,
    settings: Settings,
    attend: Callable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    kwargs: dict,
) -> Tensor:
    """Z⁻ of the picture's tokens, (rows, picture tokens, heads, head_dim). kwargs: the block's, of these rows."""
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5

    def attend_masked(q, k, v, mask):
        return attend(q, k, v, heads, **{**kwargs, "mask": mask})

    mask, text = kwargs.get("mask"), forward.text
    return negative_attention(
        settings.negative, q, k, v, picture, mask, settings.temperature, scale, attend_masked, text
    )
