"""When in the sampling guidance is on, how strong it is there, and when its branch is renewed.

A shape is a function of progress x: 0 where the guided part of the sampling begins (start_percent), 1 where it ends
(end_percent), even in the host's percent, not in steps. Its value y, in [0, 1], multiplies the scale.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise


def constant(x: float) -> float:
    """y = 1."""
    return 1.0


def linear_fade_out(x: float) -> float:
    """y = 1 − x."""
    return 1.0 - x


def cosine_fade_out(x: float) -> float:
    """y = (1 + cos πx) / 2."""
    return (1.0 + math.cos(math.pi * x)) / 2


def linear_fade_in(x: float) -> float:
    """y = x."""
    return x


def cosine_fade_in(x: float) -> float:
    """y = (1 − cos πx) / 2."""
    return (1.0 - math.cos(math.pi * x)) / 2


def bell(x: float) -> float:
    """y = (1 − cos 2πx) / 2: 1 in the middle, 0 at both ends."""
    return (1.0 - math.cos(2 * math.pi * x)) / 2


# By the words of the input `schedule`.
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear fade-out": linear_fade_out,
    "cosine fade-out": cosine_fade_out,
    "linear fade-in": linear_fade_in,
    "cosine fade-in": cosine_fade_in,
    "bell": bell,
}


# How much of a sampling's steps a difference may stand for where nobody says: every 6th of 20. Held for longer, in few
# steps, it harmed guidance-distilled models (docs/evidence.md). A part of a sampling counts its own steps.
HELD_PERCENT = 30
# As FLUX.1 [dev] is most often sampled: where the number of steps is not known, and in which costs are told.
USUAL_STEPS = 20


ROUNDING = 1e-5  # of sigmas in float32, and far less than what two steps differ by


def renewal(steps: int) -> int:
    """At every how many steps a difference is renewed so that each stands for at most HELD_PERCENT of the sampling."""
    return max(1, steps * HELD_PERCENT // 100)


def progress(sigma: float, sigma_of: Callable[[float], float], start: float, end: float) -> float:
    """How far `sigma` lies on the way from percent `start` to percent `end` of the sampling, in [0, 1].

    sigma_of: the host's percent_to_sigma, which falls as percent rises; what its model says it is, so that every
    kind of model and every shift counts. Found by bisection: it is cheap, and only the forward direction is told.
    Exactly 0 from the sigma of `start` up, exactly 1 from the sigma of `end` down.
    """
    if sigma >= float(sigma_of(start)):
        return 0.0
    if sigma <= float(sigma_of(end)):
        return 1.0
    low, high = start, end
    while low < (middle := (low + high) / 2) < high:
        if float(sigma_of(middle)) > sigma:
            low = middle
        else:
            high = middle
    return (high - start) / (end - start)


def guided_at(sigma: float, sigma_start: float, sigma_end: float) -> bool:
    """True where `sigma` lies in the guided part of the sampling, both ends included.

    Sigmas fall during sampling, so sigma_start ≥ sigma_end; the rule is the one of ComfyUI's own start_percent and
    end_percent. A step that begins at an end, as one of 20 does at 45 %, is within, however its sigma was rounded.
    """
    return sigma_end * (1 - ROUNDING) <= sigma <= sigma_start * (1 + ROUNDING)


class Steps:
    """A sampler's steps, by noise level.

    Each reaches from its sigma down to the next lower one of the schedule, so that what a sampler of higher order
    evaluates on the way counts as the step on whose way it lies, and what it evaluates twice counts once.
    """

    def __init__(self, schedule: Iterable[float] = ()):
        """schedule: the sampler's sigmas. Without them each sigma that is asked for begins a step of its own."""
        schedule = list(schedule)
        levels = sorted(set(schedule), reverse=True)
        self._known = bool(levels)
        # Whether the sampling may go back to a noise level that it has left behind for good (a restart).
        self.rises = not levels or any(later > earlier for earlier, later in pairwise(schedule))
        # Where steps begin, negated so that they rise. The first has no upper end, and the last sigma begins none.
        # A little above its sigma: some samplers compute what is a sigma of the schedule.
        self._begins = [-(low + (high - low) / 100) for high, low in pairwise(levels[:-1])]

    def between(self, one: float, other: float) -> int:
        """How many steps lie between two noise levels, 0 within one step."""
        if not self._known:
            self._learn(one)
            self._learn(other)
        return abs(bisect_right(self._begins, -one) - bisect_right(self._begins, -other))

    def _learn(self, sigma: float) -> None:
        place = bisect_left(self._begins, -sigma)
        if self._begins[place : place + 1] != [-sigma]:
            self._begins.insert(place, -sigma)


def steps_of(sigmas: Iterable[float], schedule: Sequence[float]) -> list[int]:
    """The step, from 1, of each evaluation in the order in which they came.

    Step i begins at schedule[i - 1], and what is evaluated on the way to schedule[i] belongs to it. A schedule may rise
    again, so the search goes on from the step before; what lies in no later step belongs to the nearest of all.
    """
    steps, step, last = [], 0, max(1, len(schedule) - 1)
    for sigma in sigmas:
        inside = (i for i in range(step, last) if _inside(sigma, schedule[i], schedule[i + 1] if i + 1 < last else 0.0))
        found = next(inside, None)
        step = min(range(last), key=lambda i: abs(schedule[i] - sigma)) if found is None else found
        steps.append(step + 1)
    return steps


def _inside(sigma: float, begin: float, end: float) -> bool:
    """Whether a step holds a sigma. A little tolerance: a sampler may compute what is a sigma of the schedule."""
    little = abs(begin - end) / 100
    return abs(begin - sigma) <= little or begin > sigma > end + little
