"""Pictures for the evidence and their scores: each contender on the same prompts and noise; kept, so a run resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from .. import host
from ..in_host import enter_host
from ..toy import digests, shapes, small_models, training
from . import judge_cnn, judge_lessons, judge_templates, judges, sampling
from .contenders import Contender

SHIPPED = small_models.TRAINED / training.SHAPES_FILE
PART_SIZE = 128  # pictures in one file
NOISES = 4  # pictures of one prompt
MOST = 1_024  # pictures of one contender by one model


@dataclass(frozen=True)
class Subject:
    """A trained model: its seed, and whether it is the early state."""

    seed: int
    early: bool = False

    def __str__(self) -> str:
        return f"seed {self.seed}{', early' if self.early else ''}"

    @property
    def file(self) -> Path:
        made = training.checkpoint(self.seed, self.early)
        # Seed 0's late state is shipped, so that a quick look needs no training.
        return SHIPPED if self == Subject(0) and not made.exists() else made


def subject_of(word: str) -> Subject:
    """The trained model that a word names: its seed, with e behind it for the early state."""
    seed = word.removesuffix("e")
    if not seed.isdigit():
        raise SystemExit(f"{word!r} is not a model; valid is a seed such as 0, or 0e for its early state")
    subject = Subject(int(seed), word != seed)
    if not subject.file.exists():
        raise SystemExit(f"{subject} is not trained yet; make lab SEEDS={seed} does that")
    return subject


@dataclass(frozen=True)
class PromptSet:
    """A set of prompts and noise: settings are chosen on one and reported on another."""

    name: str
    seed: int

    @property
    def key(self) -> str:
        """Its part of the names that kept pictures have."""
        # Spelled out: hours of pictures are kept under it, from when the class was called so and this was its repr.
        return f"Asked(name={self.name!r}, seed={self.seed!r})"

    @cache  # noqa: B019  there are two of them
    def scenes(self) -> list[shapes.Scene]:
        return shapes.random_scenes(MOST // NOISES, torch.Generator().manual_seed(self.seed))

    def rows(self, number: int) -> tuple[list[shapes.Scene], list[int]]:
        """Scenes and noise seeds of the part of this number."""
        rows = range(number * PART_SIZE, (number + 1) * PART_SIZE)
        return [self.scenes()[row // NOISES] for row in rows], [self.seed * 1_000_000 + row for row in rows]


CHOOSING, REPORTING = PromptSet("choosing", 3_000), PromptSet("reporting", 4_000)


@dataclass(frozen=True)
class Part:
    """PART_SIZE pictures of one contender by one model, in a file of their own."""

    subject: Subject
    contender: Contender
    prompts: PromptSet
    number: int

    @property
    def file(self) -> Path:
        checkpoint = training.checkpoint(self.subject.seed, self.subject.early).name
        code = code_digest() if self.contender.settings else "host"
        key = f"{checkpoint} {sampling.STEPS} {self.contender.key} {self.prompts.key} {code}"
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        return folder() / f"{name}-{self.number}.safetensors"


class Kept(Protocol):
    """What is made once and then kept in a file."""

    @property
    def file(self) -> Path: ...


def folder() -> Path:
    """Where the pictures are kept, beside the trained models, whose folder is named by their recipe."""
    return training.checkpoint(0).parent / "pictures"


# Functions there that only say something: of blocks, and of settings that are not valid.
WORDS = ("block_name", "blocks_name", "valid_specs", "_quoted", "_name", "_what_there_is", "_why_no_item", "_problems")


def code_sources() -> list[str]:
    """What decides guided pictures beside a contender's settings: not what is said of them, nor which models exist."""
    pack = host.REPO / "nagpag"
    method = ("blocks", "guidance", "perturbation", "schedule", "settings")
    hooks = (
        *("__init__", "plan", "run", "forward", "wrappers", "renewal"),
        *("block", "attention", "branch", "copies", "merge", "negative"),
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


def make_pictures(
    wanted: Sequence[Kept], workers: int = os.cpu_count() or 1, make: Callable[[Any], None] | None = None
) -> None:
    """Make what is missing of it, side by side, with a progress bar. make: makes one; by default `make_part`."""
    missing = [part for part in wanted if not part.file.exists()]
    if not missing:
        return
    enter_host()
    importlib.import_module("...nodes.guidance", __package__)  # as it is now, for all children
    torch.set_num_threads(1)  # no thread pool of this process may be waited for by its children
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        done = pool.map(make or make_part, missing)
        for _ in tqdm(done, total=len(missing), desc="pictures", unit=f"×{PART_SIZE}", mininterval=10):
            pass


def make_part(part: Part) -> None:
    """Sample one part and write it as the bytes that a PNG would hold."""
    enter_host()
    torch.set_num_threads(1)
    model = part.contender.patch(sampling.load(part.subject.file))
    scenes, seeds = part.prompts.rows(part.number)
    size = part.contender.batch
    batches = [slice(start, start + size) for start in range(0, PART_SIZE, size)]
    pictures = [sampling.sample(model, scenes[rows], seeds[rows], part.contender.cfg) for rows in batches]
    part.file.parent.mkdir(parents=True, exist_ok=True)
    save({"pictures": (torch.cat(pictures).clamp(0, 1) * 255).round().byte()}, part.file)


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
    kept = part.file.with_name(f"{part.file.stem}-{judges_digest()}.scores")
    if not kept.exists():
        found = judges.score(pictures_of(part), part.prompts.rows(part.number)[0])
        save({name: tensor.contiguous() for name, tensor in vars(found).items()}, kept)
    return judges.Scores(**load_file(kept))


def judges_sources() -> list[str]:
    """What decides a verdict."""
    return digests.sources(judges, judge_cnn, judge_lessons, judge_templates)


@cache
def judges_digest() -> str:
    """Changes with whatever changes a verdict."""
    return digests.digest(judges_sources())
