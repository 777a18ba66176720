"""Calibration without a judge: what the model itself says of a guidance setting, measured on pictures with captions.

Four signals, each a number per picture, so that two settings are compared picture by picture:
- alignment: does guidance point from what the model predicts to what is true?
- reconstruction: does a sampling that starts at a noised picture come closer to it with guidance?
- recovery: does the model find the caption again in what was sampled, among wrong ones?
- rank agreement, of any of these with what judges say: is it worth anything?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A mean over pictures and its standard error; nan where there are too few to tell."""

    value: float
    error: float


def mean(values: Tensor) -> Estimate:
    """The mean of one number a picture, (pictures,), with its standard error."""
    values = values.double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error)


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
    def cosine(self) -> Estimate:
        """The mean cosine."""
        return mean(self.cosines)

    @property
    def weight(self) -> Estimate:
        """The w that makes Σ ‖r − w δ‖² least over all pictures, Σ⟨δ, r⟩ / Σ‖δ‖²; the error by the delta method.

        Above 0: a little of this guidance brings the prediction closer to the truth; above 1: more than was given does.
        """
        whole = float(self.moved.sum())
        if whole == 0:
            return Estimate(0.0, math.nan)
        w = float(self.dot.sum()) / whole
        return Estimate(w, mean(self.dot - w * self.moved).error * len(self.dot) / whole)

    @property
    def explained(self) -> float:
        """The share of Σ‖r‖² that w δ takes away at the best w, in [0, 1]; 0 where w is not above 0."""
        w = self.weight.value
        whole = float(self.missed.sum())
        return w * float(self.dot.sum()) / whole if w > 0 and whole > 0 else 0.0

    @property
    def gains(self) -> Tensor:
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
        return sum((getattr(a, name) * share for a, share in zip(alignments, shares, strict=True)), torch.zeros(()))

    return Alignment(total("dot"), total("moved"), total("missed"))


# --- recovery ---


def errors(predicted: Tensor, truth: Tensor) -> Tensor:
    """The mean squared error of each picture's prediction, (…, pictures, channels, height, width) → (…, pictures)."""
    return (predicted - truth).flatten(-3).double().square().mean(-1)


def recovery(right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """How surely the model finds a picture's caption again (a diffusion classifier, arXiv 2303.16203, section 3).

    right: the model's denoising error on each picture with its own caption, (levels, pictures). wrong: with other
    captions, (captions, levels, pictures), the same noise. Every noise level counts alike.
    Returns, per picture, the margin, by how much of the right error the best wrong one is worse (below 0: a wrong
    caption fits better), and whether the right one fits best, 1.0 or 0.0.
    """
    size = right.mean(1, keepdim=True)
    margins = ((wrong - right) / size).mean(1).amin(0)
    return margins, (margins > 0).double()


# --- is a signal worth anything? ---


def ranks(values: Tensor) -> Tensor:
    """Ranks from 0, (n,), float64; equal values share their mean rank."""
    below = (values[:, None] > values[None, :]).sum(1)
    same = (values[:, None] == values[None, :]).sum(1)
    return below.double() + (same.double() - 1) / 2


def spearman(a: Tensor, b: Tensor) -> float:
    """The rank correlation of two lists, (n,) each, in [−1, 1]; nan where one of them is all alike."""
    a, b = ranks(a), ranks(b)
    a, b = a - a.mean(), b - b.mean()
    size = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / size if size else math.nan


def rank_agreement(signal: dict, gain: dict, resamples: int = 1_000, seed: int = 0) -> Estimate:
    """Do two measures rank settings alike? Spearman's correlation over the keys that both have.

    signal, gain: a number for each setting, under whatever keys tell settings apart, such as (model, block, reach,
    strength). The error is the spread over bootstrap resamples of the settings; it says nothing of the errors of the
    numbers themselves. Raises ValueError where fewer than three settings are in both.
    """
    both = [key for key in signal if key in gain]
    if len(both) < 3:
        raise ValueError(f"{len(both)} settings are in both measures, of {len(signal)} and {len(gain)}; 3 are needed")
    a = torch.tensor([signal[key] for key in both], dtype=torch.float64)
    b = torch.tensor([gain[key] for key in both], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randint(len(both), (len(both),), generator=generator) for _ in range(resamples))
    found = torch.tensor([spearman(a[rows], b[rows]) for rows in drawn], dtype=torch.float64)
    return Estimate(spearman(a, b), float(found[~found.isnan()].std()))
