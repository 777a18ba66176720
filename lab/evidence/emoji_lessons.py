"""What the CNN judge of emoji learns from: renders, and renders spoilt as generated pictures fail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..toy import emoji

SIDE = 32  # of a small picture: means of 4×4 pixels
BROKEN = len(emoji.CONCEPTS)  # nothing, two in one, or no whole one
NOT_ASKED = -100  # cross_entropy leaves it out

# A spoilt emoji is still the one it was if it kept this share of what it deviated from its ground by, and broken below
# another; a bent one by how far it was moved, in small pixels. What lies between is not taught.
WHOLE, BROKEN_BELOW = 0.93, 0.8
STRAIGHT, BENT = 0.5, 1.6

_GROUNDS = torch.tensor(list(emoji.GROUNDS.values()))


def layers_of(scenes: list[emoji.Scene]) -> Tensor:
    """The emoji of scenes without grounds as small pixels, (scenes, 4, SIDE, SIDE): RGB times alpha, and alpha."""
    parts = [scenes[i : i + 64] for i in range(0, len(scenes), 64)]
    return torch.cat([functional.avg_pool2d(emoji.render_layers(part), 4).half() for part in parts])


def on_grounds(layers: Tensor, colors: Tensor) -> Tensor:
    """Layers (n, 4, …) on these colours (n, 3): pictures (n, 3, …)."""
    return layers[:, :3] + (1 - layers[:, 3:]) * colors[:, :, None, None]


@dataclass(frozen=True)
class Lessons:
    """Batches of small pictures with what they show, from scenes and one generator.

    parts: concept, vendor, place and size of each scene, (scenes,). cells: the rows of each place and size, so that two
    emoji can be mixed where one lies on the other.
    """

    layers: Tensor
    parts: dict[str, Tensor]
    cells: list[Tensor]
    generator: torch.Generator

    @classmethod
    def of(cls, scenes: int, seed: int) -> Lessons:
        generator = torch.Generator().manual_seed(seed)
        # Of trained and of held-out combinations: the judge has to know each.
        drawn = [
            scene
            for new in (False, True)
            for scene in emoji.random_scenes(scenes // emoji.HELD_OUT if new else scenes, generator, new)
        ]
        names = ("concept", "vendor", "place", "size")
        parts = {name: torch.tensor([getattr(scene, name) for scene in drawn]) for name in names}
        cell = parts["place"] * len(emoji.SIZES) + parts["size"]
        cells = [torch.nonzero(cell == one)[:, 0] for one in range(len(emoji.PLACES) * len(emoji.SIZES))]
        return cls(layers_of(drawn), parts, cells, generator)

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=self.generator)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator)

    def below(self, limit: int, n: int) -> Tensor:
        return torch.randint(limit, (n,), generator=self.generator)

    def smooth(self, n: int, channels: int, knots: int = 8) -> Tensor:
        """Fields that vary over about SIDE / knots small pixels, (n, channels, SIDE, SIDE), of about unit variance."""
        return 1.5 * functional.interpolate(self.normal(n, channels, knots, knots), (SIDE, SIDE), mode="bicubic")

    def batch(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Small pictures (n, 3, SIDE, SIDE) and what each head should say; NOT_ASKED where that is in doubt."""
        rows, others = self.pairs(n)
        clean, other = self.stretch(self.layers[rows].float()), self.layers[others].float()
        # Of twenty, one shows nothing, nine an emoji as it is, four a bent one, six a spoilt one.
        kind = self.below(20, n)
        empty, bent, spoilt = kind == 0, (kind > 9) & (kind < 14), kind > 13
        pixels = self.uniform(n, high=3.0) * bent
        layers = clean * ~empty[:, None, None, None]
        layers[spoilt] = self.spoil(clean[spoilt], other[spoilt])
        layers[bent] = self.bend(clean[bent], pixels[bent])
        truth = {name: part[rows].clone() for name, part in self.parts.items()}
        truth["ground"] = self.below(len(_GROUNDS), n)
        colors = _GROUNDS[truth["ground"]] + 0.03 * self.normal(n, 3)
        pictures = on_grounds(layers, colors)
        left = torch.where(spoilt, kept(pictures, on_grounds(clean, colors), colors), 1.0)
        whole = (left > WHOLE) & (pixels < STRAIGHT) & ~empty
        same = self.parts["concept"][others] == truth["concept"]
        broken = ((left < BROKEN_BELOW) & ~(spoilt & same)) | (pixels > BENT) | empty
        truth["concept"] = torch.where(whole, truth["concept"], NOT_ASKED).masked_fill(broken, BROKEN)
        truth["vendor"][~whole] = NOT_ASKED
        for name in ("place", "size"):
            truth[name][empty] = NOT_ASKED
        pictures, ruined = self.ruin(self.disturb(pictures))
        truth["concept"][ruined] = BROKEN
        truth["vendor"][ruined] = NOT_ASKED
        return pictures, truth

    def pairs(self, n: int) -> tuple[Tensor, Tensor]:
        """Rows at random, and for each another of the same place and size, (n,)."""
        rows = self.below(len(self.layers), n)
        cell = self.parts["place"][rows] * len(emoji.SIZES) + self.parts["size"][rows]
        by_chance = self.uniform(n)
        others = [self.cells[c][int(u * len(self.cells[c]))] for c, u in zip(cell.tolist(), by_chance, strict=True)]
        return rows, torch.stack(others)

    def stretch(self, layers: Tensor) -> Tensor:
        """A little larger or smaller, wider or higher, turned by up to 5° and moved: still the emoji that it was."""
        n = len(layers)
        turn, size = self.uniform(n, low=-0.09, high=0.09), self.uniform(n, low=0.95, high=1.05)
        aspect = self.uniform(n, low=0.95, high=1.05)
        rows = [torch.stack((turn.cos() * aspect, -turn.sin()), 1), torch.stack((turn.sin(), turn.cos() / aspect), 1)]
        move = self.uniform(n, 2, 1, low=-1.0, high=1.0) * 2 / SIDE
        # About the emoji's own middle, not the picture's.
        middle = _middles(layers)[:, :, None]
        matrix = torch.stack(rows, 1) * size[:, None, None]
        theta = torch.cat((matrix, middle - matrix @ middle + move), 2)
        grid = functional.affine_grid(theta, [n, 1, SIDE, SIDE], align_corners=False)
        return functional.grid_sample(layers, grid, mode="bicubic", align_corners=False).clamp(0, 1)

    def half(self, layers: Tensor) -> Tensor:
        """Half planes with a soft edge not far from each emoji's middle, (n, 1, SIDE, SIDE) in [0, 1]."""
        n = len(layers)
        angle, offset = self.uniform(n, 1, 1, high=6.2832), self.uniform(n, 1, 1, low=-6.0, high=6.0)
        axis = ((torch.arange(SIDE) + 0.5) * 2 / SIDE - 1).expand(n, SIDE)
        middle = _middles(layers)
        x, y = (axis - middle[:, i : i + 1] for i in (0, 1))
        along = x[:, None, :] * angle.cos() + y[:, :, None] * angle.sin()
        return (2 * (along * SIDE / 2 - offset)).sigmoid()[:, None]

    def spoil(self, clean: Tensor, other: Tensor) -> Tensor:
        """Emoji with a part missing, or two in one; each by chance strong or weak."""
        n, half = len(clean), self.half(clean)
        share = self.uniform(n, 1, 1, 1, low=0.15, high=0.85)
        hole = ((self.smooth(n, 1) - 0.6) * 4).sigmoid()
        ways = torch.stack(
            (
                clean * half,
                clean * (1 - hole),
                half * clean + (1 - half) * other,
                hole * other + (1 - hole) * clean,
                share * clean + (1 - share) * other,
                clean * share,
            )
        )
        return ways[self.below(len(ways), n), torch.arange(n)]

    def bend(self, layers: Tensor, pixels: Tensor) -> Tensor:
        """Moved by a smooth field of about so many small pixels, (n,)."""
        axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
        move = self.smooth(len(layers), 2).permute(0, 2, 3, 1) * pixels[:, None, None, None] * 2 / SIDE
        return functional.grid_sample(layers, grid + move, align_corners=False)

    def disturb(self, pictures: Tensor) -> Tensor:
        """A slight blur on some, other brightness and contrast, an uneven ground, noise; in [0, 1]."""
        size = (len(pictures), 1, 1, 1)
        blur = self.uniform(*size, high=0.8) * (self.uniform(*size) < 0.4)
        pictures = pictures + blur * (blurred(pictures) - pictures)
        pictures = pictures * self.uniform(*size, low=0.9, high=1.15) + self.uniform(*size, low=-0.06, high=0.06)
        pictures = pictures + self.uniform(*size, high=0.03) * self.smooth(len(pictures), 3)
        return (pictures + self.uniform(*size, high=0.06) * self.normal(*pictures.shape)).clamp(0, 1)

    def ruin(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """One in twelve blurred or drowned in noise beyond knowing; and which, (n,)."""
        kind = self.below(24, len(pictures))
        flat, noisy = pictures[kind == 0], pictures[kind == 1]
        pictures = pictures.clone()
        pictures[kind == 0] = blurred(blurred(blurred(flat, 5), 5))
        strength = self.uniform(len(noisy), 1, 1, 1, low=0.3, high=0.6)
        pictures[kind == 1] = (noisy + strength * self.normal(*noisy.shape)).clamp(0, 1)
        return pictures, kind < 2


def _middles(layers: Tensor) -> Tensor:
    """Where emoji have their middles, x and y in the picture's coordinates from -1 to 1, (n, 2)."""
    alpha = layers[:, 3]
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    total = alpha.sum((1, 2)).clamp_min(1e-6)
    return torch.stack(((alpha.sum(1) * axis).sum(1), (alpha.sum(2) * axis).sum(1)), 1) / total[:, None]


def blurred(pictures: Tensor, width: int = 3) -> Tensor:
    """Means of width × width pixels, an odd number."""
    edge = width // 2
    return functional.avg_pool2d(functional.pad(pictures, (edge,) * 4, mode="replicate"), width, 1)


def kept(pictures: Tensor, clean: Tensor, colors: Tensor) -> Tensor:
    """The share of what clean pictures (n, 3, …) deviate from their grounds (n, 3) by that others still have, (n,).

    1 where nothing changed, below 0 where what came in is more than what was there.
    """
    there = (clean - colors[:, :, None, None]).flatten(1).square().sum(1)
    return 1 - (pictures - clean).flatten(1).square().sum(1) / there.clamp_min(1e-9)
