"""Prompts of emoji that leave something open and a negative prompt that names it; as `open_prompts`, which see.

All are of combinations that no model was trained on.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..toy import digests, emoji, emoji_pool
from ..toy.emoji import PARTS, Scene
from . import emoji_judges
from .open_prompts import NOTHING, Verdicts

__all__ = ["KINDS", "Question", "Verdicts", "digest", "judge", "questions", "whole"]

KINDS = ("concept", "vendor", "place", "ground")


@dataclass(frozen=True)
class Question:
    """A scene, of which the prompt leaves a part open, and the value of it that is forbidden.

    kind: one of KINDS, the open part, or NOTHING. forbidden: an index into PARTS[kind].
    """

    scene: Scene
    kind: str
    forbidden: int = 0

    @property
    def prompt(self) -> str:
        return self.scene.caption

    @property
    def negative(self) -> str:
        """ "an animal, on blue": the kind and what is forbidden, as a caption tells the fewest; or "a fox" alone."""
        if self.kind == NOTHING:
            return ""
        return dataclasses.replace(self.scene, told=(self.kind,), **{self.kind: self.forbidden}).caption


@cache
def digest() -> str:
    """Changes with what is asked; what judges is no part of it."""
    asked = [inspect.getsource(part) for part in (Question, questions, whole)]
    return digests.digest(asked, emoji_pool.digest())


def questions(count: int, seed: int) -> list[Question]:
    """Questions of each kind in turn. A concept is forbidden of the kind that the prompt names."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i, scene in enumerate(emoji.random_scenes(count, generator, new=True)):
        kind = KINDS[i % len(KINDS)]
        values = list(range(len(PARTS[kind])))
        if kind == "concept":
            values = [one for one in values if emoji.KIND_OF[one] == emoji.KIND_OF[scene.concept]]
        forbidden = values[int(torch.randint(len(values), (), generator=generator))]
        told = tuple(part for part in PARTS if part != kind)
        found.append(Question(dataclasses.replace(scene, told=told), kind, forbidden))
    return found


def whole(count: int, seed: int) -> list[Question]:
    """Questions that leave nothing open."""
    scenes = emoji.random_scenes(count, torch.Generator().manual_seed(seed), new=True, left_out=0)
    return [Question(scene, NOTHING) for scene in scenes]


def judge(pictures: Tensor, asked: list[Question]) -> Verdicts:
    """Judge small pictures (n, 3, 32, 32) by the questions that they answer."""
    scenes = [question.scene for question in asked]
    seen = emoji_judges.read(pictures)
    right = {name: emoji_judges.right(parts, scenes).long() for name, parts in seen.items()}
    held = {name: _held(parts, asked) for name, parts in seen.items()}
    return Verdicts(torch.ones(len(asked), dtype=torch.long), right, held)


def _held(seen: dict[str, Tensor], asked: list[Question]) -> Tensor:
    """Whether each picture shows what is forbidden, (n,), 0 or 1."""
    rows = enumerate(asked)
    return torch.tensor([q.kind != NOTHING and int(seen[q.kind][row]) == q.forbidden for row, q in rows]).long()
