"""Choose settings on one set of prompts and noise: gains by block, reach, renewal and strength. lab/run.py choosing"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from . import evidence_runs, judges, paired
from .contenders import Contender, cfg, nagpag, plain
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


def table(subjects: list[Subject], contenders: list[Contender], count: int, workers: int) -> list[list[Measured]]:
    """Gains on the choosing set, a row a contender, a column a subject; printed as they come."""
    evidence_runs.make_pictures(evidence_runs.jobs(subjects, [plain(), *contenders], CHOOSING, count), workers)
    rows = [[gain([subject], c, CHOOSING, count) for subject in subjects] for c in contenders]
    for contender, row in zip(contenders, rows, strict=True):
        cells = "   ".join(map(str, (*row, gain(subjects, contender, CHOOSING, count))))
        print(f"{contender.passes:.3f}  {cells}   {contender.name}", flush=True)
    return rows


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


def late_round() -> list[Contender]:
    """A branch from the last double blocks on: how strong, how often renewed, how far."""
    branch: dict[str, Any] = {"blocks": "7", "reach": "output", "tau": 1.5, "alpha": 0.1, "renew_every": 4}
    return [
        nagpag(**branch),
        nagpag(**{**branch, "renew_every": 8}),
        nagpag(**{**branch, "reach_blocks": 2}),
        nagpag(**{**branch, "alpha": 0.2}),
        nagpag(**{**branch, "blocks": "6-7"}),
        nagpag(**{**branch, "blocks": "s0"}),
        nagpag(**{**branch, "blocks": "s2"}),
        nagpag(**{**branch, "reach": "double blocks"}),
        nagpag(blocks="4-7", reach="attention", tau=1.5, alpha=0.1, renew_every=1),
        cfg(2.0),
    ]


def last_round() -> list[Contender]:
    """What the rounds before left."""
    branch: dict[str, Any] = {"blocks": "7", "reach": "output", "tau": 1.5, "alpha": 0.05, "renew_every": 8}
    return [
        nagpag(blocks="3-7", reach="attention", tau=1.5, alpha=0.1, renew_every=1),
        nagpag(**branch),
        nagpag(**{**branch, "alpha": 0.1}),
        nagpag(blocks="3-7", reach="attention", tau=1.5, alpha=0.05, renew_every=1),
        nagpag(**{**branch, "blocks": "6", "renew_every": 8}),
    ]


def free_round() -> list[Contender]:
    """The later blocks in their attention, which costs nothing: from where, how strong, single blocks too or not."""
    free: dict[str, Any] = {"reach": "attention", "tau": 1.5, "renew_every": 1}
    spans = [("3-7", 0.1), ("3-7", 0.15), ("3-7, s0-3", 0.1), ("3-7, s0-3", 0.05), ("4-7", 0.1)]
    return [nagpag(**free, blocks=blocks, alpha=alpha) for blocks, alpha in spans]


ROUNDS = {"free": free_round, "last": last_round, "late": late_round, "blocks": blocks_round, "forms": forms_round}


def main(arguments: list[str]) -> int:
    """Arguments: a round, how many pictures, how many workers, then subjects such as 0 0e 1."""
    name, count, workers = arguments[0], int(arguments[1]), int(arguments[2])
    subjects = [Subject(int(word.rstrip("e")), word.endswith("e")) for word in arguments[3:]]
    print("subjects:", "; ".join(map(str, subjects)), file=sys.stderr)
    table(subjects, ROUNDS[name](), count, workers)
    return 0
