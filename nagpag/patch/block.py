"""What stands in a block's place: its call with guided attention, or beside it the negative branch and their merge.

All that is done here is done within `attempt`: whatever goes wrong, what was there is called as it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .attention import attention_here, meeting_attention, with_attention
from .branch import at_double_block, at_single_block, leave_block, merge_branch, pass_block
from .fallback import Unheard, attempt, attempt_in_block, give_up_without_forward
from .forward import NEGATIVE_MARK, Forward, Stream, Visit
from .plan import Plan, replacements

# Before a block: hears what it is told of the text, and gives the streams of the branch that pass it.
Enter = Callable[[Plan, Forward, int, dict], list[Stream]]


def block_replacement(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    """The replacement of a block; `earlier` stood in its slot before."""
    make = _double_block if position < plan.double_blocks else _single_block
    return make(plan, position, earlier)


def replace_blocks(plan: Plan, options: dict) -> None:
    """Put the replacements into a forward's own options, around what stands there."""
    slots = dict(replacements(options))
    for position in plan.positions:
        slot = plan.slot(position)
        slots[slot] = _around(plan, position, slots.get(slot))
    options["patches_replace"] = {**options.get("patches_replace", {}), "dit": slots}


def _around(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    """The same one each time, as torch.compile compiles anew for another."""
    before, replacement = plan.disturbing.get(position, (None, None))
    if replacement is None or before is not earlier:
        replacement = block_replacement(plan, position, earlier)
        plan.disturbing[position] = earlier, replacement
    return replacement


def _double_block(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    def enter(plan: Plan, forward: Forward, position: int, args: dict) -> list[Stream]:
        if "txt" in args:
            forward.txt_tokens = args["txt"].shape[1]
        return at_double_block(plan, forward, position, args) if plan.beside_blocks else []

    return _replacement(plan, position, earlier, enter)


def _single_block(plan: Plan, position: int, earlier: Callable | None) -> Callable:
    def enter(plan: Plan, forward: Forward, position: int, args: dict) -> list[Stream]:
        # Here the host says where in the sequence the text ends.
        if "img_slice" in args["transformer_options"]:
            forward.txt_tokens = args["transformer_options"]["img_slice"][0]
        elif plan.family.picture_last:
            forward.txt_tokens = args["img"].shape[1] - forward.tokens - forward.ahead
        return at_single_block(plan, forward, position, args) if plan.beside_blocks else []

    return _replacement(plan, position, earlier, enter)


def _replacement(plan: Plan, position: int, earlier: Callable | None, enter: Enter) -> Callable:
    def replacement(args: dict, extra: dict) -> dict:
        found = _forward_here(plan, position, args, extra)
        if found is None:
            return _what_was_there(earlier, args, extra)
        forward, visit = found
        given = attempt_in_block(
            plan, forward, visit, lambda: _enter(plan, forward, position, args, extra, earlier, enter)
        )
        if given is None:
            return _what_was_there(earlier, args, extra)
        out = _what_was_there(earlier, *given)
        attempt_in_block(plan, forward, visit, lambda: _leave(plan, forward, position, out))
        return out

    # torch.compile keeps what it compiles by code, a few versions of each, and the position is compiled in: each block
    # has code of its own, as with one for all a dozen blocks would be a dozen versions.
    replacement.__code__ = replacement.__code__.replace(co_name=f"replacement_{position}")
    return replacement


def _what_was_there(earlier: Callable | None, args: dict, extra: dict) -> dict:
    return earlier(args, extra) if earlier else extra["original_block"](args)


def _forward_here(plan: Plan, position: int, args: dict, extra: dict) -> tuple[Forward, Visit] | None:
    """This application's forward, and what it leaves behind here, where it has something to do in this block."""
    return attempt(
        lambda: _forward_of(plan, position, args, extra), lambda error: give_up_without_forward(plan, position, error)
    )


def _forward_of(plan: Plan, position: int, args: dict, extra: dict) -> tuple[Forward, Visit] | None:
    call = plan.calls[position]
    if call.failed:
        return None
    options = _options(plan, args, extra)
    if options is None:
        call.without_options = True
        return None
    if NEGATIVE_MARK in options and plan.disturbed_key not in options:
        return None
    forward = options[plan.forward_key]
    visit = forward.visits[position]
    visit.reached = True
    return (forward, visit) if forward.chunks and not visit.failed else None


def _options(plan: Plan, args: dict, extra: dict) -> dict | None:
    """The forward's options: the host gives them in the first dict, other packs' forwards in the second, or nowhere."""
    for given in (args, extra):
        options = given.get("transformer_options")
        if options is not None and plan.forward_key in options:
            return options
    return None


def _enter(
    plan: Plan, forward: Forward, position: int, args: dict, extra: dict, earlier: Callable | None, enter: Enter
) -> tuple[dict, dict]:
    """All that comes before the block; what it is to be called with."""
    img = args["img"]
    rows = len(img[0] if isinstance(img, tuple) else img)  # LTX-2 has video and audio there
    if rows != forward.batch:
        raise ValueError(f"another patch calls it with {rows} rows at once, of {forward.batch} in all")
    options = _options(plan, args, extra)
    assert options is not None
    own_args = {**args, "transformer_options": options}
    streams = enter(plan, forward, position, own_args)

    def through(stream: Stream, attention: Callable | None = None) -> None:
        """Run a negative stream through the block, with that stream's own of an earlier patch."""
        call = lambda args: _what_was_there(stream.own(earlier), args, _told(args, extra))  # noqa: E731
        pass_block(plan, forward, position, stream, own_args, call, attention)

    if forward.meets and position in plan.chosen:
        attention = meeting_attention(plan, forward, position, options, streams, through)
    else:
        for stream in streams:
            through(stream)
        if not _attends(plan, position):
            _check_disturbed(forward, position)
            return args, extra
        attention = attention_here(plan, forward, position, options)
    # Under a name of its own: the branch is given the arguments without it.
    guided_args = with_attention(own_args, attention)
    return guided_args, _told(guided_args, extra)


def _attends(plan: Plan, position: int) -> bool:
    """Whether the block's own attention becomes ours, and not only that of a branch beside it."""
    return (plan.merge is None or plan.at_prediction) and position in plan.chosen


def _told(args: dict, extra: dict) -> dict:
    """The second dict, with the options of the first where it has any: an earlier patch may read them there."""
    if "transformer_options" not in extra:
        return extra
    return {**extra, "transformer_options": args["transformer_options"]}


def _leave(plan: Plan, forward: Forward, position: int, out: Any) -> None:
    """All that comes after the block."""
    if _attends(plan, position) and not forward.visits[position].heard:
        raise Unheard()
    if position == plan.merge:
        picture = forward.picture_in_img if position < plan.double_blocks else forward.picture
        merge_branch(plan, forward, position, out["img"], picture)
    elif plan.beside_blocks:
        leave_block(forward, out)
        if forward.meets and position == plan.positions[-1]:
            for chunk in forward.chunks:
                chunk.end_branch()


def _check_disturbed(forward: Forward, position: int) -> None:
    """A branch whose attention can't be disturbed is the positive stream."""
    visit = forward.visits[position]
    if visit.asked and not visit.heard:
        raise Unheard()
