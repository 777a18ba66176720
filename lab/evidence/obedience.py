"""Is a negative prompt obeyed? Pictures of open prompts by each contender, and how often they hold what was forbidden.

Pictures are kept in the cache, so that a run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
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
    """PART_SIZE pictures of one contender by one model, in a file of their own.

    seed: of the questions. guidance: what a distilled model is told. whole: prompts that leave nothing open, and the
    empty negative prompt.
    """

    model: Path
    contender: Contender
    seed: int
    number: int
    guidance: float = GUIDANCE
    whole: bool = False

    @property
    def file(self) -> Path:
        code = runs.code_digest() if self.contender.settings else "host"
        model = f"{self.model.parent.name}/{self.model.name}"
        asked = f"{self.seed} {'whole ' if self.whole else ''}{open_shapes.digest()}"
        key = f"{model} {self.guidance} {sampling.STEPS} {self.contender.key} {asked} {code}"
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        return host.cache_dir() / "lab-obedience" / f"{name}-{self.number}.safetensors"

    @property
    def questions(self) -> list[Question]:
        """One for each picture."""
        rows = range(self.number * PART_SIZE, (self.number + 1) * PART_SIZE)
        return [_questions(self.seed, self.whole)[row // NOISES] for row in rows]

    @property
    def seeds(self) -> list[int]:
        """Of the pictures' noise."""
        return [self.seed * 1_000_000 + self.number * PART_SIZE + row for row in range(PART_SIZE)]


@cache
def _questions(seed: int, whole: bool) -> list[Question]:
    return (open_prompts.whole if whole else open_prompts.questions)(runs.MOST // NOISES, seed)


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


@lru_cache(8)  # one contender after the other asks for the same prompts
def features(captions: tuple[str, ...]) -> Tensor:
    """What the text encoder of these models makes of captions, (captions, 77, 768)."""
    return pictures.embed(training.caption_ids(list(captions)), _words())


@cache
def _words() -> int:
    return pictures.words_of(open_shapes.pool().ids)


# --- what is compared ---


GENTLE: dict[str, Any] = {"scale": 0.5, "tau": 1.1, "alpha": 1.0}


def carried(name: str = "", **inputs: Any) -> Contender:
    """Our branch with the sampler's negative prompt and nothing else that disturbs it."""
    inputs = {"negative_prompt": "sampler's", "perturbation": 0.0, **inputs}
    return nagpag(name, depths=DEPTHS, **inputs)


def contenders() -> list[Contender]:
    """Whom the table compares."""
    strengths = ((0.5, 1.1), (1.0, 1.25), (2.0, 1.5), (4.0, 2.5))
    return [
        *(carried(scale=scale, tau=tau, alpha=1.0) for scale, tau in strengths),
        *(carried(**GENTLE, renew_every=every) for every in (1, 8)),
        *(carried(**GENTLE, reach="output", renew_every=every) for every in (1, 4)),
        nagpag("the node's defaults with the sampler's negative", depths=DEPTHS, negative_prompt="sampler's"),
        nag(),
        nag(2.0, 0.25, 2.5),
        cfg(2.0),
        cfg(3.0),
    ]


def guiding() -> list[Contender]:
    """Whom the table compares where prompts leave nothing open."""
    return [
        nagpag("the node's defaults", depths=DEPTHS),
        nagpag("the node's defaults with the empty negative", depths=DEPTHS, negative_prompt="sampler's"),
        carried(**GENTLE),
        cfg(2.0),
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


def parts(model: Path, contender: Contender, asked: argparse.Namespace) -> list[Part]:
    """All pictures of one contender. asked: the command line's count, choosing, guidance and whole."""
    seed = CHOOSING if asked.choosing else REPORTING
    numbers = range(asked.count // PART_SIZE)
    return [Part(model, contender, seed, number, asked.guidance, asked.whole) for number in numbers]


def table(model: Path, wanted: list[Contender], asked: argparse.Namespace) -> str:
    """A row for each contender; the first says how it is without guidance, the others what they change."""
    shares = [(what, judge) for what in (("right",) if asked.whole else ("held", "right")) for judge in JUDGES]
    before = verdicts(parts(model, plain(), asked))
    rows = [["no guidance", "1.00", *(f"{share(before, what, judge):.3f}" for what, judge in shares)]]
    for contender in wanted:
        after = verdicts(parts(model, contender, asked))
        changes = (str(change(after, before, what, judge)) for what, judge in shares)
        rows.append([contender.name, f"{contender.passes:.2f}", *changes])
    return markdown.table(("", "passes", *(f"{what}, {judge}" for what, judge in shares)), rows)


def share(found: Verdicts, what: str, judge: str) -> float:
    """Of the pictures those that hold what is forbidden, or of the objects those that are right."""
    values = getattr(found, what)[judge]
    return float(values.sum() / (found.asked.sum() if what == "right" else len(values)))


def main(arguments: list[str]) -> int:
    """Make the pictures of one model and say how often a negative prompt is obeyed, or what guidance gains."""
    parser = argparse.ArgumentParser(prog="obedience", description=main.__doc__)
    of_model = "a seed such as 0, or 0s for its student (lab/run.py shape_models trains them); or a checkpoint's file"
    parser.add_argument("model", help=of_model)
    parser.add_argument(
        "count", type=int, nargs="?", default=runs.MOST, choices=range(PART_SIZE, runs.MOST + 1, PART_SIZE)
    )
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="what a distilled model is told")
    parser.add_argument("--whole", action="store_true", help="ask prompts that leave nothing open")
    parser.add_argument("--choosing", action="store_true", help="on the questions that settings are chosen on")
    asked = parser.parse_args(arguments)
    try:
        model = Path(asked.model) if asked.model.endswith(".safetensors") else shape_models.file_of(asked.model)
    except ValueError as error:
        parser.error(str(error))
    if not model.exists():
        parser.error(f"{asked.model} is not there; lab/run.py shape_models trains seeds and their students")
    wanted = guiding() if asked.whole else contenders()
    every = [part for contender in (plain(), *wanted) for part in parts(model, contender, asked)]
    runs.make_pictures(every, make=make_part)
    print(table(model, wanted, asked))
    return 0
