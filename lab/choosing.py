"""Choose settings on one set of prompts and noise: gains by block, reach, renewal and strength. lab/run.py choosing"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from . import evidence_runs, judges, paired, search
from .contenders import Contender, cfg, nagpag, plain
from .evidence_runs import CHOOSING, MOST, NOISES, Asked, Subject
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


COUNTS, KEEP = (128, 256, 512), 1 / 3  # of the search
ROUNDS = {"free": free_round, "last": last_round, "late": late_round, "blocks": blocks_round, "forms": forms_round, "candidates": candidates}


def make(subjects: list[Subject], contenders: list[Contender], count: int) -> None:
    """The choosing set's pictures of these contenders, and those without guidance."""
    evidence_runs.make_pictures(evidence_runs.jobs(subjects, [plain(), *contenders], CHOOSING, count))


def find(subjects: list[Subject]) -> list[tuple[Contender, Measured]]:
    """The candidates by their gain on all these models together, best first, each as far as the search followed it."""

    def gains(left: list[Contender], count: int) -> list[Measured]:
        make(subjects, left, count)
        return [gain(subjects, contender, CHOOSING, count) for contender in left]

    return search.search(candidates(), gains, COUNTS, KEEP)


def main(arguments: list[str]) -> int:
    """Arguments: a round, how many pictures, then models such as 0 0e 1 (a seed, with e its early state)."""
    parser = argparse.ArgumentParser(prog="choosing", description=main.__doc__)
    parser.add_argument("round", choices=ROUNDS)
    parser.add_argument("count", type=int, choices=range(evidence_runs.PART, MOST + 1, evidence_runs.PART))
    parser.add_argument("models", nargs="+", type=evidence_runs.subject_of)
    asked = parser.parse_args(arguments)
    contenders = ROUNDS[asked.round]()
    make(asked.models, contenders, asked.count)
    print("passes  ", *asked.models, "all", sep="   ")
    for contender in contenders:
        gains = [gain([subject], contender, CHOOSING, asked.count) for subject in asked.models]
        cells = "   ".join(map(str, (*gains, gain(asked.models, contender, CHOOSING, asked.count))))
        print(f"{contender.passes:.3f}  {cells}   {contender.name}", flush=True)
    return 0
