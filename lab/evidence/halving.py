"""Find the settings that help a model most, by successive halving: many candidates on few pictures, few on many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ...nagpag.measure import Measured
from . import gains, rounds, runs
from .contenders import Contender, plain
from .runs import CHOOSING, Subject

Candidate = TypeVar("Candidate")


def search(
    candidates: Sequence[Candidate],
    gains_of: Callable[[list[Candidate], int], list[Measured]],
    counts: Sequence[int],
    keep: float = 1 / 3,
) -> list[tuple[Candidate, Measured]]:
    """Candidates and their gains, best first, as far as each was followed (Jamieson and Talwalkar, arXiv 1502.07943).

    gains_of: the gain of each candidate on that many pictures; it is called once for each of `counts`, with the share
    `keep` of the candidates that did best before (at least one). Candidates that dropped out stand behind those that
    did not. The best one's gain is too good by selection: measure it anew on fresh prompts and noise before you believe
    it.
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
        ranked = sorted(zip(left, gains_of(left, count), strict=True), key=lambda pair: -pair[1].value)
        if i + 1 < len(counts):
            stay = max(1, round(keep * len(ranked)))
            dropped = ranked[stay:] + dropped
            left = [candidate for candidate, _ in ranked[:stay]]
    return ranked + dropped


# --- among the contenders, by the choosing set ---


Making = Callable[[list[Subject], list[Contender], int], None]


def make(subjects: list[Subject], contenders: list[Contender], count: int) -> None:
    """The choosing set's pictures of these contenders, and those without guidance."""
    runs.make_pictures(runs.parts(subjects, [plain(), *contenders], CHOOSING, count))


def find(
    contenders: list[Contender], subjects: list[Subject], making: Making | None = None
) -> list[tuple[Contender, Measured]]:
    """The candidates by their gain on all these models together, best first, each as far as the search followed it.

    making: sees to it that the pictures are there, `make` if none is given.
    """

    def gains_of(left: list[Contender], count: int) -> list[Measured]:
        (making or make)(subjects, left, count)
        return [gains.gain(subjects, contender, CHOOSING, count) for contender in left]

    return search(contenders, gains_of, rounds.SEARCHED, rounds.KEEP)


def own(subject: Subject, making: Making | None = None) -> Contender:
    """Of the neighbours the one that did best on this model by itself."""
    return find(rounds.neighbours(), [subject], making)[0][0]


def own_if_made(subject: Subject) -> Contender | None:
    """The same, None where the search did not run to its end."""

    def only_look(subjects: list[Subject], contenders: list[Contender], count: int) -> None:
        if not all(gains.was_made(subjects, contender, CHOOSING, count) for contender in contenders):
            raise LookupError(f"no pictures of all of {len(contenders)} contenders")

    try:
        return own(subject, only_look)
    except LookupError:
        return None
