"""Block specs that nobody would write, and what must hold of each: it is read or refused by name, and at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ...nagpag.blocks import check_spec, parse_blocks
from ...nagpag.inputs.guidance import MOST_SPEC

FLUX = (19, 38, 24)  # double blocks, single blocks, heads
MOST_MESSAGE = 1000  # characters
ROUND = 2000  # Hypothesis keeps what it has tried, so it is begun anew after so many
_PIECES = [
    *("0", "8", "12", "18", "19", "37", "007", "999999", "1" * 30, "3.0", ".5", "1e9", "nan", "-1", "٣", "8" * 300),
    *("s", "S", "-", "--", ",", ",,", ":", "::", "[", "]", "[]", "[0-7,12]", "[23-0]", ".", ";", "(", "\\", '"'),
    *(" ", "\t", "\n", "\v", "\u00a0", "\u2003", "\0", "\ud800", "é", "🤪", "\u202e"),
    *("auto", "all", "double_blocks.", "single_blocks.", "transformer_blocks.", "single_transformer_blocks.", ".attn"),
]


def specs() -> st.SearchStrategy[str]:
    """Any text; pieces of the grammar in any order; one piece very often; what is nearly right."""
    piece = st.sampled_from(_PIECES)
    pieces = st.lists(piece, max_size=30).map("".join)
    often = st.builds(_pumped, pieces, piece, st.sampled_from((*range(10, 400, 10), 3000, MOST_SPEC)), pieces)
    item = st.builds("{}{}{}".format, st.sampled_from(("", "s")), st.integers(0, 40), st.just("") | piece)
    nearly = st.lists(item | piece, min_size=1, max_size=12).map(", ".join)
    right = st.sets(st.integers(0, 18), min_size=1).map(lambda blocks: ", ".join(map(str, blocks)))
    return st.one_of(st.text(max_size=60), pieces, often, nearly, right)


def _pumped(before: str, piece: str, length: int, behind: str) -> str:
    return before + piece * (length // len(piece) + 1) + behind


@dataclass
class Specs:
    """What came of them. slowest: processor seconds. faults: what should not have been, with the spec's beginning."""

    tried: int = 0
    read: int = 0
    slowest: float = 0.0
    longest: int = 0
    faults: list[str] = field(default_factory=list)


def try_specs(number: int) -> Specs:
    """Read so many specs, as a model's and without one."""
    found = Specs()
    generate(specs(), lambda spec: _try(spec, found), number)
    return found


def _try(spec: str, found: Specs) -> None:
    began = time.process_time()
    refused, misfit = _refusal(lambda: check_spec(spec)), _refusal(lambda: parse_blocks(spec, *FLUX))
    found.slowest = max(found.slowest, time.process_time() - began)
    found.tried, found.read, found.longest = found.tried + 1, found.read + (not misfit), max(found.longest, len(spec))
    if refused and not misfit:
        found.faults.append(f"a model takes what has no grammar: {spec[:60]!r}")
    found.faults += [
        f"{words[:100]!r} of {spec[:60]!r}" for words in (refused, misfit) if words and not _is_plain(words)
    ]


def _refusal(read: Callable[[], object]) -> str | None:
    try:
        read()
    except Exception as error:
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return None


def _is_plain(words: str) -> bool:
    return words.startswith("blocks: ") and len(words) <= MOST_MESSAGE


def generate(strategy: st.SearchStrategy[Any], use: Callable[[Any], object], number: int) -> None:
    """Call `use` with so many examples of a strategy; the same ones each time."""
    made = 0
    for turn in range(number):
        if made >= number:
            break
        before = made

        def one(example: Any) -> None:
            nonlocal made
            made += 1
            use(example)

        most = min(ROUND, number - made)
        limits = settings(
            max_examples=most,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(turn)(limits(given(strategy)(one)))()
        if made == before:
            break
