"""Renewal: which kept difference stands in for a negative branch that a forward does not compute.

A difference belongs to one evaluation of one condition. A sampler's step may hold several of those: samplers of higher
order ask for the prompt at several noise levels, and nodes such as SkipLayerGuidanceDiT or PAG ask for it once more at
the same one, with other patches. These are told apart by what patches the model has, and by their order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple

from .forward import Chunk
from .plan import Plan
from .run import Kept, Run


class Evaluation(NamedTuple):
    """One evaluation among those of a step: of which condition, under which patches, the how manieth of its kind."""

    condition: Hashable
    patches: frozenset
    turn: int


def hand_out_differences(plan: Plan, run: Run, chunks: tuple[Chunk, ...], whole: bool, options: dict) -> None:
    """Give each chunk the difference that stands in for its branch, save where that must be computed anew.

    whole: the forward is of the whole picture, not of a tile of it.
    """
    patches = frozenset(_patches(options))
    for chunk in chunks:
        chunk.evaluation = None if chunk.condition is None else _evaluation(run, chunk.condition, patches, whole)
        kept = run.differences.get(chunk.evaluation) if chunk.evaluation else None
        if not kept or run.sigma is None:
            continue
        if _stands_in(plan, run, kept):
            chunk.difference, chunk.differences = kept.difference, kept.differences
        elif run.steps_between(kept.sigma):  # too old, and its memory is wanted for the new one
            del run.differences[chunk.evaluation]
    if run.sigma is None or any(chunk.evaluation is None for chunk in chunks):
        run.untold += 1


def keep_differences(plan: Plan, run: Run, chunks: tuple[Chunk, ...]) -> None:
    """Keep what this forward has computed for the steps to come, and nothing that is too old for them."""
    if run.sigma is None:
        return
    renewed = {
        chunk.evaluation: Kept(run.sigma, chunk.renewed, chunk.renewed_in)
        for chunk in chunks
        if chunk.evaluation is not None and (chunk.renewed is not None or plan.chosen.keys() == chunk.renewed_in.keys())
    }
    if not renewed:
        return
    most = run.renewed_every(plan.settings)
    young = {key: kept for key, kept in run.differences.items() if run.steps_between(kept.sigma) < most}
    run.differences = {**young, **renewed}


def _evaluation(run: Run, condition: tuple, patches: frozenset, whole: bool) -> Evaluation | None:
    """None where nobody says which of several it is: tiles, of which a step may hold others than the one before."""
    kind = (condition, patches)
    turn = run.turns.get(kind, 0)
    run.turns[kind] = turn + 1
    return Evaluation(condition, patches, turn) if whole or condition[0] in run.areas else None


def _stands_in(plan: Plan, run: Run, kept: Kept) -> bool:
    """Not at the step that computed it: all evaluations of that one compute theirs."""
    return 0 < run.steps_between(kept.sigma) < run.renewed_every(plan.settings)


def _patches(options: dict) -> Iterator[tuple]:
    """The names of all patches: a node may make its functions anew for each step, but in the same places."""
    for kind, slots in options.get("patches_replace", {}).items():
        yield from ((kind, slot, _name(patch)) for slot, patch in slots.items())
    for kind, patches in options.get("patches", {}).items():
        yield from ((kind, None, _name(patch)) for patch in patches)
    if "optimized_attention_override" in options:
        yield "attention", None, _name(options["optimized_attention_override"])


def _name(patch: object) -> tuple[str, str]:
    named = patch if hasattr(patch, "__qualname__") else type(patch)
    return str(named.__module__), str(named.__qualname__)
