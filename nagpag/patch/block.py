"""What happens in a block: guided attention, or the negative branch beside the positive one and their merge."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..blocks import Range, block_name
from ..config import Settings
from ..diagnostics.record import measure
from ..guidance import guide
from ..perturbation import negative_attention
from .fallback import attempt
from .forward import Chunk, Forward, Merge
from .plan import Plan

log = logging.getLogger("nag_pag_flux")

OVERRIDE = "optimized_attention_override"
# Marks the options of what is worked out for a negative branch: other applications of the node leave it alone.
NEGATIVE = "nag_pag_negative"
# Statistics for the log line look at this many tokens of each picture at most: enough for a mean, and free.
SAMPLED_TOKENS = 256
# Takes Z⁺, Z⁻ and Z, (rows, picture tokens, heads, head_dim), and the ratio before the limit, (rows, picture tokens).
Note = Callable[[Tensor, Tensor, Tensor, Tensor], None]


def double_block(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    """The replacement of a double block; `earlier` stood in its slot before."""

    def replacement(args: dict, extra: dict) -> dict:
        call = _caller(earlier, extra)
        forward = _forward_of(plan, position, args)
        if forward is None:
            return call(args)
        forward.txt_tokens = args["txt"].shape[1]
        if plan.merge is None:
            return call(_with_attention(args, _guided_attention(plan, forward, position, args["transformer_options"])))
        _attempt(plan, forward, position, lambda: _run_negative_doubles(plan, forward, position, args, call))
        out = call(args)
        if position == plan.merge:
            picture = slice(0, forward.tokens)
            _attempt(plan, forward, position, lambda: _merge(plan, forward, position, out["img"], picture))
        return out

    return replacement


def single_block(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    """The replacement of a single block; `earlier` stood in its slot before."""

    def replacement(args: dict, extra: dict) -> dict:
        call = _caller(earlier, extra)
        forward = _forward_of(plan, position, args)
        if forward is None:
            return call(args)
        _hear_text_tokens(forward, args["transformer_options"])
        if plan.merge is None:
            return call(_with_attention(args, _guided_attention(plan, forward, position, args["transformer_options"])))
        _attempt(plan, forward, position, lambda: _run_negative_singles(plan, forward, position, args, call))
        out = call(args)
        if position == plan.merge:
            _attempt(plan, forward, position, lambda: _merge(plan, forward, position, out["img"], forward.picture))
        return out

    return replacement


def _caller(earlier: Callable | None, extra: dict) -> Callable:
    return (lambda args: earlier(args, extra)) if earlier else extra["original_block"]


def _forward_of(plan: Plan, position: int, args: dict) -> Forward | None:
    """This application's forward, where it has something to do in this block."""
    options = args["transformer_options"]
    forward = options.get(plan.key)
    if not isinstance(forward, Forward) or NEGATIVE in options:
        return None
    forward.reached.add(position)
    return forward if forward.chunks and position not in forward.run.failed else None


def _hear_text_tokens(forward: Forward, options: dict) -> None:
    """In its single blocks the host says where in the sequence the text ends."""
    if "img_slice" in options:
        forward.txt_tokens = options["img_slice"][0]


# --- attention ---


def _with_attention(args: dict, attention: Callable) -> dict:
    return {**args, "transformer_options": {**args["transformer_options"], OVERRIDE: attention}}


def _guided_attention(plan: Plan, forward: Forward, position: int, options: dict) -> Callable:
    """Attention whose picture rows, of the guided conditions, are guided away from the negative attention."""
    settings, ranges = plan.settings, plan.chosen[position].heads
    # (1 − u) Z⁺ + u Z⁻ as the negative branch is the same as u times the scale.
    scale = plan.scale(position) * settings.perturbation * forward.strength

    def attention(func, q, k, v, heads, *args, **kwargs):
        attend = _attention_before(func, options)
        z = attend(q, k, v, heads, *args, **kwargs)
        if NEGATIVE in kwargs.get("transformer_options", {}):
            return z
        z = _our_own(z, options)
        for chunk in forward.chunks:
            own = _rows_of(chunk.rows, q.shape[0])

            def guide_chunk(chunk=chunk, own=own):
                own_kwargs = {**kwargs, "mask": _own_mask(kwargs, own), "transformer_options": _options(chunk, options)}
                z_neg = _negative(forward, settings, attend, own(q), own(k), own(v), heads, own_kwargs)
                z_pos = z[chunk.rows, forward.picture].unflatten(-1, (heads, -1))
                note = _noting(forward, position, chunk, settings.tau)
                _guide_heads_in_place(z_pos, z_neg, ranges, scale, settings, note)
                forward.guided.add(position)

            _attempt(plan, forward, position, guide_chunk)
        return z

    return attention


def _perturbed_attention(plan: Plan, forward: Forward, position: int, options: dict) -> Callable:
    """Attention of a negative stream: (1 − u) Z⁺ + u Z⁻ in the picture's rows (SoftPAG, arXiv 2506.10978)."""
    settings, ranges, share = plan.settings, plan.chosen[position].heads, plan.perturbation(position)

    def attention(func, q, k, v, heads, *args, **kwargs):
        attend = _attention_before(func, options)
        z = _our_own(attend(q, k, v, heads, *args, **kwargs), options)
        z_neg = _negative(forward, settings, attend, q, k, v, heads, {**kwargs, "transformer_options": options})
        z_pos = z[:, forward.picture].unflatten(-1, (heads, -1))
        for plus, minus in zip(_heads(z_pos, ranges), _heads(z_neg, ranges), strict=True):
            plus.copy_(torch.lerp(plus, minus, share))
        return z

    return attention


def _attention_before(func: Callable, options: dict) -> Callable:
    """The attention that would run without this application: an earlier override, or the host's function."""
    earlier = options.get(OVERRIDE)

    def attend(*args, **kwargs):
        # The options as they were, without our function; for a negative branch, with what they say of its rows.
        given = kwargs.get("transformer_options", {})
        own = {name: given[name] for name in (NEGATIVE, "cond_or_uncond", "uuids") if name in given}
        kwargs["transformer_options"] = {**options, **own} if NEGATIVE in given else options
        return earlier(func, *args, **kwargs) if earlier else func(*args, **kwargs)

    return attend


def _our_own(z: Tensor, options: dict) -> Tensor:
    """What attention returned, free to be changed in place: an override may keep its tensor for a later call."""
    return z.clone() if OVERRIDE in options else z


def _own_mask(kwargs: dict, own: Callable) -> Tensor | None:
    mask = kwargs.get("mask")
    return own(mask) if mask is not None and mask.ndim > 2 else mask


def _negative(
    forward: Forward, settings: Settings, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, kwargs: dict
) -> Tensor:
    """Z⁻ of the picture's tokens, (rows, picture tokens, heads, head_dim). kwargs: the block's, of these rows."""
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5

    def attend_masked(q, k, v, mask):
        return attend(q, k, v, heads, **{**kwargs, "mask": mask})

    return negative_attention(
        settings.negative, q, k, v, forward.picture, kwargs.get("mask"), settings.temperature, scale, attend_masked
    )


def _options(chunk: Chunk, options: dict) -> dict:
    """The options for what is worked out for one chunk's negative branch: its rows, and marked as such."""
    own = {**options, NEGATIVE: True}
    for name in ("cond_or_uncond", "uuids"):
        if name in own and chunk.index is not None:
            own[name] = own[name][chunk.index : chunk.index + 1]
    return own


# --- the negative branch ---


def _run_negative_doubles(plan: Plan, forward: Forward, position: int, args: dict, call: Callable) -> None:
    for chunk in forward.chunks:
        if chunk.difference is not None:
            continue
        own = _rows_of(chunk.rows, forward.batch)
        if position == plan.blocks[0]:
            # The one copy: blocks add in place, and the positive stream needs its own.
            chunk.img, chunk.txt = own(args["img"]).clone(), own(args["txt"]).clone()
        if chunk.img is None:
            continue
        out = call(_negative_args(plan, forward, position, chunk, args, own))
        chunk.img, chunk.txt = out["img"], out["txt"]
        if position != plan.merge:
            _add_control(forward, "input", position, chunk.img, own)


def _run_negative_singles(plan: Plan, forward: Forward, position: int, args: dict, call: Callable) -> None:
    for chunk in forward.chunks:
        if chunk.difference is not None:
            continue
        own = _rows_of(chunk.rows, forward.batch)
        if position == plan.blocks[0]:
            chunk.img = own(args["img"]).clone()
        if chunk.img is None:
            continue
        if chunk.txt is not None:
            chunk.img, chunk.txt = _joined(chunk.img, chunk.txt), None
        chunk.img = call(_negative_args(plan, forward, position, chunk, args, own))["img"]
        if position != plan.merge:
            picture_on = chunk.img[:, forward.picture.start :]
            _add_control(forward, "output", position - plan.double_blocks, picture_on, own)


def _joined(img: Tensor, txt: Tensor) -> Tensor:
    """One sequence for the single blocks, as the host makes it of the positive stream."""
    if img.dtype == torch.float16:
        img = torch.nan_to_num(img, nan=0.0, posinf=65504, neginf=-65504)
    return torch.cat((txt, img), 1)


def _negative_args(plan: Plan, forward: Forward, position: int, chunk: Chunk, args: dict, own: Callable) -> dict:
    """The block's arguments for one chunk's negative stream: the same, of these rows, with its own img and txt."""
    options = _options(chunk, args["transformer_options"])
    own_args = {name: own(value) for name, value in args.items() if name not in ("img", "txt", "transformer_options")}
    own_args |= {"img": chunk.img, "transformer_options": options}
    if "txt" in args:
        own_args["txt"] = chunk.txt
    if position in plan.blocks:
        return _with_attention(own_args, _perturbed_attention(plan, forward, position, options))
    return own_args


def _add_control(forward: Forward, kind: str, index: int, img: Tensor, own: Callable) -> None:
    """Add what a ControlNet adds after this block, as the host adds it to the positive stream."""
    residuals = (forward.control or {}).get(kind) or []
    if index < len(residuals) and residuals[index] is not None:
        add = own(residuals[index])
        img[:, : add.shape[1]] += add


def _merge(plan: Plan, forward: Forward, position: int, img: Tensor, picture: slice) -> None:
    """Merge every chunk's negative branch into the picture's tokens of the positive stream, in place."""
    scale = plan.settings.scale * forward.strength
    for chunk in forward.chunks:
        h_pos = img[chunk.rows, picture]
        if chunk.difference is not None:
            h_neg = h_pos + chunk.difference
        elif chunk.img is not None:
            h_neg = chunk.img[:, picture]
            if plan.renews:
                chunk.renewed = h_neg - h_pos
        else:
            continue  # the branch never began in this forward
        # One axis of heads: the norms run over the token's whole hidden state.
        z_pos, z_neg = h_pos.unsqueeze(2), h_neg.unsqueeze(2)
        note = _noting(forward, position, chunk, plan.settings.tau)
        _guide_in_place(z_pos, z_neg, scale, plan.settings, note)
        forward.guided.add(position)
        chunk.img = chunk.txt = None


# --- both ---


def _rows_of(rows: slice, batch: int) -> Callable:
    """A function that takes these rows of whatever has a batch axis, tensors within tuples and dataclasses too."""
    if rows == slice(0, batch):
        return lambda value: value

    def own(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows] if value.ndim and value.shape[0] == batch else value
        if isinstance(value, (tuple, list)):
            return type(value)(own(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):  # the host's ModulationOut
            return dataclasses.replace(
                value, **{f.name: own(getattr(value, f.name)) for f in dataclasses.fields(value)}
            )
        return value

    return own


def _heads(z: Tensor, ranges: tuple[Range, ...] | None) -> tuple[Tensor, ...]:
    """Views of z, (rows, picture tokens, heads, head_dim), of the heads in each range."""
    return (z,) if ranges is None else tuple(z[:, :, first : last + 1] for first, last in ranges)


def _guide_heads_in_place(
    z_pos: Tensor,
    z_neg: Tensor,
    ranges: tuple[Range, ...] | None,
    scale: float | Tensor,
    settings: Settings,
    note: Note,
) -> None:
    """Guide the features of the chosen heads, which share one L1 ratio; the others keep Z⁺."""
    parts = _heads(z_pos, ranges)
    if len(parts) == 1:
        _guide_in_place(parts[0], _heads(z_neg, ranges)[0], scale, settings, note)
        return
    joined = torch.cat(parts, dim=2)
    _guide_in_place(joined, torch.cat(_heads(z_neg, ranges), dim=2), scale, settings, note)
    for part, guided in zip(parts, joined.split([part.shape[2] for part in parts], dim=2), strict=True):
        part.copy_(guided)


def _guide_in_place(z_pos: Tensor, z_neg: Tensor, scale: float | Tensor, settings: Settings, note: Note) -> None:
    """Guide z_pos, a view into the host's tensor, (rows, picture tokens, heads, head_dim); note what that does."""
    if z_pos.shape != z_neg.shape:
        raise ValueError(f"plain tokens are {tuple(z_pos.shape)}, negative ones {tuple(z_neg.shape)}")
    guided, ratio = guide(z_pos, z_neg, scale, settings.tau, settings.alpha)
    note(z_pos, z_neg, guided, ratio)
    # The last thing that happens: whatever fails before this leaves Z⁺ as it was.
    z_pos.copy_(guided)


def _noting(forward: Forward, position: int, chunk: Chunk, tau: float) -> Note:
    """What takes down a guided merge: all that a record wants, or only the log line's two numbers."""

    def note(z_pos: Tensor, z_neg: Tensor, z: Tensor, ratio: Tensor) -> None:
        if not forward.recorded:
            forward.statistics.append(_sampled(z_pos, z, ratio, tau))
            return
        numbers, moved = measure(z_pos, z_neg, z, ratio, tau)
        reused, first = chunk.difference is not None, chunk is forward.chunks[0]
        forward.merges.append(Merge(position, reused, first, numbers, moved))

    return note


def _sampled(z_pos: Tensor, z: Tensor, ratio: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The mean relative change, from a few tokens, and the share of tokens at the limit, both on the device."""
    every = slice(None, None, max(1, z_pos.shape[1] // SAMPLED_TOKENS))
    change = (z[:, every] - z_pos[:, every]).abs().sum(dtype=torch.float32)
    return change / z_pos[:, every].abs().sum(dtype=torch.float32), (ratio > tau).float().mean()


def _attempt(plan: Plan, forward: Forward, position: int, work: Callable[[], None]) -> None:
    """Do a piece of guidance; where it fails, go on without guidance here, and say so once."""
    if position in forward.run.failed:
        return
    attempt(work, lambda error: _give_up(plan, forward, position, error))


def _give_up(plan: Plan, forward: Forward, position: int, error: Exception) -> None:
    # A branch that breaks is lost as a whole; guidance inside the attention is each block's own.
    forward.run.failed.update([position] if plan.merge is None else plan.positions)
    for chunk in forward.chunks:
        chunk.img = chunk.txt = None
    log.warning(
        "NAG-PAG: %s goes on without guidance from sigma %s on: %s: %s",
        block_name(position, plan.double_blocks),
        "unknown" if forward.sigmas is None else f"{float(forward.sigmas[0]):.4g}",
        type(error).__name__,
        error,
    )
