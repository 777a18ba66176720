"""Choose settings on one set of prompts and noise: gains by block, reach, renewal and strength. lab/run.py choosing

Three smaller rounds came before these, on seeds 0 and 1. What they tried is within these but for branches that start in
a single block, which gave nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import evidence_runs, judges, markdown, paired, search
from .contenders import Contender, nagpag, pag, plain, skip_layer
from .evidence_runs import CHOOSING, NOISES, Asked, Subject
from .paired import Measured


def gain(subjects: list[Subject], contender: Contender, asked: Asked, count: int, judge: str = "both") -> Measured:
    """Change in the share of objects right against no guidance, of all these models' pictures together.

    judge: cnn, template, or their mean (both). The models share their prompts, so these are resampled for all at once.
    """
    guided, unguided = ([evidence_runs.scores(s, c, asked, count) for s in subjects] for c in (contender, plain()))
    right, before = (
        torch.stack([_right(found, judge) for found in scores]).sum(dim=0) for scores in (guided, unguided)
    )
    return paired.ratio_gain(right, before, torch.stack([found.objects for found in guided]).sum(dim=0), NOISES)


def _right(scores: judges.Scores, judge: str) -> Tensor:
    if judge == "both":
        return (scores.cnn_right + scores.template_right) / 2
    return scores.cnn_right if judge == "cnn" else scores.template_right


def blocks_round() -> list[Contender]:
    """Every double block alone, weakly: in its attention, and as the start of a branch to the output."""
    return [
        *(nagpag(blocks=str(block), reach="attention", tau=1.5, alpha=0.1, renew_every=1) for block in range(8)),
        *(nagpag(blocks=str(block), reach="output", tau=1.5, alpha=0.05, renew_every=4) for block in range(8)),
    ]


def forms_round() -> list[Contender]:
    """All blocks together, in the attention: how strong, how limited, and which negative."""
    every: dict[str, Any] = {"blocks": "all", "reach": "attention", "tau": 1.5, "renew_every": 1}
    return [
        *(nagpag(**{**every, "alpha": alpha}) for alpha in (0.05, 0.1, 0.2)),
        *(nagpag(**{**every, "alpha": 0.1, "negative": kind}) for kind in ("softened", "mean", "identity + text")),
        nagpag(**{**every, "alpha": 0.1, "tau": 1.0}),
        nagpag(**{**every, "alpha": 0.03, "tau": 10.0}),
        nagpag(**{**every, "alpha": 0.1, "blocks": "3-7"}),
        nagpag(**{**every, "alpha": 0.1, "blocks": "3, 4, 7"}),
    ]


def strength_round() -> list[Contender]:
    """The later blocks in their attention: how strong, by alpha at scale 3 and by scale at alpha 0.1."""
    free: dict[str, Any] = {"reach": "attention", "tau": 1.5, "renew_every": 1, "blocks": "4-7"}
    alphas = (0.025, 0.05, 0.1, 0.2, 0.4)
    return [
        *(nagpag(**free, alpha=alpha) for alpha in alphas),
        *(nagpag(**free, alpha=0.1, scale=scale) for scale in (0.5, 1.0, 6.0)),
    ]


def steps_round() -> list[Contender]:
    """The same at alpha 0.1 in a part of the sampling: the early steps, the late ones."""
    free: dict[str, Any] = {"reach": "attention", "tau": 1.5, "renew_every": 1, "blocks": "4-7", "alpha": 0.1}
    return [
        *(nagpag(**free, end_percent=percent) for percent in (0.25, 0.5, 0.75)),
        *(nagpag(**free, start_percent=percent) for percent in (0.25, 0.5, 0.75)),
    ]


def reach_round() -> list[Contender]:
    """A branch through the later blocks: how far, how often renewed."""
    branch: dict[str, Any] = {"blocks": "4-7", "tau": 1.5, "alpha": 0.1}
    return [
        nagpag(**branch, reach="attention", renew_every=1),
        *(nagpag(**branch, reach="double blocks", renew_every=every) for every in RENEWALS),
        *(nagpag(**branch, reach="output", renew_every=every) for every in RENEWALS),
    ]


def peers_round() -> list[Contender]:
    """Classic PAG at the blocks that did best as the start of a branch; skipped layers."""
    return [
        *(pag(block, weight) for block in (6, 7) for weight in (0.3, 1.0)),
        *(skip_layer(block) for block in (3, 6)),
    ]


def candidates() -> list[Contender]:
    """What the search for the defaults begins with: at most 1.10 passes, as gentle as the earlier rounds found good."""
    free: dict[str, Any] = {"reach": "attention", "tau": 1.5, "renew_every": 1, "blocks": "4-7", "alpha": 0.1}
    branch: dict[str, Any] = {"reach": "double blocks", "tau": 1.5, "renew_every": 4, "alpha": 0.1}
    return [
        nagpag(**free),
        nagpag(**{**free, "alpha": 0.05}),
        nagpag(**{**free, "alpha": 0.05, "blocks": "all"}),
        nagpag(**{**free, "end_percent": 0.5}),
        nagpag(**{**free, "start_percent": 0.5}),
        nagpag(**{**free, "schedule": "linear fade-in", "alpha": 0.15}),
        nagpag(**{**free, "schedule": "bell", "alpha": 0.15}),
        nagpag(**{**free, "alpha": 0.25, "perturbation": 0.1}),
        *(nagpag(**{**free, "alpha": alpha, "negative": "softened"}) for alpha in (0.25, 0.6)),
        nagpag(**{**free, "alpha": 0.25, "negative": "softened", "blocks": "all"}),
        *(nagpag(**{**free, "alpha": alpha, "negative": "mean"}) for alpha in (0.1, 0.2)),
        *(nagpag(**{**branch, "blocks": blocks}) for blocks in ("2", "4", "6")),
        nagpag(**{**branch, "blocks": "4-7"}),
        nagpag(**{**branch, "blocks": "1", "reach_blocks": 2}),
        nagpag(**{**branch, "blocks": "6", "reach_blocks": 2}),
        *(nagpag(**{**branch, "blocks": "7", "reach_blocks": 3, "renew_every": 6, "alpha": a}) for a in (0.05, 0.1)),
        nagpag(**{**branch, "blocks": "6-7", "negative": "softened", "alpha": 0.25}),
    ]


def neighbours() -> list[Contender]:
    """What lies around the best of the candidates: a branch with all later blocks perturbed, one from the last block."""
    branch: dict[str, Any] = {"blocks": "4-7", "reach": "double blocks", "tau": 1.5, "renew_every": 4, "alpha": 0.1}
    far: dict[str, Any] = {**branch, "renew_every": 6}
    return [
        nagpag(**branch),
        nagpag(**{**branch, "alpha": 0.15}),
        nagpag(**{**branch, "renew_every": 2}),
        *(nagpag(**{**branch, "blocks": blocks}) for blocks in ("3-7", "5-7")),
        nagpag(**{**branch, "perturbation": 0.5}),
        nagpag(**{**far, "reach_blocks": 5}),
        nagpag(**{**far, "blocks": "6-7", "reach_blocks": 4}),
        *(nagpag(**{**far, "blocks": "7", "reach_blocks": 3, "alpha": alpha}) for alpha in (0.1, 0.15)),
        nagpag(blocks="4-7", reach="attention", tau=1.5, alpha=0.25, perturbation=0.1, renew_every=1),
    ]


@dataclass(frozen=True)
class Round:
    """What was compared, and the seeds of the models that it was compared on."""

    contenders: Callable[[], list[Contender]]
    seeds: tuple[int, ...]

    @property
    def subjects(self) -> list[Subject]:
        return [Subject(seed) for seed in self.seeds]


RENEWALS = (1, 4, 8)
COUNT = 128
SEARCHED, KEEP = (128, 256, 512), 1 / 4  # how far the search follows its candidates
ROUNDS = {
    "blocks": Round(blocks_round, (0, 1)),
    "forms": Round(forms_round, (0, 1)),
    "strength": Round(strength_round, (0, 1)),
    "steps": Round(steps_round, (0, 1)),
    "reach": Round(reach_round, (0, 1)),
    "peers": Round(peers_round, (0, 1)),
    "candidates": Round(candidates, (0, 1, 2, 3)),
    "neighbours": Round(neighbours, (0, 1, 2, 3)),
}


def make(subjects: list[Subject], contenders: list[Contender], count: int) -> None:
    """The choosing set's pictures of these contenders, and those without guidance."""
    evidence_runs.make_pictures(evidence_runs.jobs(subjects, [plain(), *contenders], CHOOSING, count))


def find(contenders: list[Contender], subjects: list[Subject]) -> list[tuple[Contender, Measured]]:
    """The candidates by their gain on all these models together, best first, each as far as the search followed it."""

    def gains(left: list[Contender], count: int) -> list[Measured]:
        make(subjects, left, count)
        return [gain(subjects, contender, CHOOSING, count) for contender in left]

    return search.search(contenders, gains, SEARCHED, KEEP)


def followed(subjects: list[Subject], contender: Contender) -> int:
    """How many pictures the search made of a contender by each of these models; 0 without any."""
    for count in sorted(SEARCHED, reverse=True):
        if evidence_runs.made(evidence_runs.jobs(subjects, [contender, plain()], CHOOSING, count)):
            return count
    return 0


def main(arguments: list[str]) -> int:
    """Arguments: a round. Of the last one the best are followed further."""
    parser = argparse.ArgumentParser(prog="choosing", description=main.__doc__)
    parser.add_argument("round", choices=ROUNDS)
    asked = ROUNDS[parser.parse_args(arguments).round]
    if missing := [subject for subject in asked.subjects if not subject.file.exists()]:
        parser.error(f"not trained yet: {'; '.join(map(str, missing))}; make lab trains them")
    make(asked.subjects, asked.contenders(), COUNT)
    if asked.contenders is neighbours:
        find(neighbours(), asked.subjects)
    print(table(asked))
    return 0


def table(asked: Round) -> str:
    """What a round found, as far as its pictures were made: the gain on each model, and on all."""

    def row(contender: Contender) -> list[str]:
        each = [_cell([subject], contender) for subject in asked.subjects]
        return [contender.name, f"{contender.passes:.2f}", *each, _cell(asked.subjects, contender)]

    return markdown.table(("", "passes", *map(str, asked.subjects), "all"), map(row, asked.contenders()))


def _cell(subjects: list[Subject], contender: Contender) -> str:
    count = followed(subjects, contender)
    return f"{gain(subjects, contender, CHOOSING, count)} ({count})" if count else "–"
