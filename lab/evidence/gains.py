"""What guidance gains: objects right against no guidance, on the same prompts and noise; errors over the prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from ...nagpag.measure import Measured
from . import judges, runs
from .contenders import Contender, plain
from .runs import NOISES, PromptSet
from .subjects import Subject

RESAMPLES = 2_000
JUDGES = ("cnn", "template")


def gain(
    subjects: list[Subject], contender: Contender, prompts: PromptSet, count: int, judge: str = "both"
) -> Measured:
    """Change in the share of objects right against no guidance, of all these models' pictures together.

    judge: cnn, template, or their mean (both). The models share their prompts, so these are resampled for all at once.
    """
    guided, unguided = ([runs.scores(s, c, prompts, count) for s in subjects] for c in (contender, plain()))
    right, before = (
        torch.stack([_right(found, judge) for found in scores]).sum(dim=0) for scores in (guided, unguided)
    )
    return ratio_gain(right, before, torch.stack([found.objects for found in guided]).sum(dim=0), NOISES)


def gain_if_made(
    subjects: list[Subject], contender: Contender, prompts: PromptSet, count: int, judge: str = "both"
) -> Measured | None:
    """The gain; None where not all its pictures are there."""
    there = was_made(subjects, contender, prompts, count)
    return gain(subjects, contender, prompts, count, judge) if there else None


def was_made(subjects: list[Subject], contender: Contender, prompts: PromptSet, count: int) -> bool:
    """Whether all these models' pictures are there, and those without guidance."""
    return runs.made(runs.parts(subjects, [contender, plain()], prompts, count))


def _right(scores: judges.Scores, judge: str) -> Tensor:
    if judge == "both":
        return (scores.cnn_right + scores.template_right) / 2
    return scores.cnn_right if judge == "cnn" else scores.template_right


# --- arithmetic ---


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
