"""What guidance does, measured: make evidence, which writes docs/evidence.md and its plots.

Settings were chosen on one set of prompts and noise and some of the models (`choosing`); here they meet another set,
and models that were not looked at.
"""

from __future__ import annotations

import argparse
from typing import Any

from ...nagpag.blocks import published_blocks
from . import choosing, halving, page, plots, results, runs
from .contenders import DOUBLES, Contender, cfg, cfg_reused, nag, nagpag, pag, plain, skip_layer
from .rounds import ROUNDS
from .runs import MOST, REPORTING, Subject

# Settings were chosen on the late states of the first four seeds; the last two were not looked at before.
CHOSEN_ON = (Subject(0), Subject(0, early=True), Subject(1), Subject(2), Subject(2, early=True), Subject(3))
HELD_OUT = (Subject(4), Subject(5))
EARLY = (Subject(4, early=True), Subject(5, early=True))  # of the same two; not in the main table
SUBJECTS = (*CHOSEN_ON, *HELD_OUT, *EARLY)
COUNT, OTHERS = 1_024, 512  # pictures of NAG-PAG and its like by each of HELD_OUT; of peers, and by each other model

PUBLISHED_BLOCKS = ", ".join(map(str, published_blocks(DOUBLES)))  # 3, 5, 6
AS_PUBLISHED: dict[str, Any] = {
    "reach": "attention",
    "blocks": PUBLISHED_BLOCKS,
    "scale": 3.0,
    "tau": 2.5,
    "alpha": 0.25,
    "perturbation": 1.0,
    "negative": "identity",
    "schedule": "constant",
    "renew_every": 1,
}


def reported() -> list[Contender]:
    """Whom the table compares on all models."""
    return [
        nagpag("NAG-PAG, the node's defaults"),
        nagpag("NAG-PAG, as published", **AS_PUBLISHED),
        cfg(2.0),
    ]


def own() -> list[Contender]:
    """Whom it compares on the models that settings were not chosen on: NAG-PAG in other forms."""
    return [
        nagpag("NAG-PAG, the HTTP defaults", blocks=PUBLISHED_BLOCKS),
        nagpag("NAG-PAG in the attention", reach="attention", alpha=0.25, perturbation=0.1, renew_every=1),
    ]


def peers() -> list[Contender]:
    """Whom it compares there beside these, on fewer pictures: each as it is and as the choosing set found it best."""
    return [
        pag(6, 0.3),
        nag(),
        nag(2.0, 0.25, 2.5),
        skip_layer(3),
        skip_layer(5),
        cfg_reused(2.0),
        cfg(1.5),
        cfg(3.0),
        nagpag("NAG-PAG on top of CFG 2", cfg=2.0),
    ]


def main(arguments: list[str]) -> int:
    """Make the pictures, judge them, write the page. Without a count also the rounds in which settings were chosen."""
    parser = argparse.ArgumentParser(prog="evidence", description=main.__doc__)
    parts = range(runs.PART_SIZE, MOST + 1, runs.PART_SIZE)
    of_count = (
        f"pictures of each by each late model not chosen on (default {COUNT}; of peers and by the other models at most "
        f"{OTHERS}); with fewer the page is printed, not written"
    )
    parser.add_argument("count", type=int, nargs="?", choices=parts, metavar="|".join(map(str, parts)), help=of_count)
    parser.add_argument("--made", action="store_true", help="make nothing: write the page of what is there")
    asked = parser.parse_args(arguments)
    if missing := [subject for subject in SUBJECTS if not subject.file.exists()]:
        parser.error(f"not trained yet: {'; '.join(map(str, missing))}. make lab trains them")
    count = asked.count or COUNT
    counts = results.Counts(count, min(count, OTHERS))
    if not asked.made:
        if asked.count is None:
            _choose(counts)
        _make(counts)
    found = results.gather([*CHOSEN_ON], [*HELD_OUT], [*EARLY], reported(), [*own(), *peers()], counts)
    text = page.page(found)
    print(text)
    if count >= COUNT:
        page.OUTPUT.write_text(text)
        plots.draw(found)
    return 0


def _choose(counts: results.Counts) -> None:
    """The rounds in which settings were chosen for all models, and the searches for each late one."""
    for name in ROUNDS:
        print(f"choosing: {name}", flush=True)
        choosing.main([name])
    for subject in SUBJECTS:
        if not subject.early:
            halving.own(subject)
            count = counts.held_out if subject in HELD_OUT else counts.others
            found = [*dict.fromkeys(c for c in results.own_settings(subject) if c)]
            print(f"{subject} by itself: {'; '.join(c.name for c in found)}", flush=True)
            runs.make_pictures(runs.parts([subject], found, REPORTING, count))


def _make(counts: results.Counts) -> None:
    rest = [subject for subject in SUBJECTS if subject not in HELD_OUT]
    for subjects, contenders, count in (
        (HELD_OUT, [plain(), *reported(), *own()], counts.held_out),
        (HELD_OUT, peers(), counts.others),
        (rest, [plain(), *reported()], counts.others),
    ):
        for contender in contenders:
            print(f"{contender.name} ({contender.passes:.2f} passes)", flush=True)
            runs.make_pictures(runs.parts([*subjects], [contender], REPORTING, count))
