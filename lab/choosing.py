"""Choose settings on one set of prompts and noise: gains by block, reach, renewal and strength. lab/run.py choosing"""

from __future__ import annotations

import sys
from typing import Any

from . import evidence_runs, judges, paired
from .contenders import Contender, nagpag, plain
from .evidence_runs import CHOOSING, NOISES, Asked, Subject
from .paired import Measured


def gain(subject: Subject, contender: Contender, asked: Asked, count: int, judge: str = "both") -> Measured:
    """Change in the share of objects right against no guidance; judge: cnn, template, or their mean (both)."""
    guided, unguided = (evidence_runs.scores(subject, c, asked, count) for c in (contender, plain()))
    right, before = _right(guided, judge), _right(unguided, judge)
    return paired.ratio_gain(right, before, guided.objects, NOISES)


def _right(scores: judges.Scores, judge: str) -> Any:
    if judge == "both":
        return (scores.cnn_right + scores.template_right) / 2
    return scores.cnn_right if judge == "cnn" else scores.template_right


def table(subjects: list[Subject], contenders: list[Contender], count: int, workers: int) -> list[list[Measured]]:
    """Gains on the choosing set, a row a contender, a column a subject; printed as they come."""
    evidence_runs.make_pictures(evidence_runs.jobs(subjects, [plain(), *contenders], CHOOSING, count), workers)
    rows = [[gain(subject, contender, CHOOSING, count) for subject in subjects] for contender in contenders]
    for contender, row in sorted(zip(contenders, rows, strict=True), key=lambda pair: -paired.mean_of(pair[1]).value):
        cells = "   ".join(f"{measured}" for measured in (*row, paired.mean_of(row)))
        print(f"{contender.passes:.3f}  {cells}   {contender.name}", flush=True)
    return rows


def first_round() -> list[Contender]:
    """Every double block as the start of a branch, at both reaches; the published form and its gentler neighbours."""
    branch: dict[str, Any] = {"scale": 3.0, "tau": 1.5, "alpha": 0.25, "renew_every": 4}
    return [
        *(
            nagpag(**{**branch, "blocks": str(block), "reach": reach})
            for reach in ("double blocks", "output")
            for block in range(8)
        ),
        nagpag("as published", blocks="auto", tau=2.5, alpha=0.25),
        nagpag("softened", blocks="auto", tau=2.5, alpha=0.25, negative="softened"),
    ]


def main(arguments: list[str]) -> int:
    """Arguments: how many pictures, how many workers, then subjects such as 0 0e 1."""
    count, workers = int(arguments[0]), int(arguments[1])
    subjects = [Subject(int(word.rstrip("e")), word.endswith("e")) for word in arguments[2:]]
    print("subjects:", "; ".join(map(str, subjects)), file=sys.stderr)
    table(subjects, first_round(), count, workers)
    return 0
