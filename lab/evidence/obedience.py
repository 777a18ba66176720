"""Is a negative prompt obeyed? How often pictures of open prompts hold what was forbidden, and what is still right."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from ...nagpag.measure import Measured
from ..make import markdown
from . import gains, runs, subjects
from .contenders import (
    BESIDE,
    DOUBLES,
    EARLY,
    FROM_THE_FIRST,
    SINGLES,
    STRONGER,
    Contender,
    cfg,
    describe,
    in_turn,
    nag,
    nagpag,
    plain,
)
from .gains import JUDGES, ratio_gain
from .open_prompts import Verdicts
from .runs import MOST, NOISES, OPEN_CHOOSING, OPEN_REPORTING, PART_SIZE, REPORTED, PromptSet
from .subjects import Subject

COUNT = 128  # pictures of each contender by each model
# As NAGuidance is by default, whose scale is the paper's s + 1; in all blocks.
MET: dict[str, Any] = {
    "reach": "attention",
    "blocks": f"0-{DOUBLES - 1}, s0-{SINGLES - 1}",
    "scale": 4.0,
    "tau": 1.5,
    "alpha": 0.5,
}
WHEN: dict[str, dict[str, Any]] = {
    "20% to 75%": {"start_percent": 0.2, "end_percent": 0.75},
    "from 5% on, every 10th": {"start_percent": 0.05, "renew_every": 10},
    "from the first step on, every 7th": {"start_percent": 0.0, "renew_every": 7},
}
# One node early, where it is decided what is there, and another behind it that makes out the rest; each once.
ONCE: dict[str, Any] = {"renew_every": REPORTED}
EARLY_MET: dict[str, Any] = {**MET, **ONCE, "start_percent": 0.05, "end_percent": 0.44}
LATE_ONCE: dict[str, Any] = {**ONCE, "start_percent": 0.45, "end_percent": 0.79}
IN_DOUBLES: dict[str, Any] = {"blocks": f"0-{DOUBLES - 1}", "renew_every": 4}
# What was tried of two nodes, on models to choose on: what the first one has beside EARLY_MET, and the second one.
TRIED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({}, LATE_ONCE),
    ({}, {**ONCE, "start_percent": 0.45}),
    ({}, {**ONCE, "start_percent": 0.55}),
    ({"end_percent": 0.59}, {**ONCE, "start_percent": 0.6}),
    ({"end_percent": 0.29}, {**ONCE, "start_percent": 0.3}),
    ({"start_percent": 0.0}, {**ONCE, "start_percent": 0.45}),
    ({"start_percent": 0.1}, {**ONCE, "start_percent": 0.45}),
    ({"start_percent": 0.1, "scale": 6.0}, LATE_ONCE),
    ({"scale": 6.0}, {**ONCE, "start_percent": 0.55}),
    (IN_DOUBLES, LATE_ONCE),
    ({**IN_DOUBLES, "scale": 6.0, "alpha": 0.7}, LATE_ONCE),
]
STARTS = (0.2, 0.45)  # of the sampling; the last is the node's default


def contenders() -> list[Contender]:
    """Whom the table compares: the branch by start, strength, renewal and reach, NAGuidance, CFG."""
    return [
        *(nagpag(f"NAG-PAG from {start:.0%} on", REPORTED, start_percent=start) for start in STARTS),
        nagpag("NAG-PAG, scale 5, from 20% on", REPORTED, start_percent=0.2, scale=5.0),
        *(
            nagpag(f"NAG-PAG, reach output, from {start:.0%} on", REPORTED, **BESIDE, start_percent=start)
            for start in STARTS
        ),
        nagpag("NAG-PAG, reach output, scale 5, from 20% on", REPORTED, **BESIDE, start_percent=0.2, scale=5.0),
        nagpag("NAG-PAG, reach output, alpha 0.33, from 45% on", REPORTED, **STRONGER),
        nagpag("NAG-PAG, the same from the first step on, every 4th", REPORTED, **FROM_THE_FIRST),
        nagpag("NAG-PAG, the same, merged after the double blocks", REPORTED, **{**STRONGER, **EARLY}),
        *(
            nagpag(f"NAG-PAG, reach attention, all blocks, {name}", REPORTED, **MET, **when)
            for name, when in WHEN.items()
        ),
        nagpag("NAG-PAG, reach attention, all blocks, 5% to 44%, once", REPORTED, **EARLY_MET),
        _two_nodes("NAG-PAG, two nodes: that, then the prediction once", {}, LATE_ONCE),
        _two_nodes("NAG-PAG, two nodes: that, then the defaults", {}, {}),
        _two_nodes(
            "NAG-PAG, two nodes: reach attention in double blocks, every 4th, then the prediction once",
            IN_DOUBLES,
            LATE_ONCE,
        ),
        nag(),
        cfg(2.0),
    ]


def tried() -> list[Contender]:
    """What was looked at on other models, prompts and noise before: two nodes in turn, beside one, NAG and CFG."""
    from_then_on = WHEN["from 5% on, every 10th"]
    alone = nagpag(describe(from_then_on), REPORTED, **MET, **from_then_on)
    pairs = (
        _two_nodes(f"{describe(first) if first else 'as it is'}; then {describe(then)}", first, then)
        for first, then in TRIED
    )
    return [*pairs, alone, nag(), cfg(2.0)]


def _two_nodes(name: str, first: dict[str, Any], then: dict[str, Any]) -> Contender:
    """first: what the first node has beside EARLY_MET; then: the inputs of the second."""
    return in_turn(name, nagpag("", REPORTED, **{**EARLY_MET, **first}), nagpag("", REPORTED, **then))


# --- the numbers ---


def verdicts(subject: Subject, contender: Contender, prompts: PromptSet, count: int) -> Verdicts:
    """What the judges say of `count` pictures; they have to be there."""
    parts = runs.parts([subject], [contender], prompts, count)
    asked = [question for part in parts for question in part.rows()[0]]
    return subject.domain.prompts.judge(torch.cat([runs.pictures_of(part) for part in parts]), asked)


def change(guided: list[Verdicts], before: list[Verdicts], what: str, judge: str) -> Measured:
    """Change in the share that is "held" or "right" by one judge, of several models' pictures of the same prompts."""
    after, plainly, total = _sum(guided, what, judge), _sum(before, what, judge), _sum(before, f"of {what}", judge)
    return ratio_gain(after, plainly, total, NOISES)


def share(found: list[Verdicts], what: str, judge: str) -> float:
    """Of the pictures those that hold what is forbidden, or of the objects those that are right."""
    return float(_sum(found, what, judge).sum() / _sum(found, f"of {what}", judge).sum())


def _sum(found: list[Verdicts], what: str, judge: str) -> Tensor:
    """Over the models, (pictures,). what: "held", "right", or with "of " before it what these are a share of."""
    values = {
        "of held": lambda one: torch.ones_like(one.asked),
        "of right": lambda one: one.asked,
        "held": lambda one: one.held[judge],
        "right": lambda one: one.right[judge],
    }
    return torch.stack([values[what](one).double() for one in found]).sum(0)


def table(models: list[Subject], wanted: list[Contender], prompts: PromptSet, count: int) -> str:
    """A row for each contender that has its pictures; the first says how it is without guidance, the others the change.

    Raises LookupError where not even the pictures without guidance are there.
    """
    there = [c for c in (plain(), *wanted) if gains.was_made(models, c, prompts, count)]
    if not there:
        raise LookupError(f"no pictures of open prompts without guidance by {'; '.join(map(str, models))}")
    shares = [(what, judge) for what in ("held", "right") for judge in JUDGES]
    before, *guided = ([verdicts(model, contender, prompts, count) for model in models] for contender in there)
    rows = [["no guidance", "1.00", *(f"{share(before, what, judge):.3f}" for what, judge in shares)]]
    for contender, after in zip(there[1:], guided, strict=True):
        changes = (str(change(after, before, what, judge)) for what, judge in shares)
        rows.append([contender.name, f"{contender.passes:.2f}", *changes])
    return markdown.table(("", "passes", *(f"{what}, {judge}" for what, judge in shares)), rows)


def main(arguments: list[str]) -> int:
    """Make pictures of open prompts by the named models and say how often they hold what is forbidden."""
    parser = argparse.ArgumentParser(prog="obedience", description=main.__doc__)
    parser.add_argument("models", nargs="+", help="seeds such as 0, or 0s for its student")
    parser.add_argument("--count", type=int, default=COUNT, choices=range(PART_SIZE, MOST + 1, PART_SIZE))
    parser.add_argument("--choosing", action="store_true", help="what was tried, on the questions for choosing")
    asked = parser.parse_args(arguments)
    prompts = OPEN_CHOOSING if asked.choosing else OPEN_REPORTING
    try:
        models = [subjects.subject_of(word) for word in asked.models]
    except ValueError as error:
        parser.error(str(error))
    wanted = tried() if asked.choosing else contenders()
    runs.make_pictures(runs.parts(models, [plain(), *wanted], prompts, asked.count))
    print(table(models, wanted, prompts, asked.count))
    return 0
