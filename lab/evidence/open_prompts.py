"""Prompts that leave something open and a negative prompt that names it: what was forbidden, what was asked for.

Both judges say what each place of a picture shows. Held is what was forbidden and is drawn all the same; right is what
was asked for and is drawn.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..toy import digests, open_shapes, shapes
from ..toy.open_shapes import EVERYTHING, Told
from ..toy.shapes import COLOR_NAMES, PLACE_NAMES, SHAPES, Scene
from . import judge_cnn, judge_templates, judges
from .judge_lessons import BROKEN, quadrants_of

KINDS = ("colour", "shape", "place")
NAMES = {"colour": COLOR_NAMES, "shape": SHAPES, "place": PLACE_NAMES}
NOTHING = "nothing"  # is open, and the negative prompt is empty
JUDGES = ("cnn", "template")


@dataclass(frozen=True)
class Question:
    """A scene whose first object has a part that the prompt leaves open, and the value of it that is forbidden.

    kind: one of KINDS, the open part, or NOTHING. forbidden: an index into NAMES[kind].
    """

    scene: Scene
    kind: str
    forbidden: int = 0

    @property
    def told(self) -> Told:
        first = tuple(kind != self.kind for kind in KINDS)
        return Told((first, *(EVERYTHING for _ in self.scene.things[1:])), background=True)  # type: ignore[arg-type]

    @property
    def prompt(self) -> str:
        return open_shapes.caption(self.scene, self.told)

    @property
    def negative(self) -> str:
        if self.kind == NOTHING:
            return ""
        told = {self.kind.replace("colour", "color"): NAMES[self.kind][self.forbidden]}
        return open_shapes.in_words(**told)


@cache
def digest() -> str:
    """Changes with what is asked; what judges is no part of it."""
    asked = [inspect.getsource(part) for part in (Question, questions, whole)]
    return digests.digest(asked, open_shapes.digest())


def questions(count: int, seed: int) -> list[Question]:
    """Questions of each kind in turn; where a place is open, of one object."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i, scene in enumerate(shapes.random_scenes(count, generator)):
        kind = KINDS[i % len(KINDS)]
        forbidden = int(torch.randint(len(NAMES[kind]), (), generator=generator))
        things = scene.things[:1] if kind == "place" else scene.things
        found.append(Question(Scene(scene.background, things), kind, forbidden))
    return found


def whole(count: int, seed: int) -> list[Question]:
    """Questions that leave nothing open."""
    return [Question(scene, NOTHING) for scene in shapes.random_scenes(count, torch.Generator().manual_seed(seed))]


# --- what the judges say ---


@dataclass(frozen=True)
class Verdicts:
    """One row a picture. asked: how many objects. right, held: by each judge, how many of these, and 0 or 1."""

    asked: Tensor
    right: dict[str, Tensor]
    held: dict[str, Tensor]


def judge(pictures: Tensor, asked: list[Question]) -> Verdicts:
    """Judge small pictures (n, 3, 32, 32) by the questions that they answer."""
    right, held = {}, {}
    for name, found in shown(pictures).items():
        pairs = list(zip(found.tolist(), asked, strict=True))
        right[name] = torch.tensor([_right(places, question) for places, question in pairs])
        held[name] = torch.tensor([_held(places, question) for places, question in pairs]).long()
    return Verdicts(torch.tensor([len(question.scene.things) for question in asked]), right, held)


@torch.no_grad()
def shown(pictures: Tensor) -> dict[str, Tensor]:
    """Shape and colour in each place by each judge, (n, 4, 2), as judge_lessons counts them; not whole is BROKEN."""
    pictures, cnn = pictures.clamp(0, 1), judge_cnn.load()
    features = judges.features_of(pictures).unflatten(1, (4, -1))
    fit = judge_templates.fit(quadrants_of(pictures).flatten(0, 1))
    fitted = torch.stack((torch.where(fit.whole, fit.shape, BROKEN), fit.color), 1).unflatten(0, (-1, 4))
    return {"cnn": torch.stack((cnn.shape(features).argmax(2), cnn.color(features).argmax(2)), 2), "template": fitted}


Places = list[list[int]]  # of one picture: shape and colour in each place


def _right(places: Places, question: Question) -> int:
    """How many of the objects are there, as far as they are told; where no place is told, in any."""
    right = 0
    for thing, (color, shape, place) in zip(question.scene.things, question.told.things, strict=True):
        where = [places[thing.place]] if place else places
        right += any(
            (found[0] == thing.shape if shape else found[0] < len(SHAPES))
            and (found[1] == thing.color if color else found[1] < len(COLOR_NAMES))
            for found in where
        )
    return right


def _held(places: Places, question: Question) -> bool:
    """Whether the first object has what is forbidden."""
    if question.kind == NOTHING:
        return False
    if question.kind == "place":
        return places[question.forbidden][0] < len(SHAPES)
    shape, color = places[question.scene.things[0].place]
    return (color if question.kind == "colour" else shape) == question.forbidden
