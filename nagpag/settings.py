"""What the user asked for, checked: the values of one application of the guidance node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .inputs.guidance import (
    ALPHA,
    BLOCKS,
    END_PERCENT,
    GUIDE_UNCONDITIONAL,
    NEGATIVE,
    PERTURBATION,
    REACH,
    REACH_BLOCKS,
    RENEW_EVERY,
    SAVED_WIDGETS,
    SCALE,
    SCHEDULE,
    START_PERCENT,
    TAU,
    TEMPERATURE,
)
from .schedule import SHAPES


@dataclass(frozen=True)
class Settings:
    """What the user asked for; each field is the input of that name.

    blocks: a block spec as `blocks.parse_blocks` reads it. start_percent, end_percent: the guided part of
    the sampling, as in ComfyUI's own nodes. curve: what multiplies the scale, in [0, 1], at each progress in [0, 1]
    between the two; None to follow schedule. Raises ValueError that lists every value out of its range.
    """

    scale: float = SCALE.default
    blocks: str = BLOCKS.default
    tau: float = TAU.default
    alpha: float = ALPHA.default
    start_percent: float = START_PERCENT.default
    end_percent: float = END_PERCENT.default
    reach: str = REACH.default
    renew_every: int = RENEW_EVERY.default
    negative: str = NEGATIVE.default
    temperature: float = TEMPERATURE.default
    perturbation: float = PERTURBATION.default
    reach_blocks: int = REACH_BLOCKS.default
    schedule: str = SCHEDULE.default
    guide_unconditional: bool = GUIDE_UNCONDITIONAL.default
    curve: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        problems = [problem for item in SAVED_WIDGETS if (problem := item.problem(getattr(self, item.name)))]
        if not problems and self.start_percent > self.end_percent:
            problems.append(
                f"start_percent {self.start_percent:g} is after end_percent {self.end_percent:g}: "
                "guidance would never be on; start_percent must be at most end_percent"
            )
        if problems:
            raise ValueError("NAG-PAG: " + "; ".join(problems))

    @property
    def off(self) -> bool:
        """True where the method leaves the model as it is, bit for bit."""
        return self.scale == 0 or self.alpha == 0 or self.perturbation == 0

    @property
    def varies(self) -> bool:
        """True where the strength depends on the step."""
        return self.curve is not None or self.schedule != SCHEDULE.default

    def strength(self, progress: float) -> float:
        """What multiplies the scale at this progress, in [0, 1], between start_percent and end_percent."""
        return (self.curve or SHAPES[self.schedule])(progress)
