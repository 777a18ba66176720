"""What guidance does, measured: make evidence, which writes docs/evidence.md and its plots.

Settings were chosen on one set of prompts and noise and some of the models (`choosing`); here they meet another set and
all models.
"""

from __future__ import annotations

import sys
from typing import Any

from . import choosing, evidence_page, evidence_runs
from .contenders import Contender, cfg, nagpag, plain
from .evidence_runs import MOST, REPORTING, Subject

# Settings were chosen on the first two seeds; the others were never looked at before.
CHOSEN_ON = (Subject(0), Subject(0, early=True), Subject(1))
HELD_OUT = (Subject(2), Subject(2, early=True), Subject(3))
SUBJECTS = (*CHOSEN_ON, *HELD_OUT)

AS_PUBLISHED: dict[str, Any] = {
    "reach": "attention",
    "blocks": "3, 5, 6",  # at the depth of 8, 12 and 16 of 19
    "scale": 3.0,
    "tau": 2.5,
    "alpha": 0.25,
    "perturbation": 1.0,
    "negative": "identity",
    "schedule": "constant",
    "renew_every": 1,
}


def reported() -> list[Contender]:
    """Whom the table compares."""
    return [
        nagpag("NAG-PAG, the node's defaults"),
        nagpag("NAG-PAG, as published", **AS_PUBLISHED),
        nagpag("NAG-PAG, the HTTP defaults", blocks="3, 5, 6"),
        cfg(2.0),
    ]


def main(arguments: list[str]) -> int:
    """Argument: how many pictures of each, by 128 up to 1,024 (the default); below 512 the page is only printed.

    The whole of it also makes the pictures of the rounds in which settings were chosen.
    """
    counts = range(evidence_runs.PART, MOST + 1, evidence_runs.PART)
    if len(arguments) > 1 or not all(word.isdigit() and int(word) in counts for word in arguments):
        print(f"evidence: {' '.join(arguments)!r} is not one of {', '.join(map(str, counts))}", file=sys.stderr)
        return 2
    count = int(arguments[0]) if arguments else MOST
    if missing := [subject for subject in SUBJECTS if not subject.file.exists()]:
        print(f"evidence: not trained yet: {'; '.join(map(str, missing))}. make lab trains them", file=sys.stderr)
        return 1
    if count == MOST:
        for name, contenders in choosing.ROUNDS.items():
            print(f"choosing: {name}", flush=True)
            choosing.make([*evidence_page.CHOOSERS], contenders(), evidence_page.CHOOSING_COUNT)
    for contender in (plain(), *reported()):
        print(f"{contender.name} ({contender.passes:.2f} passes)", flush=True)
        evidence_runs.make_pictures(evidence_runs.jobs([*SUBJECTS], [contender], REPORTING, count))
    page = evidence_page.page([*CHOSEN_ON], [*HELD_OUT], reported(), count)
    print(page)
    if count >= 512:
        evidence_page.OUTPUT.write_text(page)
        evidence_page.draw([*HELD_OUT], reported(), count)
    return 0
