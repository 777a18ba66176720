"""Calibration without a judge: what the model itself says of a guidance setting, measured on pictures with captions.

Alignment, a number a picture: does guidance point from what the model predicts to what is true? And the rank agreement
of a signal with what judges say: is it worth anything? The other signal, recovery, is the pack's own
(nagpag/calibration/recovery.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from ...nagpag.measure import Measured


def mean(values: Tensor) -> Measured:
    """The mean of one number a picture, (pictures,), with its standard error; nan where there is but one picture."""
    values = values.double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Measured(float(values.mean()), error)


# --- alignment ---


@dataclass(frozen=True)
class Alignment:
    """Inner products of a guidance direction δ and a residual r, summed over all but the first axis; (pictures,) each.

    dot: ⟨δ, r⟩. moved: ‖δ‖². missed: ‖r‖².
    """

    dot: Tensor
    moved: Tensor
    missed: Tensor

    @property
    def cosines(self) -> Tensor:
        """⟨δ, r⟩ / (‖δ‖ ‖r‖) of each picture, in [−1, 1]; 0 where either is zero."""
        return torch.nan_to_num(self.dot / (self.moved * self.missed).sqrt(), nan=0.0)

    @property
    def weight(self) -> Measured:
        """The w that makes Σ ‖r − w δ‖² least over all pictures, Σ⟨δ, r⟩ / Σ‖δ‖²; the error by the delta method.

        Above 0: a little of this guidance brings the prediction closer to the truth; above 1: more than was given does.
        """
        whole = float(self.moved.sum())
        if whole == 0:
            return Measured(0.0, math.nan)
        w = float(self.dot.sum()) / whole
        return Measured(w, mean(self.dot - w * self.moved).error * len(self.dot) / whole)

    @property
    def closer(self) -> Tensor:
        """How much less of ‖r‖² is left with δ added as it is (w = 1), as a share of it, (pictures,).

        1 − ‖r − δ‖² / ‖r‖²: below 0 where guidance at this strength makes the prediction worse.
        """
        return torch.nan_to_num((2 * self.dot - self.moved) / self.missed, nan=0.0)


def align(delta: Tensor, residual: Tensor) -> Alignment:
    """Compare guidance directions with residuals, (pictures, …) each, of one shape.

    Of velocities: δ = v_guided − v_plain, r = v_true − v_plain with v_true = noise − x₀. Of predicted pictures: the
    same with x̂₀ and x₀; cosines, weights and shares are then the same. Summed in float64.
    """
    if delta.shape != residual.shape:
        raise ValueError(f"directions are {tuple(delta.shape)}, residuals {tuple(residual.shape)}")
    delta, residual = delta.flatten(1).double(), residual.flatten(1).double()
    return Alignment((delta * residual).sum(1), delta.square().sum(1), residual.square().sum(1))


def together(alignments: Sequence[Alignment]) -> Alignment:
    """Alignments of the same pictures at several noise levels as one: every level counts alike, whatever its residual.

    Each level's inner products are divided by its mean ‖r‖².
    """
    shares = [1 / a.missed.mean().clamp_min(torch.finfo(torch.float64).tiny) for a in alignments]

    def total(name: str) -> Tensor:
        return torch.stack([getattr(a, name) * share for a, share in zip(alignments, shares, strict=True)]).sum(0)

    return Alignment(total("dot"), total("moved"), total("missed"))


# --- is a signal worth anything? ---


def rank_agreement(
    signal: Mapping[Any, float], gain: Mapping[Any, float], resamples: int = 500, seed: int = 0
) -> Measured:
    """Do two measures rank settings alike? Spearman's correlation over the settings that both have.

    signal, gain: a number for each setting. The error is the spread over bootstrap resamples of the settings; it says
    nothing of the errors of the numbers themselves. Raises ValueError where fewer than three settings are in both.
    """
    both = [key for key in signal if key in gain]
    if len(both) < 3:
        raise ValueError(f"{len(both)} settings are in both measures, of {len(signal)} and {len(gain)}; 3 are needed")
    pairs = torch.tensor([(signal[key], gain[key]) for key in both], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = (pairs[torch.randint(len(both), (len(both),), generator=generator)] for _ in range(resamples))
    # A resample that holds one setting only has no ranks.
    found = [_spearman(rows) for rows in drawn if len(rows.unique(dim=0)) > 1]
    return Measured(_spearman(pairs), float(torch.tensor(found).std()))


def _spearman(pairs: Tensor) -> float:
    return float(spearmanr(pairs[:, 0].numpy(), pairs[:, 1].numpy()).statistic)
