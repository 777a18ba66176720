"""What the CNN judge learns from: quadrants of renders, and of renders spoilt as generated pictures fail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..toy import shapes

SIDE = 16  # of a quadrant, in small pixels: means of 4×4 pixels of the picture
NO_SHAPE, BROKEN = len(shapes.SHAPES), len(shapes.SHAPES) + 1
NO_COLOR = len(shapes.COLORS)  # nothing there, or not one colour of the palette
NOT_ASKED = -100  # cross_entropy leaves it out

# A spoilt cover is still its shape above a squared correlation with what it was, and broken below another. A bent one
# is whole and broken by how far it was moved, in small pixels: an eye forgives a wavy line sooner than a gap. Found by
# looking at what half-trained models draw. What lies between is not taught.
WHOLE, BROKEN_BELOW = 0.96, 0.88
STRAIGHT, BENT = 0.45, 0.95

_COLORS = torch.tensor(list(shapes.COLORS.values()))
_BACKGROUNDS = torch.tensor(list(shapes.BACKGROUNDS.values()))


def quadrants_of(pictures: Tensor) -> Tensor:
    """Small pictures (n, channels, 32, 32) as quadrants (n, 4, channels, SIDE, SIDE), in the order of shapes.PLACES."""
    parts = pictures.unflatten(3, (2, SIDE)).unflatten(2, (2, SIDE))
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def covers(things: list[shapes.Thing]) -> Tensor:
    """How much of each small pixel of its quadrant each thing covers, (things, SIDE, SIDE) in [0, 1]."""
    parts = [things[i : i + 64] for i in range(0, len(things), 64)]
    return torch.cat([_covers(part) for part in parts])


def _covers(things: list[shapes.Thing]) -> Tensor:
    black = shapes.BACKGROUND_NAMES.index("black")
    pictures = shapes.render([shapes.Scene(black, (thing,)) for thing in things])
    small = quadrants_of(functional.avg_pool2d(pictures, 4))[range(len(things)), [thing.place for thing in things]]
    span = _COLORS[[thing.color for thing in things]] - _BACKGROUNDS[black]
    return (small.sum(1) - _BACKGROUNDS[black].sum()) / span.sum(1)[:, None, None]


@dataclass(frozen=True)
class Lessons:
    """Batches of quadrants with what is there, from things and one generator."""

    covers: Tensor
    shape: Tensor
    geometry: Tensor
    generator: torch.Generator

    @classmethod
    def of(cls, scenes: int, seed: int) -> Lessons:
        generator = torch.Generator().manual_seed(seed)
        things = [thing for scene in shapes.random_scenes(scenes, generator) for thing in scene.things]
        geometry = torch.tensor([_geometry(thing) for thing in things])
        return cls(covers(things), torch.tensor([thing.shape for thing in things]), geometry, generator)

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=self.generator)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator)

    def smooth(self, n: int, channels: int = 1) -> Tensor:
        """Fields that vary over about a quarter of the quadrant, (n, channels, SIDE, SIDE), of about unit variance."""
        return 1.5 * functional.interpolate(self.normal(n, channels, 5, 5), (SIDE, SIDE), mode="bicubic")

    def half(self, n: int, width: float = 4.0) -> Tensor:
        """Half planes with a soft edge not far from the middle, (n, SIDE, SIDE) in [0, 1]."""
        angle, offset = self.uniform(n, 1, 1, high=6.2832), self.uniform(n, 1, 1, low=-width, high=width)
        axis = torch.arange(SIDE) - (SIDE - 1) / 2
        return (2 * (axis * angle.cos() + axis[:, None] * angle.sin() - offset)).sigmoid()

    def batch(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Quadrants (n, 3, SIDE, SIDE) and what each head should say of them; NOT_ASKED where that is in doubt."""
        rows = torch.randint(len(self.covers), (2 * n,), generator=self.generator)
        clean, other = self.stretch(self.covers[rows]).split(n)
        # Of ten, one shows nothing, four a shape as it is, two a bent one, three a spoilt one.
        kind = torch.randint(10, (n,), generator=self.generator)
        empty, bent, spoilt = kind == 0, (kind == 5) | (kind == 6), kind > 6
        pixels = self.uniform(n, high=2.0) * bent
        cover = torch.where(spoilt[:, None, None], self.spoil(clean, other), self.bend(clean, pixels[:, None, None]))
        own = torch.where(spoilt, alike(cover, clean), 1.0)
        nearest = torch.where(spoilt, torch.maximum(own, alike(cover, other)), 1.0)
        shape = torch.where((own > WHOLE) & (pixels < STRAIGHT), self.shape[rows[:n]], NOT_ASKED)
        shape[(nearest < BROKEN_BELOW) | (pixels > BENT)] = BROKEN
        shape[empty] = NO_SHAPE
        pictures, color, background = self.paint(cover * ~empty[:, None, None])
        color[empty] = NO_COLOR
        truth = {"shape": shape, "color": color, "background": background, "geometry": self.geometry[rows[:n]]}
        return self.disturb(pictures), truth

    def stretch(self, cover: Tensor) -> Tensor:
        """A little larger or smaller, wider or higher, and turned by up to 5°: still the shape that it was."""
        n = len(cover)
        turn = self.uniform(n, low=-0.09, high=0.09)
        size, aspect = self.uniform(n, low=0.9, high=1.12), self.uniform(n, low=0.93, high=1.07)
        rows = [torch.stack((turn.cos() * aspect, -turn.sin()), 1), torch.stack((turn.sin(), turn.cos() / aspect), 1)]
        matrix = torch.stack(rows, 1) * size[:, None, None]
        theta = torch.cat((matrix, torch.zeros(n, 2, 1)), 2)
        grid = functional.affine_grid(theta, [n, 1, SIDE, SIDE], align_corners=False)
        return functional.grid_sample(cover[:, None], grid, mode="bicubic", align_corners=False)[:, 0].clamp(0, 1)

    def spoil(self, clean: Tensor, other: Tensor) -> Tensor:
        """Covers with a part missing, two shapes in one, a part filled or faded; each by chance strong or weak."""
        n, half = len(clean), self.half(len(clean))
        disc = ((self.smooth(n)[:, 0] - 0.8) * 4).sigmoid()
        bar = self.half(n, 7.0) * self.half(n, 7.0)
        share = self.uniform(n, 1, 1)
        ways = torch.stack(
            (
                clean * half,
                clean * (1 - disc),
                clean * (1 - bar),
                half * clean + (1 - half) * other,
                share * clean + (1 - share) * other,
                torch.maximum(clean, share.round() * other.roll(1, 0) * half),
                (clean + share * self.smooth(n)[:, 0].clamp(0, 1)).clamp(0, 1),
                clean * (1 - share * self.smooth(n)[:, 0].clamp(0, 1)),
            )
        )
        return ways[torch.randint(len(ways), (n,), generator=self.generator), torch.arange(n)]

    def bend(self, cover: Tensor, pixels: Tensor) -> Tensor:
        """Moved by a smooth field of about so many small pixels, (n, 1, 1)."""
        axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
        move = self.smooth(len(cover), 2).permute(0, 2, 3, 1) * pixels[..., None] * 2 / SIDE
        return functional.grid_sample(cover[:, None], grid + move, align_corners=False)[:, 0]

    def paint(self, cover: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in colours near the palette's, and the indices of colour and background.

        One in ten is in two colours, side by side or mixed, and one in twenty is faint: these have no colour.
        """
        n = len(cover)
        color, second, background = (torch.randint(k, (n,), generator=self.generator) for k in (6, 6, 4))
        kind = self.uniform(n)[:, None, None]
        mix = torch.where(kind < 0.06, self.half(n), 0.0)
        mix = torch.where((kind >= 0.06) & (kind < 0.1), self.uniform(n, 1, 1, low=0.4, high=0.6), mix)
        faint = kind > 0.95
        opacity = torch.where(faint, self.uniform(n, 1, 1, low=0.15, high=0.5), self.uniform(n, 1, 1, low=0.85))
        front, other = _COLORS[color][:, :, None, None], _COLORS[second][:, :, None, None]
        front = front + mix[:, None] * (other - front) + 0.04 * self.normal(n, 3, 1, 1)
        back = (_BACKGROUNDS[background] + 0.04 * self.normal(n, 3))[:, :, None, None]
        pictures = back + (cover * opacity)[:, None] * (front - back)
        own = (cover * (1 - mix)).sum((1, 2)) / cover.sum((1, 2)).clamp_min(1e-6)
        named = torch.where((own > 0.95) | (color == second), color, torch.where(own < 0.05, second, NOT_ASKED))
        named[(named == NOT_ASKED) & (own > 0.3) & (own < 0.7) | faint[:, 0, 0]] = NO_COLOR
        return pictures, named, background

    def disturb(self, pictures: Tensor) -> Tensor:
        """A slight blur on some, other brightness and contrast, an uneven ground, noise; in [0, 1]."""
        size = (len(pictures), 1, 1, 1)
        blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
        blur = self.uniform(*size, high=0.6) * (self.uniform(*size) < 0.4)
        pictures = pictures + blur * (blurred - pictures)
        pictures = pictures * self.uniform(*size, low=0.9, high=1.1) + self.uniform(*size, low=-0.05, high=0.05)
        pictures = pictures + self.uniform(*size, high=0.03) * self.smooth(len(pictures), 3)
        return (pictures + self.uniform(*size, high=0.06) * self.normal(*pictures.shape)).clamp(0, 1)


def _geometry(thing: shapes.Thing) -> tuple[float, float, float]:
    """Its centre in its place and its radius, each in about [-1, 1]."""
    x, y = (shapes.SIZE * (0.25 + 0.5 * side) for side in shapes.PLACES[shapes.PLACE_NAMES[thing.place]])
    low, high = shapes.RADIUS
    radius = (2 * thing.radius - high - low) / (high - low)
    return (thing.x - x) / shapes.JITTER, (thing.y - y) / shapes.JITTER, radius


def alike(a: Tensor, b: Tensor) -> Tensor:
    """Squared correlation of two covers, (n,)."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) ** 2 / (a.square().sum(1) * b.square().sum(1)).clamp_min(1e-9)
