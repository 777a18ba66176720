"""When in the sampling guidance is on, how strong it is there, and when its branch is renewed.

A shape is a function of progress x: 0 where the guided part of the sampling begins (start_percent), 1 where it ends
(end_percent), even in the host's percent, not in steps. Its value y, in [0, 1], multiplies the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


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

    Sigmas fall during sampling, so sigma_start ≥ sigma_end; the rule is the one of ComfyUI's
    own start_percent and end_percent.
    """
    return sigma_end <= sigma <= sigma_start


@dataclass
class Renewal:
    """Counts the guided steps of one sampling run by their distinct sigmas.

    `due(sigma)` is True at the first step and at every `every`-th after it, for all evaluations at that
    step's sigma. Where sigma rises (a restart), what was computed at lower noise is no stand-in: due again.
    So it is after a `pause`: a step without guidance is not counted, and what was computed before it is old.
    """

    every: int
    step: int = -1
    sigma: float | None = None

    def due(self, sigma: float) -> bool:
        if self.sigma is None or sigma > self.sigma:
            self.step = 0
        elif sigma < self.sigma:
            self.step += 1
        self.sigma = sigma
        return self.step % self.every == 0

    def pause(self) -> None:
        """A step goes by without guidance."""
        self.sigma = None
