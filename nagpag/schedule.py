"""When in the sampling guidance is on, and when its branch is renewed."""

from __future__ import annotations

from dataclasses import dataclass


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
