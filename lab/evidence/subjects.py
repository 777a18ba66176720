"""The models that the evidence is made on: small FLUX in FLUX.1's proportions, their students, and the shipped one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ..toy import models, pictures, small_models, training
from . import sampling
from .domains import DRAWN, SHAPES, Domain

SHIPPED = "shipped"
WORDS = 18  # tokens of the longest caption that the models learned, with its begin and its end
GUIDANCE = 2.0  # that distilled models are told


@dataclass(frozen=True)
class Subject:
    """A trained model. name: a seed such as "0", that of a student such as "0s", or "shipped"."""

    name: str

    def __str__(self) -> str:
        if self.name == SHIPPED:
            return "the shipped model"
        drawn, seed, student = models.named(self.name)
        return " ".join([*(["student of"] if student else []), *([drawn] if drawn else []), f"seed {seed}"])

    @property
    def distilled(self) -> bool:
        return self.name != SHIPPED and models.named(self.name).student

    @property
    def domain(self) -> Domain:
        """What it draws, and who judges that."""
        return SHAPES if self.name == SHIPPED else DRAWN[models.named(self.name).drawn]

    @property
    def file(self) -> Path:
        if self.name == SHIPPED:
            return small_models.TRAINED / training.SHAPES_FILE
        return models.file_of(self.name)

    @property
    def key(self) -> str:
        """All that decides what it draws, for the names that kept pictures have."""
        if self.name == SHIPPED:
            return training.checkpoint(0).name
        told = f" guidance {GUIDANCE:g}" if self.distilled else ""
        return f"{self.file.parent.name}/{self.file.name}{told}"

    @property
    def trained(self) -> bool:
        return self.file.exists()

    def load(self) -> Any:
        """The model as the host's loader gives it."""
        return sampling.load(self.file)

    def conditioning(self, captions: list[str]) -> list:
        """A CONDITIONING with a row for each caption."""
        if self.name == SHIPPED:
            return sampling.conditioning(captions)
        return sampling.conditioning_of(_features(tuple(captions)), GUIDANCE)


def subject_of(word: str) -> Subject:
    """The trained model that a word names. Raises ValueError where it names none, or one that is not there."""
    subject = Subject(word)
    if not subject.trained:
        raise ValueError(f"{subject} is not trained yet; make lab does that, or lab/run.py models {word}")
    return subject


@lru_cache(8)  # one contender after the other asks for the same prompts
def _features(captions: tuple[str, ...]) -> Tensor:
    return pictures.embed(training.caption_ids(list(captions)), WORDS)
