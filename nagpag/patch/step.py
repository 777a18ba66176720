"""What a step asks for: its noise level, where something follows from it, and how strong guidance is there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..schedule import guided_at, progress
from ..settings import Settings
from .plan import Plan


def noise_level(plan: Plan, sigmas: Tensor | None) -> float | None:
    """The noise level as a number, None where nothing follows from it: reading it makes the device wait.

    sigmas: (rows,), the same for all; None where the host does not say.
    """
    window = (plan.settings.start_percent, plan.settings.end_percent)
    matters = plan.renews or plan.settings.varies or window != (0.0, 1.0)
    return float(sigmas[0]) if sigmas is not None and matters else None


def strength_of(settings: Settings, to_sigma: Callable[[float], float], sigma: float | None) -> float:
    """What multiplies the scale at this noise level; 0 outside of the guided part of the sampling, 1 at None."""
    if sigma is None:
        return 1.0
    start, end = settings.start_percent, settings.end_percent
    # A sampling may begin above the model's own highest sigma: 0 % has no upper end, and 100 % no lower one.
    highest = float(to_sigma(start)) if start > 0 else float("inf")
    lowest = float(to_sigma(end)) if end < 1 else 0.0
    if not guided_at(sigma, highest, lowest):
        return 0.0
    return settings.strength(progress(sigma, to_sigma, start, end)) if settings.varies else 1.0
