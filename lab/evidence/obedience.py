"""Is a negative prompt obeyed? Pictures of open prompts by each contender, and how often they hold what was forbidden.

Pictures are kept in the cache, so that a run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...nagpag.measure import Measured
from .. import host
from ..in_host import enter_host
from ..make import markdown
from ..toy import open_shapes, pictures, shape_models, training
from ..toy.proportioned import SIZES
from . import open_prompts, runs, sampling
from .contenders import Contender, cfg, nag, nagpag, plain
from .gains import ratio_gain
from .open_prompts import JUDGES, KINDS, Question, Verdicts
from .runs import NOISES, PART_SIZE

DEPTHS = (SIZES.double_blocks, SIZES.single_blocks)
CHOOSING, REPORTING = 7_000, 8_000  # seeds of the questions and of their noise
GUIDANCE = 2.0  # that distilled models are told


@dataclass(frozen=True)
class Part:
    """PART_SIZE pictures of one contender by one model, in a file of their own. seed: of the questions."""

    model: Path
    contender: Contender
    seed: int
    number: int
    guidance: float = GUIDANCE

    @property
    def file(self) -> Path:
        code = runs.code_digest() if self.contender.settings else "host"
        model = f"{self.model.parent.name}/{self.model.name}"
        key = f"{model} {self.guidance} {sampling.STEPS} {self.contender.key} {self.seed} {open_shapes.digest()} {code}"
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        return host.cache_dir() / "lab-obedience" / f"{name}-{self.number}.safetensors"

    @property
    def questions(self) -> list[Question]:
        """One for each picture."""
        rows = range(self.number * PART_SIZE, (self.number + 1) * PART_SIZE)
        return [_questions(self.seed)[row // NOISES] for row in rows]

    @property
    def seeds(self) -> list[int]:
        """Of the pictures' noise."""
        return [self.seed * 1_000_000 + self.number * PART_SIZE + row for row in range(PART_SIZE)]


@cache
def _questions(seed: int) -> list[Question]:
    return open_prompts.questions(runs.MOST // NOISES, seed)


def make_part(part: Part) -> None:
    """Sample one part and keep it as the bytes that a PNG would hold."""
    enter_host()
    torch.set_num_threads(1)
    model = part.contender.patch(sampling.load(part.model))
    made = [_sample(model, part, start) for start in range(0, PART_SIZE, part.contender.batch)]
    part.file.parent.mkdir(parents=True, exist_ok=True)
    runs.save({"pictures": (torch.cat(made).clamp(0, 1) * 255).round().byte()}, part.file)


def _sample(model: Any, part: Part, start: int) -> Tensor:
    rows = slice(start, start + part.contender.batch)
    asked = part.questions[rows]
    positive, negative = (
        sampling.conditioning_of(features(tuple(texts)), part.guidance)
        for texts in ([question.prompt for question in asked], [question.negative for question in asked])
    )
    return sampling.sample_prompts(model, positive, negative, part.seeds[rows], part.contender.cfg)


@cache
def features(captions: tuple[str, ...]) -> Tensor:
    """What the text encoder of these models makes of captions, (captions, 77, 768)."""
    return pictures.embed(training.caption_ids(list(captions)), _words())


@cache
def _words() -> int:
    return pictures.words_of(open_shapes.pool().ids)


# --- what is compared ---


def carried(name: str = "", **inputs: Any) -> Contender:
    """Our branch with the sampler's negative prompt and nothing else that disturbs it."""
    inputs = {"negative_prompt": "sampler's", "perturbation": 0.0, **inputs}
    return nagpag(name, depths=DEPTHS, **inputs)


def contenders() -> list[Contender]:
    """Whom the table compares."""
    gentle = {"scale": 0.5, "tau": 1.1, "alpha": 1.0}
    return [
        *(carried(scale=scale, tau=tau, alpha=1.0) for scale, tau in ((0.5, 1.1), (1.0, 1.25), (2.0, 1.5), (4.0, 2.5))),
        *(
            carried(**gentle, reach=reach, renew_every=every)
            for reach in ("double blocks", "output")
            for every in (1, 8)
        ),
        carried(**gentle, reach="output"),
        nagpag("the node's defaults with the sampler's negative", depths=DEPTHS, negative_prompt="sampler's"),
        nag(),
        nag(2.0, 0.25, 2.5),
        cfg(2.0),
        cfg(3.0),
    ]


# --- the numbers ---


def verdicts(parts: list[Part]) -> Verdicts:
    """What the judges say of these pictures; they have to be there."""
    asked = [question for part in parts for question in part.questions]
    made = torch.cat([load_file(part.file)["pictures"].float() / 255 for part in parts])
    return open_prompts.judge(made, asked)


def change(guided: Verdicts, before: Verdicts, what: str, judge: str, kind: str = "") -> Measured:
    """Change in the share that is "held" or "right" by one judge; kind: of questions of this kind alone."""
    after, plainly = (getattr(found, what)[judge].double() for found in (guided, before))
    total = before.asked.double() if what == "right" else torch.ones(len(plainly))
    asked = torch.arange(len(plainly)) // NOISES % len(KINDS)
    rows = asked == KINDS.index(kind) if kind else asked >= 0
    return ratio_gain(after[rows], plainly[rows], total[rows], NOISES)


def table(model: Path, wanted: list[Contender], count: int, seed: int, guidance: float) -> str:
    """A row for each contender whose pictures are there; the first says how it is without guidance."""

    def found(contender: Contender) -> Verdicts:
        return verdicts([Part(model, contender, seed, number, guidance) for number in range(count // PART_SIZE)])

    before = found(plain())
    asked = int(before.asked.sum())
    rows = [
        [
            "no guidance",
            "1.00",
            *(f"{float(before.held[judge].double().mean()):.3f}" for judge in JUDGES),
            *(f"{float(before.right[judge].sum() / asked):.3f}" for judge in JUDGES),
        ]
    ]
    for contender in wanted:
        after = found(contender)
        numbers = [change(after, before, what, judge) for what in ("held", "right") for judge in JUDGES]
        rows.append([contender.name, f"{contender.passes:.2f}", *map(str, numbers)])
    return markdown.table(("", "passes", *(f"{what}, {judge}" for what in ("held", "right") for judge in JUDGES)), rows)


def main(arguments: list[str]) -> int:
    """Make the pictures of one model and say how often a negative prompt is obeyed."""
    parser = argparse.ArgumentParser(prog="obedience", description=main.__doc__)
    parser.add_argument("model", help="a seed such as 0, or 0s for its student (lab/run.py shape_models trains them)")
    parser.add_argument(
        "count", type=int, nargs="?", default=runs.MOST, choices=range(PART_SIZE, runs.MOST + 1, PART_SIZE)
    )
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="what a distilled model is told")
    parser.add_argument("--choosing", action="store_true", help="on the questions that settings are chosen on")
    asked = parser.parse_args(arguments)
    try:
        model = shape_models.file_of(asked.model)
    except ValueError as error:
        parser.error(str(error))
    if not model.exists():
        parser.error(f"{asked.model} is not trained yet: lab/run.py shape_models {asked.model}")
    seed, wanted = CHOOSING if asked.choosing else REPORTING, contenders()
    parts = [
        Part(model, contender, seed, number, asked.guidance)
        for number in range(asked.count // PART_SIZE)
        for contender in (plain(), *wanted)
    ]
    runs.make_pictures(parts, make=make_part)
    print(table(model, wanted, asked.count, seed, asked.guidance))
    return 0
