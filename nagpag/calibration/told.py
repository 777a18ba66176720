"""What a search found, in words and as JSON."""

from __future__ import annotations

import itertools
import json
import math

from .search import SHOWN, Candidate, Search, Tried, best


def as_json(search: Search, tried: list[Tried]) -> str:
    """What was chosen, None where nothing helps, how all were guided, and all that was tried, best first."""

    def row(one: Tried) -> dict[str, str | float | None]:
        numbers = {"change": one.change.value, "error": one.change.error}
        return {**vars(one.candidate), **{name: None if math.isnan(n) else n for name, n in numbers.items()}}

    chosen, common = best(tried), search.common
    told = {
        "chosen": None if chosen is None else vars(chosen),
        "reach": common.reach,
        "negative_prompt": common.negative_prompt,
        "tried": [row(one) for one in tried],
    }
    return json.dumps(told, indent=2)


def title(search: Search) -> str:
    """What all pictures have in common."""
    common, steps = search.common, search.series.steps
    guided = f"reach {common.reach}, negative_prompt {common.negative_prompt}"
    return f"NAG-PAG Calibrate: euler, simple, {steps} steps, cfg 1, {guided}"


def columns(search: Search) -> list[str]:
    """What stands over each of the pictures that are shown."""
    batches = itertools.islice(search.series.batches(), SHOWN)
    return [f"prompt {batch.prompt + 1}, seed {batch.seed}" for batch in batches]


def rows(search: Search, tried: list[Tried]) -> list[tuple[str, list[int]]]:
    """Off above and the first of what was tried below: a label, and which of the pictures stand in it."""
    first: Candidate = tried[0].candidate
    said = "best" if best(tried) else "first of what was tried, not better than off"
    number = min(SHOWN, search.series.number)
    return [("off", [*range(number)]), (f"{said}: blocks {first}", [*range(number, 2 * number)])]
