"""What the user asked for, checked: the values of one application of the guidance node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .inputs.guidance import (
    ALPHA,
    BLOCKS,
    END_PERCENT,
    GUIDE_UNCONDITIONAL,
    INPUTS,
    NEGATIVE,
    NEGATIVE_PROMPT,
    OFF,
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
from .schedule import SHAPES, renewal


@dataclass(frozen=True)
class Settings:
    """What the user asked for; each field is the input of that name.

    blocks: a block spec as `blocks.parse_blocks` reads it. start_percent, end_percent: the guided part of
    the sampling, as in ComfyUI's own nodes. curve: what multiplies the scale, in [0, 1], at each progress in [0, 1]
    between the two; None to follow schedule. negative_conditioning: a CONDITIONING for the branch, None for none of the
    node's own. Raises ValueError that lists every value out of its range.
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
    negative_prompt: str = NEGATIVE_PROMPT.default
    curve: Callable[[float], float] | None = None
    negative_conditioning: Any = None

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValueError("NAG-PAG: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        items = dict.fromkeys((*SAVED_WIDGETS, *INPUTS))
        problems = [problem for item in items if (problem := item.problem(getattr(self, item.name)))]
        if not problems and self.start_percent > self.end_percent:
            unasked = " (its default)" if self.start_percent == START_PERCENT.default else ""
            problems.append(
                f"start_percent {self.start_percent:g}{unasked} is after end_percent {self.end_percent:g}: "
                "guidance would never be on; start_percent must be at most end_percent"
            )
        return problems

    @property
    def off(self) -> bool:
        """True where the method leaves the model as it is, bit for bit."""
        if self.scale == 0 or self.alpha == 0:
            return True
        return self.perturbation == 0 and not self.carries_negative

    @property
    def carries_negative(self) -> bool:
        """True where the branch carries a negative prompt's text, if there is one."""
        return self.negative_prompt != OFF or self.negative_conditioning is not None

    def renewed_every(self, steps: int) -> int:
        """At every how many steps of a sampling with so many the negative branch is computed."""
        return self.renew_every or renewal(steps)

    @property
    def in_attention(self) -> bool:
        """True where the chosen blocks' attention is pushed."""
        return self.reach == "attention" and self.reach_blocks == 0

    @property
    def at_prediction(self) -> bool:
        """True where the model's prediction is pushed."""
        return self.reach == "prediction" and self.reach_blocks == 0

    @property
    def moves_both(self) -> bool:
        """True where cfg does not enlarge the push, as both predictions are moved alike."""
        return self.carries_negative and self.at_prediction

    @property
    def varies(self) -> bool:
        """True where the strength depends on the step."""
        return self.curve is not None or self.schedule != SCHEDULE.default

    def strength(self, progress: float) -> float:
        """What multiplies the scale at this progress, in [0, 1], between start_percent and end_percent."""
        return (self.curve or SHAPES[self.schedule])(progress)
