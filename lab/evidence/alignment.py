"""Alignment: does guidance point from what a model predicts to what is true? Beside it, what the judges say.

What is measured is kept in the cache, so that a run resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ...nagpag.measure import Measured
from .. import host
from ..toy import shapes
from . import gains, runs, sampling
from .contenders import DOUBLES, Contender, cfg, nagpag, plain
from .runs import CHOOSING, PART_SIZE, Subject
from .signals import align, mean, together

PICTURES, SCENES, NOISE = 32, 5_000, 6_000  # how many held-out renders, and the seeds of their scenes and noise
SIGMAS = (0.9, 0.7, 0.4)  # of alignment
# The judges' gains are those of rounds.blocks_round. Its branches to the output are renewed every 4th step; here
# every prediction is by itself, so that all are renewed at each.
STRENGTHS: dict[str, dict[str, Any]] = {
    "attention": {"scale": 3.0, "tau": 1.5, "alpha": 0.1, "perturbation": 1.0},
    "output": {"scale": 3.0, "tau": 1.5, "alpha": 0.05, "perturbation": 1.0},
}
JUDGED_RENEWAL = {"attention": 1, "output": 4}
# What is looked at, with what it is; more should be better.
SIGNALS = {
    "cosine": "cosine between guidance and residual",
    "weight": "best weight of guidance",
    "closer": "share of the residual's square taken away",
}


class Setting(NamedTuple):
    """One way to guide: a reach of the node's and a double block, or CFG 2."""

    reach: str
    block: int = -1

    def __str__(self) -> str:
        return self.reach if self.block < 0 else f"{self.reach}, block {self.block}"

    def contender(self, renew_every: int) -> Contender:
        if self == CFG:
            return cfg(2.0)
        return nagpag(blocks=str(self.block), reach=self.reach, renew_every=renew_every, **STRENGTHS[self.reach])

    @property
    def key(self) -> str:
        """All that decides what is measured of it."""
        return self.contender(renew_every=1).key

    @property
    def judged(self) -> Contender:
        """As it was judged."""
        return self.contender(JUDGED_RENEWAL.get(self.reach, 1))


CFG = Setting("CFG 2")
Numbers = dict[Setting, dict[str, Measured]]  # what was measured of one model


def settings() -> list[Setting]:
    """Each double block in its attention and as the start of a branch to the output; CFG."""
    return [*(Setting(reach, block) for reach in STRENGTHS for block in range(DOUBLES)), CFG]


# --- pictures and the model ---


class Rig:
    """A trained model in the host, held-out renders with their captions, and what the plain model makes of them.

    In float32: guidance this weak is not much larger than the rounding of bfloat16, which direction and residual share.
    """

    def __init__(self, path: Path, pictures: int = PICTURES):
        self.model = sampling.load(path, torch.float32)
        self.scenes = shapes.random_scenes(pictures, torch.Generator().manual_seed(SCENES))
        self.renders = shapes.to_latent(shapes.render(self.scenes))
        self.noise = torch.randn(self.renders.shape, generator=torch.Generator().manual_seed(NOISE))
        self.captions = sampling.conditioning([scene.caption for scene in self.scenes])

    @cached_property
    def plain_prediction(self) -> Tensor:
        return self.predict(plain(), self.renders, self.captions, SIGMAS)[0]

    def predict(
        self, contender: Contender, latents: Tensor, captions: list, sigmas: tuple[float, ...]
    ) -> tuple[Tensor, Tensor]:
        """x̂₀ at each sigma, and x₀, under this guidance; latents as the model knows them."""
        from ...nagpag.calibration.probe import predict

        # The host takes latents as a VAE gives them.
        given = self.model.model.latent_format.process_out(latents)
        empty = sampling.conditioning([""])
        model = contender.patch(self.model)
        return predict(model, captions, given, self.noise, torch.tensor(sigmas), contender.cfg, empty)


# --- signals and gains ---


def alignment(rig: Rig, contender: Contender) -> dict[str, Measured]:
    """Does guidance point to the truth? Over all sigmas."""
    guided, truth = rig.predict(contender, rig.renders, rig.captions, SIGMAS)
    pairs = zip(guided, rig.plain_prediction, strict=True)
    found = together([align(one - other, truth - other) for one, other in pairs])
    return {"cosine": mean(found.cosines), "weight": found.weight, "closer": mean(found.closer)}


def measure(path: Path, wanted: list[Setting]) -> Numbers:
    """Alignment of these settings by the model in this file; what is kept is not measured again."""
    kept = _kept(path)
    found: dict[str, dict] = json.loads(kept.read_text()) if kept.exists() else {}
    missing = [setting for setting in wanted if setting.key not in found]
    rig = Rig(path) if missing else None
    for setting in tqdm(missing, desc=f"{path.stem}, alignment", unit="setting"):
        assert rig is not None
        numbers = alignment(rig, setting.contender(renew_every=1))
        found[setting.key] = {name: asdict(measured) for name, measured in numbers.items()}
        _write(kept, json.dumps(found))
    return {s: {name: Measured(**numbers) for name, numbers in found[s.key].items()} for s in wanted}


def _write(path: Path, text: str) -> None:
    """Whole or not at all, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text)
    unfinished.rename(path)


def _kept(path: Path) -> Path:
    """Changes with the model's recipe and whatever else is measured."""
    key = repr((path.parent.name, PICTURES, SCENES, NOISE, SIGMAS))
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return host.cache_dir() / f"calibration-{digest}" / f"{path.stem}-alignment.json"


def judged_gains(subject: Subject, wanted: list[Setting]) -> dict[Setting, Measured]:
    """What the judges say of those settings whose pictures are in the cache; none are sampled."""
    found = {setting: gains.gain_if_made([subject], setting.judged, CHOOSING, PART_SIZE) for setting in wanted}
    return {setting: gain for setting, gain in found.items() if gain is not None}


def half_gains(subject: Subject, judged: list[Setting]) -> tuple[dict[Setting, float], dict[Setting, float]]:
    """The gains on the first and on the second half of the prompts: how far do gains agree with themselves?"""
    halves: tuple[dict[Setting, float], dict[Setting, float]] = ({}, {})
    before = runs.scores(subject, plain(), CHOOSING, PART_SIZE)
    for setting in judged:
        after = runs.scores(subject, setting.judged, CHOOSING, PART_SIZE)
        change = (after.cnn_right + after.template_right - before.cnn_right - before.template_right).double() / 2
        for half, rows in zip(halves, (slice(0, PART_SIZE // 2), slice(PART_SIZE // 2, PART_SIZE)), strict=True):
            half[setting] = float(change[rows].sum() / before.objects[rows].sum())
    return halves


class Model(NamedTuple):
    """One model's signals, the judges' gains of its settings, and these on two halves of the prompts."""

    name: str
    numbers: Numbers
    gains: dict[Setting, Measured]
    halves: tuple[dict[Setting, float], dict[Setting, float]]

    def signal(self, name: str) -> dict[Setting, float]:
        return {setting: numbers[name].value for setting, numbers in self.numbers.items() if setting != CFG}

    def first_choice(self, name: str) -> Setting:
        """The judged setting that this signal puts first."""
        values = self.signal(name)
        return max(self.judged(), key=values.__getitem__)

    def judged(self, reach: str = "") -> dict[Setting, float]:
        """Gains of the node's own settings, of one reach or of both; CFG would be a far point that all agree on."""
        kept = {s: gain.value for s, gain in self.gains.items() if s != CFG}
        return {s: value for s, value in kept.items() if reach in ("", s.reach)}


def model(subject: Subject, numbers: Numbers) -> Model:
    """Signals and gains together."""
    judged = judged_gains(subject, settings())
    halves = half_gains(subject, list(judged)) if judged else ({}, {})
    return Model(str(subject), numbers, judged, halves)
