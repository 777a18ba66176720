"""What was tried before settings were chosen, in rounds: how strong, how far, how often, when, and what peers do.

Choosing is done on models and prompts of its own; `report` measures what came of it on others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...nagpag.inputs.calibration import ALPHAS as CALIBRATE_ALPHAS
from ..toy.flux import HEAD_DIM
from ..toy.proportioned import SIZES
from .contenders import (
    BESIDE,
    CARRIED,
    DEPTHS,
    DOUBLES,
    STRONGER,
    Contender,
    carried,
    cfg,
    cfg_reused,
    describe,
    nag,
    nagpag,
    pag,
    plain,
    skip_layer,
)
from .experiments import experiments
from .free_methods import free_round
from .merge_variants import bound, momentum, parallel
from .renewal_variants import extrapolated, faded, placed
from .runs import CHOOSING, REPORTED, Part, PromptSet, made, parts
from .subjects import Subject

# The identity branch as the defaults of before: measured on models with one head, half of whose blocks were double.
IDENTITY: dict[str, Any] = {
    **CARRIED,
    "negative_prompt": "off",
    "blocks": "auto",
    "scale": 3.0,
    "tau": 1.5,
    "alpha": 0.15,
    "perturbation": 0.3,
}
STRENGTHS = ((0.25, 1.1), (0.5, 1.05), (0.5, 1.1), (0.5, 1.25), (1.0, 1.1), (1.0, 1.25), (2.0, 1.25), (2.0, 1.5))
HEADS = SIZES.hidden // HEAD_DIM
EARLY = ((0.083,), (0.167,), (0.25,), (0.083, 0.25), (0.083, 0.333), (0.083, 0.167, 0.333))  # of the sampling
RENEWALS = (1, 2, 4, 8)
FADING: dict[str, Any] = {"schedule": "linear fade-out", "scale": 4.5, "tau": 2.0}
FIRMER: dict[str, Any] = {"scale": 1.0, "tau": 1.25}
STRONG: dict[str, Any] = {"scale": 3.0, "tau": 1.75, "alpha": 0.33}  # as firm, at the scale that people are told
PREDICTION_ALPHAS = (0.33, 0.4, 0.5, 0.67)
PREDICTED: dict[str, Any] = {**STRONG, "reach": "prediction", "renew_every": 6, "start_percent": 0.45}
LATE: dict[str, Any] = {**STRONG, "reach": "output", "renew_every": 6, "start_percent": 0.45}


def identity(**inputs: Any) -> Contender:
    """The identity branch, but for these inputs."""
    return nagpag(f"identity: {describe(inputs)}", **{**IDENTITY, **inputs})


def strength_round() -> list[Contender]:
    """How strong the branch with the negative prompt may be, and whether disturbing its attention adds anything."""
    return [
        *(carried(scale=scale, tau=tau) for scale, tau in STRENGTHS),
        carried(scale=3.0, tau=1.5, alpha=0.15),
        *(identity(perturbation=share, alpha=alpha) for share, alpha in ((0.3, 0.15), (0.3, 0.3), (0.1, 0.25))),
        identity(reach="attention", renew_every=1),
        # What is left of such a default where a sampler has no negative prompt.
        *(identity(scale=0.5, tau=1.1, alpha=1.0, perturbation=share) for share in (0.1, 0.3, 1.0)),
    ]


def reach_round() -> list[Contender]:
    """How far the branch runs, and how often it is renewed."""
    return [
        *(carried(renew_every=every) for every in RENEWALS),
        *(carried(reach="output", renew_every=every) for every in RENEWALS),
        *(carried(reach_blocks=blocks) for blocks in range(DOUBLES + 1, sum(DEPTHS), 1)),
    ]


def late_round() -> list[Contender]:
    """In the later part of the sampling (guidance interval, arXiv 2404.07724), stronger as it is shorter."""
    held: dict[str, Any] = {"reach": "output", "renew_every": 12}
    return [
        *(carried(**held, **FIRMER, start_percent=start) for start in (0.24, 0.407, 0.49, 0.573, 0.657)),
        *(carried(**held, scale=2.0, tau=1.5, start_percent=start) for start in (0.573, 0.657, 0.74)),
        carried(reach="output", renew_every=1, **FIRMER, start_percent=0.573),
        carried(reach="output", renew_every=3, **FIRMER, start_percent=0.49),
        carried(reach_blocks=3, renew_every=3, **FIRMER, start_percent=0.573),
        carried(renew_every=2, **FIRMER, start_percent=0.573),
    ]


def without_round() -> list[Contender]:
    """The same without a negative prompt: what may disturb the branch then."""
    late: dict[str, Any] = {"reach": "output", "renew_every": 12, "start_percent": 0.573}
    return [
        *(identity(**late, perturbation=share) for share in (0.3, 1.0)),
        *(identity(**late, **STRONG, perturbation=share) for share in (0.1, 0.3)),
        *(identity(**late, **STRONG, negative="softened", perturbation=share) for share in (0.5, 1.0)),
        identity(**late, **STRONG, negative="identity + text", perturbation=0.2),
        identity(**late, **STRONG, negative="mean", perturbation=0.1),
    ]


def many_steps_round() -> list[Contender]:
    """At as many steps as are reported: when to begin, and how often to renew, for a tenth of a step."""
    windows = ((0.35, 7), (0.45, 6), (0.5, 5), (0.6, 4))
    late = (
        nagpag(
            f"from {start:.0%}, renewed every {every}",
            REPORTED,
            **{**LATE, "start_percent": start, "renew_every": every},
        )
        for start, every in windows
    )
    return [cfg(2.0), *late]


def gentler_round() -> list[Contender]:
    """The late form at as many steps as are reported, less strong: what distilled models need."""
    weaker = ({"alpha": 0.33}, {"scale": 1.5}, {"alpha": 0.15}, {"alpha": 0.2}, {"alpha": 0.25})
    return [cfg(2.0), *(nagpag(describe(one), REPORTED, **{**LATE, **one}) for one in weaker)]


def prediction_round() -> list[Contender]:
    """The late form at the model's prediction: how strong, when, with which limit; and CFG whose difference is held."""
    asked: list[dict[str, Any]] = [
        *({"alpha": alpha} for alpha in PREDICTION_ALPHAS),
        {"alpha": 0.5, "tau": 1.4},
        {"alpha": 0.33, "start_percent": 0.35, "renew_every": 7},
        {"alpha": 0.33, "start_percent": 0.2, "renew_every": 8},
    ]
    return [
        cfg(2.0),
        *(cfg_reused(scale, 6, REPORTED, start=0.45) for scale in (1.6, 2.0)),
        *(nagpag(f"prediction: {describe(one)}", REPORTED, **{**PREDICTED, **one}) for one in asked),
    ]


def merge_round() -> list[Contender]:
    """The defaults with a part of the difference only, a shorter one over the whole picture, or another limit."""
    own: list[dict[str, Any]] = [{}, {"tau": 10.0}, {"end_percent": 0.8}]
    across: list[dict[str, Any]] = [{}, {"alpha": 0.67}]
    return [
        *(_default("", **one) for one in own),
        *(_default("nothing along the prediction", parallel, 0.0, **one) for one in across),
        _default("at most 5% of the prediction's length", bound, 0.05),
        _default("at most 10% of the prediction's length", bound, 0.1, tau=10.0),
        _default("momentum -0.5", momentum, -0.5),
    ]


def _default(what: str, variant: Callable[..., Contender] | None = None, *numbers: float, **inputs: Any) -> Contender:
    """The defaults with a variant of the merge and these inputs, under a short name."""
    values = {**PREDICTED, "alpha": 0.5, **inputs}
    words = ", ".join(filter(None, (what, describe(inputs) if inputs or not what else "")))
    if variant is None:
        return nagpag(words, REPORTED, **values)
    return replace(variant(*numbers, depths=DEPTHS, steps=REPORTED, **values), name=words)


def shaped_round() -> list[Contender]:
    """The late form with a strength that changes, a difference that fades, and renewals placed elsewhere."""
    schedules = ("linear fade-out", "cosine fade-in", "bell")
    return [
        *(nagpag(schedule, REPORTED, **LATE, schedule=schedule) for schedule in schedules),
        nagpag("linear fade-out, scale 4.5, tau 2", REPORTED, **{**LATE, **FADING}),
        *(faded(power, depths=DEPTHS, **LATE) for power in (0.5, 1.0)),
        placed((0.6,), depths=DEPTHS, steps=REPORTED, reach="output", start_percent=0.35, **STRONG),
    ]


def placement_round() -> list[Contender]:
    """Merged at the output: where in the sampling renewals pay, and what stands in between them."""
    whole: dict[str, Any] = {"reach": "output"}
    return [
        *(carried(**whole, renew_every=every) for every in (6, 12)),
        *(carried(**whole, end_percent=0.3, renew_every=every) for every in (1, 2, 4)),
        *(carried(**whole, end_percent=0.55, renew_every=every) for every in (2, 4, 8)),
        *(placed(shares, depths=DEPTHS, **whole) for shares in EARLY),
        *(faded(power, depths=DEPTHS, **whole) for power in (0.5, 1.0)),
        extrapolated(1.0, depths=DEPTHS, **whole),
    ]


def peers_round() -> list[Contender]:
    """The others, each in a few places and strengths: CFG, classic PAG, ComfyUI's own nodes, free methods."""
    return [
        *(cfg(scale) for scale in (1.5, 2.0, 3.0)),
        *(cfg_reused(scale) for scale in (1.5, 2.0)),
        *(pag(block, 0.3) for block in range(DOUBLES)),
        *(nag(*strength) for strength in ((5.0, 0.5, 1.5), (3.0, 0.25, 1.5), (2.0, 0.25, 2.5))),
        *(skip_layer(block) for block in range(DOUBLES)),
        *free_round(),
    ]


def heads_round() -> list[Contender]:
    """Each head of each double block by itself, in its attention: do heads differ?"""
    return [
        identity(reach="attention", renew_every=1, perturbation=1.0, blocks=f"{block}[{head}]")
        for block in range(DOUBLES)
        for head in range(HEADS)
    ]


def zeroed_round() -> list[Contender]:
    """CFG against zeros, which FLUX workflows often have as negative: is that as good as the empty prompt?

    The node takes zeros for none.
    """
    return [cfg(2.0)]


def calibrate_round() -> list[Contender]:
    """What NAG-PAG Calibrate tries where nobody names candidates, as it tries it: with the empty prompt as negative."""
    return [
        nagpag(f"Calibrate: alpha {alpha:g}", alpha=alpha) for alpha in map(float, CALIBRATE_ALPHAS.default.split(","))
    ]


def few_steps_round(steps: int) -> list[Contender]:
    """Where there are few steps: the prediction and the branch beside the blocks, gentler and stronger, renewed more
    often, begun earlier or later.
    """
    starts: tuple[dict[str, Any], ...] = ({}, {"start_percent": 0.2}, {"start_percent": 0.7}, STRONGER)
    asked: list[dict[str, Any]] = [
        *({"alpha": alpha} for alpha in (0.2, 0.33, 0.5)),
        {"alpha": 0.5, "renew_every": 2},
        {"alpha": 0.5, "start_percent": 0.7},
        {"alpha": 0.33, "start_percent": 0.7},
        {"alpha": 0.5, "start_percent": 0.7, "renew_every": 1},
    ]
    return [
        cfg(2.0),
        *(nagpag(f"prediction: {describe(one)}", steps, **{**PREDICTED, **one}) for one in asked),
        *(nagpag(describe(inputs), steps, **{**BESIDE, **inputs}) for inputs in starts),
        *(carried(steps=steps, renew_every=every) for every in (1, 4)),
        carried(steps=steps, reach="output"),
    ]


# --- the rounds ---


@dataclass(frozen=True)
class Round:
    """What was compared, on which models (`Subject` names), by which prompts and in how many steps."""

    contenders: Callable[[], list[Contender]]
    names: tuple[str, ...] = ("0", "1", "2")
    prompts: PromptSet = CHOOSING

    @property
    def subjects(self) -> list[Subject]:
        """Those of the models that are trained."""
        return [subject for subject in map(Subject, self.names) if subject.trained]

    @property
    def measured(self) -> list[Subject]:
        """Those of which all of its pictures are there."""
        return [subject for subject in self.subjects if made(self._by([subject]))]

    def wanted(self) -> list[Part]:
        """All its pictures, and those without guidance."""
        return self._by(self.subjects)

    def _by(self, subjects: list[Subject]) -> list[Part]:
        return parts(subjects, [plain(), *self.contenders()], self.prompts, COUNT)


WITH_STUDENT = ("0", "1", "2", "0s")
FEW = (4, 8)  # steps
COUNT = 128  # pictures of each contender by each model
ROUNDS = {
    "strength": Round(strength_round),
    "strength, distilled": Round(strength_round, ("0s",)),
    "reach": Round(reach_round),
    "late": Round(late_round),
    "late, without a negative prompt": Round(without_round),
    f"late, {REPORTED} steps": Round(many_steps_round, WITH_STUDENT, replace(CHOOSING, steps=REPORTED)),
    f"late, less strong, {REPORTED} steps": Round(gentler_round, WITH_STUDENT, replace(CHOOSING, steps=REPORTED)),
    f"late, at the prediction, {REPORTED} steps": Round(
        prediction_round, WITH_STUDENT, replace(CHOOSING, steps=REPORTED)
    ),
    f"late, other differences, {REPORTED} steps": Round(merge_round, WITH_STUDENT, replace(CHOOSING, steps=REPORTED)),
    f"late, shaped, {REPORTED} steps": Round(shaped_round, prompts=replace(CHOOSING, steps=REPORTED)),
    "placement": Round(placement_round),
    "peers": Round(peers_round),
    "peers, distilled": Round(peers_round, ("0s",)),
    "calibrate": Round(calibrate_round, WITH_STUDENT),
    "heads": Round(heads_round),
    "zeroed": Round(zeroed_round, prompts=replace(CHOOSING, zeroed=True)),
    "experiments": Round(partial(experiments, DEPTHS)),
    **{
        f"{steps} steps": Round(partial(few_steps_round, steps), WITH_STUDENT, replace(CHOOSING, steps=steps))
        for steps in FEW
    },
}
