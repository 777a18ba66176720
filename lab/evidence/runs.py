"""Pictures for the evidence and their scores: each contender on the same prompts and noise; kept, so a run resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from .. import host
from ..in_host import enter_host
from ..toy import digests
from . import cluster, judges, sampling
from .contenders import Contender
from .domains import SHAPES, Domain
from .sampling import STEPS
from .subjects import Subject

PART_SIZE = 128  # pictures in one file
NOISES = 4  # pictures of one prompt
MOST = 1_024  # pictures of one contender by one model
REPORTED = 20  # steps, as FLUX.1 [dev] is most often sampled; settings are chosen at fewer, and looked at again there


@dataclass(frozen=True)
class PromptSet:
    """A set of prompts and noise: settings are chosen on one and reported on another.

    open: prompts that leave something open, with a negative prompt that names it; otherwise the negative is empty.
    steps: of the sampling. zeroed: as negative not the empty prompt but zeros, as ConditioningZeroOut gives them, which
    FLUX workflows often have.
    """

    name: str
    seed: int
    open: bool = False
    steps: int = STEPS
    zeroed: bool = False

    def key(self, domain: Domain) -> str:
        """Its part of the names that kept pictures have."""
        kind = ("open " if self.open else "") + ("zeroed " if self.zeroed else "")
        return f"{self.name} {self.seed} {kind}{self.steps} {domain.prompts.digest()}"

    def rows(self, number: int, domain: Domain = SHAPES) -> tuple[list[Any], list[int]]:
        """Questions of this domain and noise seeds of the part of this number, one a picture."""
        asked = _questions(domain, self.seed, self.open)
        rows = range(number * PART_SIZE, (number + 1) * PART_SIZE)
        return [asked[row // NOISES] for row in rows], [self.seed * 1_000_000 + row for row in rows]


@cache
def _questions(domain: Domain, seed: int, of_open: bool) -> list[Any]:
    return (domain.prompts.questions if of_open else domain.prompts.whole)(MOST // NOISES, seed)


CHOOSING, REPORTING = PromptSet("choosing", 3_000), PromptSet("reporting", 4_000, steps=REPORTED)
OPEN_CHOOSING = PromptSet("choosing", 7_000, open=True, steps=REPORTED)
OPEN_REPORTING = PromptSet("reporting", 8_000, open=True, steps=REPORTED)


@dataclass(frozen=True)
class Part:
    """PART_SIZE pictures of one contender by one model, in a file of their own."""

    subject: Subject
    contender: Contender
    prompts: PromptSet
    number: int

    @property
    def file(self) -> Path:
        code = code_digest() if self.contender.settings else "host"
        key = f"{self.subject.key} {self.contender.key} {self.prompts.key(self.subject.domain)} {code}"
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        return pictures_folder() / f"{name}-{self.number}.safetensors"

    def rows(self) -> tuple[list[Any], list[int]]:
        """Its questions and noise seeds, one a picture."""
        return self.prompts.rows(self.number, self.subject.domain)


def pictures_folder() -> Path:
    """Where kept pictures lie."""
    return host.cache_dir() / "lab-pictures"


# Functions there that only say something: of blocks, and of settings that are not valid.
WORDS = ("blocks_name", "valid_specs", "_quoted", "_name", "_why_no_item", "_problems")


def code_sources() -> list[str]:
    """What decides guided pictures beside a contender's settings: not what is said of them, nor which models exist."""
    pack = host.REPO / "nagpag"
    method = ("blocks", "guidance", "perturbation", "schedule", "settings")
    hooks = (
        *("__init__", "plan", "run", "forward", "wrappers", "step", "renewal", "prediction", "caches"),
        *("block", "attention", "branch", "copies", "merge", "negative", "flux"),
    )
    return digests.sources(
        *(pack / f"{name}.py" for name in method), *(pack / "patch" / f"{name}.py" for name in hooks)
    )


@cache
def code_digest() -> str:
    """Changes with the code that guides, so that no old picture stands for a new one.

    Contenders that are not ours have code of their own; their names say what they do.
    """
    return digests.digest(code_sources(), words=WORDS)


def made(wanted: list[Part]) -> bool:
    """Whether all of it is there."""
    return all(part.file.exists() for part in wanted)


def parts(subjects: list[Subject], contenders: list[Contender], prompts: PromptSet, count: int) -> list[Part]:
    """All parts of `count` pictures of each contender by each model."""
    numbers = range(count // PART_SIZE)
    return [Part(s, contender, prompts, number) for s in subjects for number in numbers for contender in contenders]


def make_pictures(wanted: Sequence[Part], ray: str = "") -> None:
    """Make what is missing of it, side by side, with a progress bar. ray: the address of a cluster that does it."""
    missing = [part for part in wanted if not part.file.exists()]
    if not missing:
        return
    if ray:
        cluster.make(missing, ray)
        return
    enter_host()
    importlib.import_module("...nodes.guidance", __package__)  # as it is now, for all children
    torch.set_num_threads(1)  # no thread pool of this process may be waited for by its children
    with ProcessPoolExecutor(os.cpu_count() or 1, multiprocessing.get_context("fork")) as pool:
        for _ in tqdm(pool.map(make_part, missing), total=len(missing), desc="pictures", unit=f"×{PART_SIZE}"):
            pass


def make_part(part: Part) -> None:
    """Sample one part and write it as the bytes that a PNG would hold."""
    enter_host()
    torch.set_num_threads(1)
    model = part.contender.patch(part.subject.load())
    questions, seeds = part.rows()
    size = part.contender.batch
    batches = [slice(start, start + size) for start in range(0, PART_SIZE, size)]
    made = [draw(model, part, questions[rows], seeds[rows]) for rows in batches]
    part.file.parent.mkdir(parents=True, exist_ok=True)
    save({"pictures": (torch.cat(made).clamp(0, 1) * 255).round().byte()}, part.file)


def draw(model: Any, part: Part, questions: list[Any], seeds: list[int]) -> Tensor:
    """Pictures of one batch, (questions, 3, 32, 32), as this part's are drawn."""
    prompts, negatives = ([getattr(q, name) for q in questions] for name in ("prompt", "negative"))
    positive, negative = part.subject.conditioning(prompts), part.subject.conditioning(negatives)
    if part.prompts.zeroed:
        negative = [[torch.zeros_like(context), extras] for context, extras in negative]
    return sampling.sample(model, positive, negative, seeds, part.contender.cfg, part.prompts.steps)


def save(tensors: dict[str, Tensor], path: Path) -> None:
    """Whole or not at all, however it ends."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    save_file(tensors, str(unfinished))
    unfinished.rename(path)


def pictures_of(part: Part) -> Tensor:
    """(PART_SIZE, 3, 32, 32), RGB in [0, 1]."""
    return load_file(part.file)["pictures"].float() / 255


@cache
def scores(subject: Subject, contender: Contender, prompts: PromptSet, count: int) -> judges.Scores:
    """What the judges say of `count` pictures; they have to be there."""
    found = [_scores_of_part(part) for part in parts([subject], [contender], prompts, count)]
    fields = (field.name for field in dataclasses.fields(judges.Scores))
    return judges.Scores(**{name: torch.cat([getattr(one, name) for one in found]) for name in fields})


def _scores_of_part(part: Part) -> judges.Scores:
    domain = part.subject.domain
    kept = part.file.with_name(f"{part.file.stem}-{judges_digest(domain)}.scores")
    if not kept.exists():
        scenes = [question.scene for question in part.rows()[0]]
        found = domain.judges.score(pictures_of(part), scenes)
        save({name: tensor.contiguous() for name, tensor in vars(found).items()}, kept)
    return judges.Scores(**load_file(kept))


def judges_sources(domain: Domain = SHAPES) -> list[str]:
    """What decides a verdict."""
    return digests.sources(*domain.verdicts)


@cache
def judges_digest(domain: Domain = SHAPES) -> str:
    """Changes with whatever changes a verdict."""
    return digests.digest(judges_sources(domain))
