"""What guidance does, measured: make evidence, which writes docs/evidence.md and its plots.

Settings were chosen on one set of prompts and noise and some of the models (`choosing`); here they meet another set,
and models that were not looked at.
"""

from __future__ import annotations

import argparse
from typing import Any

from ...nagpag.blocks import published_blocks
from . import choosing, cluster, few_steps, obedience, page, plots, results, runs
from .contenders import (
    BESIDE,
    DOUBLES,
    EARLY,
    FROM_THE_FIRST,
    STRONGER,
    Contender,
    cfg,
    cfg_reused,
    nag,
    nagpag,
    pag,
    plain,
    skip_layer,
)
from .free_methods import momentum, token_perturbation
from .results import Group
from .runs import MOST, OPEN_REPORTING, REPORTED, REPORTING
from .subjects import Subject

FULL, COUNT, PEERS = 1_024, 256, 128  # pictures by each model: of who decides, of NAG-PAG's other forms, of peers
GROUPS = (
    Group("Models that draw coloured shapes", (Subject("3"), Subject("4"))),
    Group("Guidance-distilled models that draw coloured shapes", (Subject("3s"), Subject("4s"))),
    Group("Models that draw emoji", (Subject("emoji0"), Subject("emoji1"))),
    Group("Guidance-distilled models that draw emoji", (Subject("emoji0s"), Subject("emoji1s"))),
)
PUBLISHED_BLOCKS = ", ".join(map(str, published_blocks(DOUBLES)))
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
    "start_percent": 0.0,
    "negative_prompt": "off",
}


def deciding() -> list[Contender]:
    """What the node does where nothing is set, and what it is measured against."""
    return [nagpag("NAG-PAG, the node's defaults", REPORTED), cfg(2.0)]


def own() -> list[Contender]:
    """NAG-PAG in its other forms."""
    return [
        nagpag("NAG-PAG, the defaults without a negative prompt", REPORTED, negative_prompt="off"),
        nagpag("NAG-PAG, reach output, alpha 0.2", REPORTED, **BESIDE),
        nagpag("NAG-PAG, reach output, alpha 0.33", REPORTED, **STRONGER),
        nagpag("NAG-PAG, the same from the first step, renewed every 4th", REPORTED, **FROM_THE_FIRST),
        nagpag("NAG-PAG, the same, merged after the double blocks", REPORTED, **{**STRONGER, **EARLY}),
        nagpag("NAG-PAG, as published", REPORTED, **AS_PUBLISHED),
    ]


def peers() -> list[Contender]:
    """The others, on fewer pictures: each as it is and as the choosing set found it best."""
    return [
        cfg(1.5),
        cfg(3.0),
        cfg_reused(2.0, steps=REPORTED),
        cfg_reused(2.0, 6, REPORTED, start=0.45),
        nag(),
        nag(2.0, 0.25, 2.5),
        skip_layer(DOUBLES - 1, steps=REPORTED),
        pag(DOUBLES - 1, 0.3),
        momentum(0.5, 0.6),
        token_perturbation(DOUBLES - 1, DOUBLES - 1, 0.3),
        nagpag("NAG-PAG on top of CFG 2", REPORTED, cfg=2.0),
        nagpag("NAG-PAG, reach output, alpha 0.2, on top of CFG 2", REPORTED, cfg=2.0, **BESIDE),
    ]


def main(arguments: list[str]) -> int:
    """Make the pictures, judge them, write the page. Without a count also the rounds in which settings were chosen."""
    parser = argparse.ArgumentParser(prog="evidence", description=main.__doc__)
    parts = range(runs.PART_SIZE, MOST + 1, runs.PART_SIZE)
    of_count = (
        f"at most so many pictures of each by each model not chosen on (default {FULL} of the node's defaults and "
        f"CFG 2, {COUNT} of other forms, {PEERS} of peers); with fewer the page is printed, not written"
    )
    parser.add_argument("count", type=int, nargs="?", choices=parts, metavar="|".join(map(str, parts)), help=of_count)
    parser.add_argument("--made", action="store_true", help="make nothing: write the page of what is there")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help=cluster.HELP)
    asked = parser.parse_args(arguments)
    groups = [group for group in GROUPS if group.trained]
    if not groups:
        parser.error("none of the models is trained yet: make lab trains them")
    most = asked.count or FULL
    counts = tuple(count for count in reversed(parts) if count <= most)
    try:
        if not asked.made:
            if asked.count is None:
                choosing.main(["--ray", asked.ray])
            _make(groups, most, asked.ray)
    except cluster.NotMade as error:
        raise SystemExit(f"evidence: {error}") from None
    wanted = [*deciding(), *own(), *peers()]
    found = [results.gather(group, wanted, counts) for group in groups]
    text = page.page(found, [subject for group in GROUPS for subject in group.held_out if not subject.trained])
    print(text)
    if most >= FULL:
        page.OUTPUT.write_text(text)
        plots.draw(found)
    return 0


def _make(groups: list[Group], most: int, ray: str) -> None:
    for group in groups:
        models = group.trained
        for wanted, count in (([plain(), *deciding()], FULL), (own(), COUNT), (peers(), PEERS)):
            runs.make_pictures(runs.parts(models, wanted, REPORTING, min(count, most)), ray)
        asked = [plain(), *obedience.contenders()]
        runs.make_pictures(runs.parts(models, asked, OPEN_REPORTING, min(obedience.COUNT, most)), ray)
        runs.make_pictures(few_steps.parts(models), ray)
