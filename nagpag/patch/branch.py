"""The negative branch: a stream of its own beside the positive one, from the first chosen block to the merge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from .attention import perturbed_attention, with_attention
from .forward import Chunk, Forward, options_of, rows_of
from .merge import guide_in_place, noting
from .negative import in_rows
from .plan import Plan


def run_double_block(plan: Plan, forward: Forward, position: int, args: dict, call: Callable) -> None:
    """Run every chunk's branch through a double block; it begins as a copy of the positive stream, or of its img."""
    for chunk in forward.chunks:
        if chunk.difference is not None:
            continue
        own = rows_of(chunk.rows, forward.batch)
        if position == forward.start:
            # The one copy: blocks add in place, and the positive stream needs its own.
            chunk.img, chunk.txt = own(args["img"]).clone(), _first_text(chunk, own(args["txt"]))
        if chunk.img is None:
            continue
        out = call(_negative_args(plan, forward, position, chunk, args, own))
        chunk.img, chunk.txt = out["img"], out["txt"]
        if position != plan.merge:
            _add_control(forward, "input", position, chunk.img, own)


def run_single_block(plan: Plan, forward: Forward, position: int, args: dict, call: Callable) -> None:
    """Run every chunk's branch through a single block, whose one stream the host calls img: text, then picture."""
    for chunk in forward.chunks:
        if chunk.difference is not None:
            continue
        own = rows_of(chunk.rows, forward.batch)
        if position == forward.start:
            chunk.joined = own(args["img"]).clone()
        elif chunk.img is not None and chunk.txt is not None:
            chunk.joined, chunk.img, chunk.txt = _joined(chunk.img, chunk.txt), None, None
        if chunk.joined is None:
            continue
        chunk.joined = call(_negative_args(plan, forward, position, chunk, args, own))["img"]
        if position != plan.merge:
            picture_on = chunk.joined[:, forward.picture_of(chunk).start :]
            _add_control(forward, "output", position - plan.double_blocks, picture_on, own)


def _first_text(chunk: Chunk, txt: Tensor) -> Tensor:
    """The text that the branch begins with: the negative prompt's, or the prompt's own."""
    return txt.clone() if chunk.text is None else repeat_to_batch_size(chunk.text.txt, txt.shape[0]).clone()


def _joined(img: Tensor, txt: Tensor) -> Tensor:
    """One sequence for the single blocks, as the host makes it of the positive stream."""
    if img.dtype == torch.float16:
        img = torch.nan_to_num(img, nan=0.0, posinf=65504, neginf=-65504)
    return torch.cat((txt, img), 1)


def _negative_args(plan: Plan, forward: Forward, position: int, chunk: Chunk, args: dict, own: Callable) -> dict:
    """The block's arguments for one chunk's negative stream: the same, of these rows, with its own img and txt."""
    options = options_of(chunk, args["transformer_options"])
    own_args = {name: own(value) for name, value in args.items() if name not in ("img", "txt", "transformer_options")}
    own_args["transformer_options"] = options
    own_args |= {"img": chunk.img, "txt": chunk.txt} if "txt" in args else {"img": chunk.joined}
    if chunk.text is not None:
        _carry(forward, chunk, own_args)
    if position in plan.blocks and plan.perturbation(position) > 0:
        attention = perturbed_attention(plan, forward, position, options, forward.picture_of(chunk))
        return with_attention(own_args, attention)
    return own_args


def _carry(forward: Forward, chunk: Chunk, own_args: dict) -> None:
    """Give the block what goes with the negative prompt's text: positions, mask, modulation, the picture's place."""
    text, tokens, rows = chunk.text, forward.picture.start, chunk.rows.stop - chunk.rows.start
    assert text is not None
    if own_args.get("pe") is not None:
        if chunk.pe is None:  # the same for all blocks
            of_picture = own_args["pe"][:, :, tokens:]
            of_text = text.pe.to(of_picture).expand(len(of_picture), *text.pe.shape[1:])
            chunk.pe = torch.cat((of_text, of_picture), 2)
        own_args["pe"] = chunk.pe
    own_args["attn_mask"] = None if text.mask is None else in_rows(text.mask, rows)
    if chunk.shift is not None:
        own_args["vec"] = own_args["vec"] + chunk.shift
    options = own_args["transformer_options"]
    if "img_slice" in options:
        options["img_slice"] = [text.tokens, options["img_slice"][1] - tokens + text.tokens]


def _add_control(forward: Forward, kind: str, index: int, img: Tensor, own: Callable) -> None:
    """Add what a ControlNet adds after this block, as the host adds it to the positive stream."""
    residuals = (forward.control or {}).get(kind) or []
    if index < len(residuals) and residuals[index] is not None:
        add = own(residuals[index])
        img[:, : add.shape[1]] += add


def merge_branch(plan: Plan, forward: Forward, position: int, stream: Tensor, picture: slice) -> None:
    """Merge every chunk's branch into the positive stream, in place.

    stream: what the block returned of the positive one as img: (batch, image tokens, hidden) after a double block, text
    and image tokens joined after a single one. picture: the picture's tokens in it.
    """
    scale = plan.settings.scale * forward.strength
    for chunk in forward.chunks:
        h_pos = stream[chunk.rows, picture]
        negative = chunk.img if chunk.joined is None else chunk.joined
        if chunk.difference is not None:
            h_neg = h_pos + chunk.difference
        elif negative is not None:
            h_neg = negative[:, picture if chunk.joined is None else forward.picture_of(chunk)]
            if plan.renews:
                chunk.renewed = h_neg - h_pos
        else:
            continue  # the branch never began in this forward
        # One axis of heads: the norms run over the token's whole hidden state.
        z_pos, z_neg = h_pos.unsqueeze(2), h_neg.unsqueeze(2)
        note = noting(forward, forward.visits[position], chunk, plan.settings.tau)
        guide_in_place(z_pos, z_neg, scale, plan.settings, note)
        chunk.end_branch()
