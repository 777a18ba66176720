"""An analytic judge of one quadrant of a small picture: which of the renderer's shapes explains it best, which colour.

Nothing here is learned and nothing knows of the CNN. A template is how much of each small pixel a shape covers; two
colours, of the shape and of its ground, are fitted to it by least squares, in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ..toy import shapes

STEP, REACH = 2, 8  # pixels between the templates' centres, and how far they go from the middle of the place
RADII = (17.0, 18.5, 20.0, 21.5, 23.0, 24.5, 26.0)
CHUNK = 32  # quadrants at a time, so that what is computed on the way stays in the cache of a core
ASPECTS = (0.92, 1.0, 1.08)  # the width is stretched by this and the height shrunk: an oval ring is still a ring

# The least share of a quadrant's variance that a shape has to explain to be called whole: what 99 % of real renders
# with grain of 0.02 exceed, less .03 to .08, so far that what an eye calls whole in trained models' pictures passes
# and a frame without a side, a cross without an arm and a ring with a gap (.79 at most) don't. Thin shapes lie between
# the templates more easily, so they have to explain less.
ENOUGH = {"disc": 0.91, "square": 0.91, "triangle": 0.88, "ring": 0.82, "cross": 0.8, "frame": 0.82}


@dataclass(frozen=True)
class Templates:
    """Covers of every shape at every centre, radius and aspect.

    directions (templates, SIDE²): without their means and of unit length. length and mean (templates,): what was taken
    away. shape (templates,): index into SHAPES.
    """

    directions: Tensor
    length: Tensor
    mean: Tensor
    shape: Tensor


@dataclass(frozen=True)
class Fit:
    """What explains each quadrant best.

    shape (n,): index into SHAPES. color (n,): index into COLOR_NAMES of the palette's colour next to the fitted one, or
    len(COLOR_NAMES) where a background's colour is nearer. share (n, SHAPES): how much of the variance the best
    template of each shape explains, in [0, 1].
    """

    shape: Tensor
    color: Tensor
    share: Tensor

    @property
    def whole(self) -> Tensor:
        """Whether the best shape explains enough for a whole one, (n,)."""
        return self.share.amax(1) >= torch.tensor(list(ENOUGH.values()))[self.shape]


@cache
def templates() -> Templates:
    """About ten thousand; a small pixel is 4 pixels wide, so that a step is half of one."""
    cover = torch.cat([_everywhere(_stretched(_large_covers(shape))) for shape in range(len(shapes.SHAPES))])
    mean = cover.mean(1)
    length = (cover - mean[:, None]).norm(dim=1)
    shape = torch.arange(len(shapes.SHAPES)).repeat_interleave(len(cover) // len(shapes.SHAPES))
    return Templates((cover - mean[:, None]) / length[:, None], length, mean, shape)


def _large_covers(shape: int) -> Tensor:
    """How much of each pixel the shape covers in the middle of a picture, at each radius, (RADII, SIZE, SIZE)."""
    middle = shapes.SIZE / 2
    red, black = shapes.COLOR_NAMES.index("red"), shapes.BACKGROUND_NAMES.index("black")
    things = [shapes.Thing(shape, red, 0, middle, middle, radius) for radius in RADII]
    pictures = shapes.render([shapes.Scene(black, (thing,)) for thing in things])
    ground = shapes.BACKGROUNDS["black"][0]
    return (pictures[:, 0] - ground) / (shapes.COLORS["red"][0] - ground)


def _stretched(covers: Tensor) -> Tensor:
    """Each in each aspect."""
    grids = [torch.tensor([[1 / a, 0, 0], [0, a, 0]]).expand(len(covers), 2, 3) for a in ASPECTS]
    size = [len(covers), 1, shapes.SIZE, shapes.SIZE]
    fields = [functional.affine_grid(grid, size, align_corners=False) for grid in grids]
    return torch.cat([functional.grid_sample(covers[:, None], field, align_corners=False)[:, 0] for field in fields])


def _everywhere(covers: Tensor) -> Tensor:
    """Each cover at each centre, as small pixels of a quadrant, (covers · centres, SIDE²)."""
    steps = range(-REACH, REACH + 1, STEP)
    half = shapes.SIZE // 2
    starts = [(half // 2 - y, half // 2 - x) for y in steps for x in steps]
    windows = torch.stack([covers[:, y : y + half, x : x + half] for y, x in starts], 1)
    return functional.avg_pool2d(windows, 4).flatten(0, 1).flatten(1)


def fit(quadrants: Tensor) -> Fit:
    """Fit quadrants (n, 3, SIDE, SIDE), RGB."""
    parts = [_fit(part) for part in quadrants.split(CHUNK)]
    return Fit(*(torch.cat([getattr(part, name) for part in parts]) for name in ("shape", "color", "share")))


def _fit(quadrants: Tensor) -> Fit:
    all_templates = templates()
    values = quadrants.flatten(2).float()
    mean = values.mean(2)
    spread = values - mean[..., None]
    along = spread @ all_templates.directions.T  # (n, 3, templates)
    # A quadrant without contrast is explained by nothing: 1e-3 is the variance of a barely visible one.
    share = along.square().sum(1) / spread.square().sum((1, 2)).clamp_min(1e-3)[:, None]
    best_share, best = _best_of_each_shape(share, all_templates)
    shape = best_share.argmax(1)
    chosen = best.gather(1, shape[:, None])[:, 0]
    slope = along.gather(2, chosen[:, None, None].expand(-1, 3, 1))[..., 0] / all_templates.length[chosen, None]
    front = mean + slope * (1 - all_templates.mean[chosen, None])
    return Fit(shape, _nearest_color(front), best_share)


def _best_of_each_shape(share: Tensor, all_templates: Templates) -> tuple[Tensor, Tensor]:
    """Of shares (n, templates), whose shapes lie in order: the largest of each shape, and its template, (n, SHAPES)."""
    per_shape = len(all_templates.shape) // len(shapes.SHAPES)
    best_share, best = share.unflatten(1, (-1, per_shape)).max(2)
    return best_share, best + per_shape * torch.arange(len(shapes.SHAPES))


def _nearest_color(front: Tensor) -> Tensor:
    known = torch.tensor([*shapes.COLORS.values(), *shapes.BACKGROUNDS.values()])
    return torch.cdist(front, known).argmin(1).clamp_max(len(shapes.COLORS))
