"""Differences between contenders on the same prompts and noise, with bootstrap errors over the prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from ...nagpag.measure import Measured

RESAMPLES = 2_000


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
