"""What was tried before settings were chosen, in rounds: by block, form, reach, renewal and strength.

Smaller rounds came before these, on seeds 0 and 1 and mostly a single one; docs/evidence.md of df1fc48 has their
tables. None found more than these did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import gains
from .contenders import DOUBLES, Contender, describe, nag, nagpag, pag, skip_layer
from .runs import CHOOSING, Subject

# What the rounds are beside what they name: spelled out, so that they stay what they were when the defaults change.
_FREE: dict[str, Any] = {
    "reach": "attention",
    "renew_every": 1,
    "scale": 3.0,
    "tau": 1.5,
    "alpha": 0.1,
    "perturbation": 1.0,
    "negative": "identity",
    "schedule": "constant",
}
_BRANCH: dict[str, Any] = {**_FREE, "reach": "double blocks", "renew_every": 4}


def _free(**inputs: Any) -> Contender:
    return nagpag(f"attention: {describe(inputs)}", **{**_FREE, **inputs})


def _branch(**inputs: Any) -> Contender:
    return nagpag(f"branch: {describe(inputs)}", **{**_BRANCH, **inputs})


def blocks_round() -> list[Contender]:
    """Every double block alone, weakly: in its attention, and as the start of a branch to the output."""
    return [
        *(_free(blocks=str(block)) for block in range(DOUBLES)),
        *(_branch(blocks=str(block), reach="output", alpha=0.05) for block in range(DOUBLES)),
    ]


def forms_round() -> list[Contender]:
    """All blocks together, or many, in the attention: how strong, how limited, and which negative."""
    return [
        *(_free(blocks="all", alpha=alpha) for alpha in (0.05, 0.1, 0.2)),
        *(_free(blocks="all", negative=negative) for negative in ("softened", "mean", "identity + text")),
        _free(blocks="all", tau=1.0),
        _free(blocks="all", tau=10.0, alpha=0.03),
        *(_free(blocks=blocks) for blocks in ("3-7", "3, 4, 7")),
    ]


def candidates() -> list[Contender]:
    """What the choice of the defaults begins with: at most 1.10 passes, as gentle as the earlier rounds found good."""
    return [
        *(_free(blocks="4-7", alpha=alpha) for alpha in (0.1, 0.05)),
        _free(blocks="all", alpha=0.05),
        _free(blocks="4-7", end_percent=0.5),
        _free(blocks="4-7", start_percent=0.5),
        *(_free(blocks="4-7", alpha=0.15, schedule=schedule) for schedule in ("linear fade-in", "bell")),
        _free(blocks="4-7", alpha=0.25, perturbation=0.1),
        *(_free(blocks="4-7", alpha=alpha, negative="softened") for alpha in (0.25, 0.6)),
        _free(blocks="all", alpha=0.25, negative="softened"),
        *(_free(blocks="4-7", alpha=alpha, negative="mean") for alpha in (0.1, 0.2)),
        *(_branch(blocks=blocks) for blocks in ("2", "4", "6", "4-7")),
        *(_branch(blocks=block, reach_blocks=2) for block in ("1", "6")),
        *(_branch(blocks="7", reach_blocks=3, renew_every=6, alpha=alpha) for alpha in (0.05, 0.1)),
        _branch(blocks="6-7", negative="softened", alpha=0.25),
    ]


def neighbours() -> list[Contender]:
    """What lies around the best of them: a branch with all later blocks perturbed, one from the last double block on,
    and perturbations so gentle that hardly a token is at its limit."""
    return [
        _branch(blocks="4-7"),
        _branch(blocks="4-7", alpha=0.15),
        _branch(blocks="4-7", renew_every=2),
        *(_branch(blocks=blocks) for blocks in ("5-7", "3-7", "2-7", "all")),
        *(_branch(blocks=blocks, perturbation=0.5) for blocks in ("4-7", "3-7")),
        _branch(blocks="3-7", alpha=0.15, perturbation=0.3),
        *(_branch(blocks=blocks, alpha=0.25, perturbation=0.1) for blocks in ("4-7", "all")),
        _branch(blocks="4-7", renew_every=6, reach_blocks=5),
        _branch(blocks="6-7", renew_every=6, reach_blocks=4),
        *(_branch(blocks="7", renew_every=6, reach_blocks=3, alpha=alpha) for alpha in (0.1, 0.15)),
        *(_free(blocks=blocks, alpha=0.25, perturbation=0.1) for blocks in ("4-7", "3-7", "all")),
        _free(blocks="4-7", alpha=0.25, perturbation=0.15),
        _free(blocks="4-7", alpha=0.25, perturbation=0.15, schedule="linear fade-in"),
    ]


def peers_round() -> list[Contender]:
    """The others, each in a few places and strengths: classic PAG in every double block, ComfyUI's own nodes."""
    return [
        *(pag(block, 0.3) for block in range(DOUBLES)),
        pag(6, 1.0),
        *(nag(*strength) for strength in ((5.0, 0.5, 1.5), (3.0, 0.25, 1.5), (2.0, 0.25, 2.5))),
        *(skip_layer(block) for block in (1, 3, 5, 7)),
    ]


# --- around the defaults that came of it, for the plots ---

_CHOSEN: dict[str, Any] = {"blocks": "3-7", "alpha": 0.15, "perturbation": 0.3}
ALPHAS, SCALES, PERCENTS, RENEWALS = (0.05, 0.15, 0.3, 0.6), (1.0, 3.0, 6.0, 10.0), (0.25, 0.5, 0.75), (1, 4, 8)


def strength_round() -> list[Contender]:
    """How strong: by alpha at scale 3, and by scale at alpha 0.15."""
    return [
        *(_branch(**{**_CHOSEN, "alpha": alpha}) for alpha in ALPHAS),
        *(_branch(**_CHOSEN, scale=scale) for scale in SCALES),
    ]


def steps_round() -> list[Contender]:
    """In a part of the sampling: the early steps, the late ones."""
    return [
        *(_branch(**_CHOSEN, end_percent=percent) for percent in PERCENTS),
        *(_branch(**_CHOSEN, start_percent=percent) for percent in PERCENTS),
    ]


def reach_round() -> list[Contender]:
    """How far, and how often renewed."""
    return [
        _free(**_CHOSEN),
        *(_branch(**_CHOSEN, renew_every=every) for every in RENEWALS),
        *(_branch(**_CHOSEN, reach="output", renew_every=every) for every in RENEWALS),
    ]


# --- the rounds ---


@dataclass(frozen=True)
class Round:
    """What was compared, and the seeds of the models that it was compared on."""

    contenders: Callable[[], list[Contender]]
    seeds: tuple[int, ...]
    searched: bool = False

    @property
    def subjects(self) -> list[Subject]:
        return [Subject(seed) for seed in self.seeds]

    def made(self) -> bool:
        """Whether all of its pictures are there."""
        return all(gains.was_made(self.subjects, contender, CHOOSING, COUNT) for contender in self.contenders())


COUNT = 128  # pictures of each contender by each model
SEARCHED, KEEP = (COUNT, 256), 1 / 4  # how far the search follows its candidates
ROUNDS = {
    "blocks": Round(blocks_round, (0, 1)),
    "forms": Round(forms_round, (0, 1)),
    "candidates": Round(candidates, (0, 1, 2, 3)),
    "neighbours": Round(neighbours, (0, 1, 2, 3), searched=True),
    "peers": Round(peers_round, (0, 1)),
    "reach": Round(reach_round, (0, 1)),
    "strength": Round(strength_round, (0, 1)),
    "steps": Round(steps_round, (0, 1)),
}
