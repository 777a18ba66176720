"""Find the settings that help a model most, by successive halving: many candidates on few pictures, few on many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ...nagpag.measure import Measured

Candidate = TypeVar("Candidate")


def search(
    candidates: Sequence[Candidate],
    gains: Callable[[list[Candidate], int], list[Measured]],
    counts: Sequence[int] = (128, 256, 512),
    keep: float = 1 / 3,
) -> list[tuple[Candidate, Measured]]:
    """Candidates and their gains, best first, as far as each was followed (Jamieson and Talwalkar, arXiv 1502.07943).

    gains: the gain of each candidate on that many pictures, for instance of a model's own samples under a judge of the
    user's; it is called once for each of `counts`, with the share `keep` of the candidates that did best before (at
    least one). Candidates that dropped out stand behind those that did not. The best one's gain is too good by
    selection: measure it anew on fresh prompts and noise before you believe it.
    Raises ValueError without candidates or counts, or where keep is not in (0, 1].
    """
    if not candidates or not counts or not 0 < keep <= 1:
        raise ValueError(
            f"search needs candidates, counts and a keep in (0, 1]: "
            f"got {len(candidates)} candidates, counts {tuple(counts)}, keep {keep:g}"
        )
    left: list[Candidate] = list(candidates)
    dropped: list[tuple[Candidate, Measured]] = []
    for i, count in enumerate(counts):
        ranked = sorted(zip(left, gains(left, count), strict=True), key=lambda pair: -pair[1].value)
        if i + 1 < len(counts):
            stay = max(1, round(keep * len(ranked)))
            dropped = ranked[stay:] + dropped
            left = [candidate for candidate, _ in ranked[:stay]]
    return ranked + dropped
