"""Differences between contenders on the same prompts and noise, with bootstrap errors over the prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 2_000


@dataclass(frozen=True)
class Measured:
    """A number with its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.error:.3f}"

    @property
    def helps(self) -> bool:
        """Above zero by more than two standard errors."""
        return self.value > 2 * self.error

    @property
    def harms(self) -> bool:
        """Below zero by more than two standard errors."""
        return self.value < -2 * self.error


def ratio_gain(right: Tensor, plain: Tensor, total: Tensor, group: int, seed: int = 0) -> Measured:
    """Change in the share Σ right / Σ total from plain to guided pictures, by a paired bootstrap (Efron 1979).

    right, plain, total: (pictures,), of the same prompts and noise in the same order; each `group` pictures in a row
    share their prompt and are resampled together.
    """
    change, weight = _by_prompt(right - plain, group), _by_prompt(total, group)
    drawn = resamples(len(change), seed)
    spread = (drawn @ change) / (drawn @ weight)
    return Measured(float(change.sum() / weight.sum()), float(spread.std()))


def resamples(prompts: int, seed: int = 0, count: int = RESAMPLES) -> Tensor:
    """How often each prompt is drawn in each resample, (count, prompts), float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(prompts, (count, prompts), generator=generator)
    return torch.zeros(count, prompts, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(count, prompts, dtype=torch.float64)
    )


def _by_prompt(values: Tensor, group: int) -> Tensor:
    return values.double().unflatten(0, (-1, group)).sum(dim=1)
