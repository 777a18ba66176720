"""What stands in a block's place: its call with guided attention, or beside it the negative branch and their merge."""

from __future__ import annotations

from collections.abc import Callable

from .attention import guided_attention, with_attention
from .branch import leave_block, merge_branch, run_double_block, run_single_block
from .fallback import attempt_in_block
from .forward import NEGATIVE_MARK, Forward
from .plan import Plan


def double_block(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    """The replacement of a double block; `earlier` stood in its slot before."""

    def replacement(args: dict, extra: dict) -> dict:
        call = _caller(earlier, extra)
        forward = _forward_of(plan, position, args)
        if forward is None:
            return call(args)
        forward.txt_tokens = args["txt"].shape[1]
        if plan.merge is None:
            return call(with_attention(args, guided_attention(plan, forward, position, args["transformer_options"])))
        of_stream = _caller_of_stream(earlier, extra)
        attempt_in_block(plan, forward, position, lambda: run_double_block(plan, forward, position, args, of_stream))
        out = call(args)
        if position != plan.merge:
            attempt_in_block(plan, forward, position, lambda: leave_block(forward, out))
        else:
            picture = slice(0, forward.tokens)
            attempt_in_block(
                plan, forward, position, lambda: merge_branch(plan, forward, position, out["img"], picture)
            )
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
            return call(with_attention(args, guided_attention(plan, forward, position, args["transformer_options"])))
        of_stream = _caller_of_stream(earlier, extra)
        attempt_in_block(plan, forward, position, lambda: run_single_block(plan, forward, position, args, of_stream))
        out = call(args)
        if position != plan.merge:
            attempt_in_block(plan, forward, position, lambda: leave_block(forward, out))
        else:
            attempt_in_block(
                plan, forward, position, lambda: merge_branch(plan, forward, position, out["img"], forward.picture)
            )
        return out

    return replacement


def _caller(earlier: Callable | None, extra: dict) -> Callable:
    return (lambda args: earlier(args, extra)) if earlier else extra["original_block"]


def _caller_of_stream(earlier: Callable | None, extra: dict) -> Callable:
    return lambda stream: _caller(stream.own(earlier), extra)


def _forward_of(plan: Plan, position: int, args: dict) -> Forward | None:
    """This application's forward, where it has something to do in this block."""
    options = args["transformer_options"]
    forward = options.get(plan.forward_key)
    if forward is None or NEGATIVE_MARK in options:
        return None
    forward.reached.add(position)
    return forward if forward.chunks and position not in forward.run.failed else None


def _hear_text_tokens(forward: Forward, options: dict) -> None:
    """In its single blocks the host says where in the sequence the text ends."""
    if "img_slice" in options:
        forward.txt_tokens = options["img_slice"][0]
