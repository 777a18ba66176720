"""The negative branch: a stream of its own beside the positive one, from the first chosen block to the merge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from .attention import OVERRIDE, perturbed_attention, with_attention
from .copies import Copies
from .forward import Chunk, Forward, Stream, options_of, rows_of, rows_of_doubled
from .merge import guide_in_place, noting
from .negative import in_rows
from .plan import PLANS, Plan, replacements
from .run import Run


def begin_streams(
    plan: Plan, run: Run, chunks: tuple[Chunk, ...], batch: int, options: dict, changing: bool, whole: bool
) -> None:
    """Give each chunk whose branch is to be computed the stream in which it runs.

    One each, so that no other row is computed; one for all, of the whole batch, where another patch looks at a block's
    rows: what it does may hang on which conditions are there. changing: whether the host itself adds between blocks;
    whole: whether it gives a block what is of all rows, in a way of its own.
    """
    computed = tuple(chunk for chunk in chunks if not chunk.reuses)
    if not computed:
        return
    others = _others(plan, options)
    patches = options.get("patches", {})
    looked_at = (
        whole or others or patches.get("attn1_patch") or patches.get("attn1_output_patch") or OVERRIDE in options
    )
    groups: list[tuple[slice, int | None, tuple[Chunk, ...]]]
    groups = [(chunk.rows, chunk.index, (chunk,)) for chunk in computed]
    if looked_at and any(chunk.size < batch for chunk in computed):
        groups = [(slice(0, batch), None, computed)]
    for rows, index, members in groups:
        stream = Stream(rows, index, members, _copies(run, members), watched=changing or others)
        for chunk in members:
            chunk.stream = stream
        functions = [*plan.earlier.values(), *([options[OVERRIDE]] if OVERRIDE in options else [])]
        stream.copy([*functions, *patches.values()])


def _others(plan: Plan, options: dict) -> bool:
    """Whether a block that the branch passes is replaced by others, too, before or after us."""
    plans, slots = options.get(PLANS, (plan,)), replacements(options)
    ours = {id(replacement) for each in plans for replacement in each.replacements.values()}
    found = {id(slots.get(plan.slot(position))) for position in plan.positions}
    found |= {id(earlier) for each in plans for earlier in each.earlier.values()}
    return not found <= ours


def _copies(run: Run, chunks: tuple[Chunk, ...]) -> Copies:
    """What other patches keep for this stream; from step to step, where it can be told from others."""
    key = tuple(chunk.condition for chunk in chunks)
    return Copies() if None in key else run.copies.setdefault(key, Copies())


def at_double_block(plan: Plan, forward: Forward, position: int, args: dict) -> list[Stream]:
    """The streams that pass a double block; each begins as a copy of the positive one, or of its img."""
    passing = []
    for stream in forward.streams:
        own = rows_of(stream.rows, forward.batch)
        if position == forward.start:
            # The one copy: blocks add in place, and the positive stream needs its own.
            stream.img, stream.txt = own(args["img"]).clone(), _first_text(plan, forward, stream, own(args["txt"]))
        if stream.img is None:
            continue
        stream.catch_up()
        for negative, name in ((stream.img, "img"), (stream.txt, "txt")):
            _follow(stream, negative, args[name], stream.left.get(name), own)
        passing.append(stream)
    return passing


def at_single_block(plan: Plan, forward: Forward, position: int, args: dict) -> list[Stream]:
    """The streams that pass a single block, whose one sequence the host calls img: text, then picture."""
    passing = []
    for stream in forward.streams:
        own = rows_of(stream.rows, forward.batch)
        if position == forward.start:
            stream.joined = own(args["img"]).clone()
        elif stream.img is not None and stream.txt is not None:
            stream.joined, stream.img, stream.txt = _joined(stream.img, stream.txt), None, None
        if stream.joined is None:
            continue
        stream.catch_up()
        _follow_joined(forward, stream, args["img"], own)
        passing.append(stream)
    return passing


def pass_block(
    plan: Plan,
    forward: Forward,
    position: int,
    stream: Stream,
    args: dict,
    call: Callable,
    attention: Callable[[dict], Callable] | None = None,
) -> None:
    """Run a stream through a block. call: calls the block for it; attention: made of its options, where it is ours."""
    own_args = _negative_args(plan, forward, position, stream, args, rows_of(stream.rows, forward.batch))
    if attention is not None:
        own_args = with_attention(own_args, attention(own_args["transformer_options"]))
    out = call(own_args)
    if "txt" in args:
        stream.img, stream.txt = out["img"], out.get("txt", stream.txt)
    else:
        stream.joined = out["img"]


def leave_block(forward: Forward, out: dict) -> None:
    """The positive stream leaves a block: what others do to it before the next is to be done to the branch, too."""
    for stream in forward.streams:
        if stream.copies.keep:
            stream.copies.end()
        stream.left = {name: out[name] for name in ("img", "txt") if name in out}
        if stream.watched:
            stream.left = {name: left.clone() for name, left in stream.left.items()}


def _follow(stream: Stream, negative: Tensor | None, now: Tensor, left: Tensor | None, own: Callable) -> None:
    """Add to a negative stream what was added to the positive one since that left the last block.

    A ControlNet's residuals, another node's work around ours: without it h⁻ would lack them, and h⁺ − h⁻ have them.
    """
    if negative is None or left is None or (now is left and not stream.watched):
        return
    change = own(now) - own(left)
    if change.shape == negative.shape:  # a negative prompt's text may be longer or shorter
        negative += change


def _follow_joined(forward: Forward, stream: Stream, now: Tensor, own: Callable) -> None:
    """The same for a single block, before which the host joins text and picture."""
    left = stream.left.get("img")
    if "txt" in stream.left and left is not None:
        if not stream.watched:
            return  # the host has just joined them, and nobody else is there
        left = _joined(left, stream.left["txt"])
    assert stream.joined is not None
    if stream.text is None:
        _follow(stream, stream.joined, now, left, own)
    elif left is not None and (now is not left or stream.watched):
        text = forward.text_tokens
        _follow(stream, stream.joined[:, stream.text.tokens :], now[:, text:], left[:, text:], own)


def _first_text(plan: Plan, forward: Forward, stream: Stream, txt: Tensor) -> Tensor:
    """The text that the stream begins with: in a branch's rows the negative prompt's, or the prompt's own."""
    if stream.text is None:
        return txt.clone()
    parts = [repeat_to_batch_size(chunk.text.txt, chunk.size) for chunk in stream.chunks if chunk.text is not None]
    if plan.family.clip_first:
        clip = txt[:, : txt.shape[1] - forward.prompt_tokens]
        own = (clip[stream.rows_in(chunk)] for chunk in stream.chunks)
        parts = [torch.cat((before, part), 1) for before, part in zip(own, parts, strict=True)]
    return _with_rows(stream, txt, parts) if stream.mixed else torch.cat(parts)


def _with_rows(stream: Stream, tensor: Tensor, parts: list[Tensor]) -> Tensor:
    """A copy of what all rows have, with the branches' own in theirs."""
    tensor = tensor.clone()
    for chunk, part in zip(stream.chunks, parts, strict=True):
        tensor[stream.rows_in(chunk)] = part
    return tensor


def _joined(img: Tensor, txt: Tensor) -> Tensor:
    """One sequence for the single blocks, as the host makes it of the positive stream."""
    if img.dtype == torch.float16:
        img = torch.nan_to_num(img, nan=0.0, posinf=65504, neginf=-65504)
    return torch.cat((txt, img), 1)


def _negative_args(plan: Plan, forward: Forward, position: int, stream: Stream, args: dict, own: Callable) -> dict:
    """The block's arguments for a negative stream: the same, of its rows, with its own img and txt."""
    options = options_of(stream, args["transformer_options"])
    if OVERRIDE in options:
        options[OVERRIDE] = stream.own(options[OVERRIDE])
    if "patches" in options:
        options["patches"] = {name: stream.own(patches) for name, patches in options["patches"].items()}
    own_args = {name: own(value) for name, value in args.items() if name not in ("img", "txt", "transformer_options")}
    own_args["transformer_options"] = options
    if plan.family.doubled_vec:
        own_args["vec"] = rows_of_doubled(stream.rows, forward.batch)(args["vec"])
    own_args |= {"img": stream.img, "txt": stream.txt} if "txt" in args else {"img": stream.joined}
    if stream.text is not None:
        _carry(plan, forward, stream, own_args)
    elif position in plan.blocks and plan.perturbation(position) > 0:
        rows = [stream.rows_in(chunk) for chunk in stream.chunks]
        attention = perturbed_attention(plan, forward, position, options, forward.picture_of(stream), rows)
        return with_attention(own_args, attention)
    return own_args


def _carry(plan: Plan, forward: Forward, stream: Stream, own_args: dict) -> None:
    """Give the block what goes with the negative prompt's text: positions, mask, modulation, the picture's place."""
    text, tokens = stream.text, forward.text_tokens
    assert text is not None
    if own_args.get("pe") is not None and text.pe is not None:
        if stream.pe is None:  # the same for all blocks
            first = plan.family.picture_first
            of_picture = own_args["pe"][:, :, : forward.text.start] if first else own_args["pe"][:, :, tokens:]
            of_text = text.pe.to(of_picture).expand(len(of_picture), *text.pe.shape[1:])
            stream.pe = torch.cat((of_picture, of_text) if first else (of_text, of_picture), 2)
        own_args["pe"] = stream.pe
    if plan.family.mask is not None:
        own_args[plan.family.mask] = _mask(stream, own_args.get(plan.family.mask))
    if stream.chunks[0].shift is not None:
        own_args["vec"] = _shifted(stream, own_args["vec"])
    options = own_args["transformer_options"]
    if "img_slice" in options:
        options["img_slice"] = [text.tokens, options["img_slice"][1] - tokens + text.tokens]


def _mask(stream: Stream, own: Tensor | None) -> Tensor | None:
    """The attention mask for a stream that carries a negative prompt; own: the one of its rows with the prompt."""
    parts = [None if chunk.text is None else chunk.text.mask for chunk in stream.chunks]
    masks = [in_rows(part, chunk.size) for part, chunk in zip(parts, stream.chunks, strict=True) if part is not None]
    if not stream.mixed and len(stream.chunks) == 1:
        return masks[0].expand(stream.chunks[0].size, *masks[0].shape[1:]) if masks else None
    if own is None and not masks:
        return None
    if own is None or not masks:
        raise ValueError("of the prompts in one batch some have an attention mask and some have none")
    return _with_rows(stream, own, masks)


def _shifted(stream: Stream, vec: Tensor) -> Tensor:
    """The modulation vector, (rows, hidden), with the negative prompt's pooled vector in the branches' rows.

    Where given frames have a modulation of their own, (rows, 2, hidden), in both.
    """
    shifts = [chunk.shift for chunk in stream.chunks if chunk.shift is not None]
    shifts = [shift.unsqueeze(1) if vec.ndim == 3 else shift for shift in shifts]
    if not stream.mixed and len(shifts) == 1:
        return vec + shifts[0]
    return _with_rows(
        stream, vec, [vec[stream.rows_in(chunk)] + shift for chunk, shift in zip(stream.chunks, shifts, strict=True)]
    )


def merge_branch(plan: Plan, forward: Forward, position: int, stream: Tensor, picture: slice) -> None:
    """Merge every chunk's branch into the positive stream, in place.

    stream: what the block returned of the positive one as img: (batch, image tokens, hidden) after a double block, text
    and image tokens joined after a single one. picture: the picture's tokens in it.
    """
    scale = plan.settings.scale * forward.strength
    for chunk in forward.chunks:
        h_pos, negative = stream[chunk.rows, picture], _negative_picture(forward, chunk, picture)
        if chunk.difference is not None:
            h_neg = h_pos + chunk.difference
        elif negative is not None:
            h_neg = negative
            if plan.renews:
                chunk.renewed = h_neg - h_pos
        else:
            continue  # the branch never began in this forward
        # One axis of heads: the norms run over the token's whole hidden state.
        z_pos, z_neg = h_pos.unsqueeze(2), h_neg.unsqueeze(2)
        note = noting(forward, forward.visits[position], chunk, plan.settings.tau)
        guide_in_place(z_pos, z_neg, scale, plan.settings, note)
        chunk.end_branch()


def _negative_picture(forward: Forward, chunk: Chunk, picture: slice) -> Tensor | None:
    """h⁻ of a chunk whose branch has run, (rows, picture tokens, hidden). picture: its place after a double block."""
    stream = chunk.stream
    if stream is None:
        return None
    if stream.joined is not None:
        return stream.joined[stream.rows_in(chunk), forward.picture_of(stream)]
    return None if stream.img is None else stream.img[stream.rows_in(chunk), picture]
