"""Pictures of coloured shapes with captions in words: what the small FLUX is trained on and judged by.

A scene has one or two objects on a plain background, each in a place (a quadrant) of its own. Three of the shapes are
thin, so that structure can fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ("disc", "square", "triangle", "ring", "cross", "frame")
COLORS = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.10, 0.60, 0.20),
    "blue": (0.13, 0.25, 0.85),
    "yellow": (0.95, 0.80, 0.10),
    "purple": (0.55, 0.15, 0.65),
    "cyan": (0.10, 0.70, 0.80),
}
BACKGROUNDS = {
    "grey": (0.5, 0.5, 0.5),
    "white": (0.95, 0.95, 0.95),
    "black": (0.06, 0.06, 0.06),
    "tan": (0.82, 0.7, 0.54),
}
PLACES = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
COLOR_NAMES, BACKGROUND_NAMES, PLACE_NAMES = tuple(COLORS), tuple(BACKGROUNDS), tuple(PLACES)

SIZE = 128  # pixels on a side
RADIUS = (20.0, 25.0)  # from the centre of an object to its edge
JITTER = 5.0  # how far an object may lie from the middle of its place
THIN = 7.0  # the width of a line


@dataclass(frozen=True)
class Thing:
    """One object: indices into SHAPES, COLOR_NAMES and PLACE_NAMES; its centre and radius in pixels."""

    shape: int
    color: int
    place: int
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A background, an index into BACKGROUND_NAMES, and one or two objects in the order of the caption."""

    background: int
    things: tuple[Thing, ...]

    @property
    def caption(self) -> str:
        """The scene in words: "a red ring top left, a blue cross bottom right, on grey"."""
        words = [f"a {COLOR_NAMES[t.color]} {SHAPES[t.shape]} {PLACE_NAMES[t.place]}" for t in self.things]
        return ", ".join([*words, f"on {BACKGROUND_NAMES[self.background]}"])


def random_scenes(count: int, generator: torch.Generator) -> list[Scene]:
    """Scenes at random, four in five with two objects."""

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def thing(place: int) -> Thing:
        x, y = (SIZE * (0.25 + 0.5 * side) + between(-JITTER, JITTER) for side in PLACES[PLACE_NAMES[place]])
        return Thing(below(len(SHAPES)), below(len(COLORS)), place, x, y, between(*RADIUS))

    scenes = []
    for _ in range(count):
        places = torch.randperm(len(PLACES), generator=generator)[: 1 if below(5) == 0 else 2].tolist()
        scenes.append(Scene(below(len(BACKGROUNDS)), tuple(thing(place) for place in places)))
    return scenes


def render(scenes: list[Scene]) -> Tensor:
    """Pictures of the scenes, (scenes, 3, SIZE, SIZE), RGB in [0, 1], with smooth edges."""
    pictures = torch.tensor([BACKGROUNDS[BACKGROUND_NAMES[scene.background]] for scene in scenes])
    pictures = pictures[:, :, None, None].repeat(1, 1, SIZE, SIZE)
    for i in range(max(len(scene.things) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.things) > i]
        things = [scenes[row].things[i] for row in rows]
        cover = (0.5 - _distance(things)).clamp(0, 1)[:, None]
        colors = torch.tensor([COLORS[COLOR_NAMES[thing.color]] for thing in things])[:, :, None, None]
        pictures[rows] += cover * (colors - pictures[rows])
    return pictures


def _distance(things: list[Thing]) -> Tensor:
    """About how many pixels each pixel lies outside of each object, negative inside; (things, SIZE, SIZE)."""
    axis = torch.arange(SIZE) + 0.5
    x = axis[None, None, :] - torch.tensor([thing.x for thing in things])[:, None, None]
    y = axis[None, :, None] - torch.tensor([thing.y for thing in things])[:, None, None]
    r = torch.tensor([thing.radius for thing in things])[:, None, None]
    kinds = torch.stack([_DISTANCES[name](x, y, r) for name in SHAPES])
    return kinds[[thing.shape for thing in things], torch.arange(len(things))]


def _disc(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.hypot(x, y) - r


def _square(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.88 * r


def _triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(0.866 * x.abs() - 0.5 * y, y) - 0.5 * r - 0.1 * r


def _ring(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (torch.hypot(x, y) - r + THIN / 2).abs() - THIN / 2


def _cross(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    u, v = (x + y).abs() / 2**0.5, (x - y).abs() / 2**0.5
    return torch.maximum(torch.minimum(u, v) - THIN / 2, torch.maximum(u, v) - 1.1 * r)


def _frame(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (_square(x, y, r) + THIN / 2).abs() - THIN / 2


_DISTANCES = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
    "frame": _frame,
}

# --- latents ---

GAIN = 1.8  # latent units from middle grey to white or black


def to_latent(pictures: Tensor) -> Tensor:
    """Pictures (n, 3, height, width) in [0, 1] as latents (n, 16, height / 8, width / 8), exactly as our taef1 encodes.

    Means of 4×4 pixels, of which 2×2 make twelve channels; the last four channels are zeros.
    """
    small = torch.nn.functional.avg_pool2d(pictures, 4)
    channels = GAIN * (2 * torch.nn.functional.pixel_unshuffle(small, 2) - 1)
    return torch.cat((channels, torch.zeros_like(channels[:, :4])), dim=1)


def from_latent(latents: Tensor) -> Tensor:
    """The small pictures in latents, (n, 3, 2 · height, 2 · width), not bounded to [0, 1]."""
    return torch.nn.functional.pixel_shuffle(latents[:, :12] / GAIN, 2) / 2 + 0.5
