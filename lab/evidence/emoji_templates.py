"""A judge of emoji that learns nothing: which vendor's drawing, laid where, explains a small picture best.

It knows nothing of the CNN. Each drawing is laid on the ground's colour at every place in both sizes, and moved a
little; what counts is the share of the picture's deviation from its ground that it explains, pixels and edges together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ..toy import emoji

SIDE, WINDOW = 32, 16  # of a small picture, and of what is looked at, in whatever size
SHIFTS, NEARER = (-0.8, 0.0, 0.8), (-0.4, 0.0, 0.4)  # small pixels that a window is moved by, and then from the best
SCALES = (0.97, 1.0, 1.03)  # of the middle of a size
CHUNK = 16  # pictures at a time
# What a picture deviates from its ground by at least, so that nothing explains an empty one: a barely visible emoji.
FAINT = 2.0

# The least share that the best drawing has to explain to be called whole, and by how much more than the best of
# another concept. Of held-out renders 99 % exceed .68 and .18, with noise of .02 .65; of two concepts half and half
# hardly any does both (lab/run.py emoji_check).
ENOUGH, AHEAD = 0.6, 0.12


@dataclass(frozen=True)
class Fit:
    """What explains each picture best.

    Indices as in emoji.PARTS, each (n,): concept, vendor, place, size, ground. share (n, CONCEPTS): of the deviation
    from the ground, what the best drawing of each concept explains; at most 1, and below 0 where it does harm.
    """

    concept: Tensor
    vendor: Tensor
    place: Tensor
    size: Tensor
    ground: Tensor
    share: Tensor

    @property
    def whole(self) -> Tensor:
        """Whether the best explains enough for a whole one, and clearly more than any other concept, (n,)."""
        best = self.share.topk(2).values
        return (best[:, 0] >= ENOUGH) & (best[:, 0] - best[:, 1] >= AHEAD)


def fit(pictures: Tensor) -> Fit:
    """Fit small pictures (n, 3, SIDE, SIDE), RGB."""
    parts = [_fit(part) for part in pictures.float().split(CHUNK)]
    return Fit(*(torch.cat([getattr(part, name) for part in parts]) for name in Fit.__annotations__))


def _fit(pictures: Tensor) -> Fit:
    ground = _ground(pictures)
    deviation = pictures - ground[:, :, None, None]
    place, size, middle = _where(deviation, ground)
    share = torch.empty(len(pictures), len(emoji.CONCEPTS) * len(emoji.VENDORS))
    for one in size.unique().tolist():
        rows = size == one
        share[rows] = _shares(deviation[rows], ground[rows], middle[rows][:, None] + _moves(NEARER), one, SCALES)
    best = share.argmax(1)
    vendors = len(emoji.VENDORS)
    known = torch.tensor(list(emoji.GROUNDS.values()))
    found = best // vendors, best % vendors, place, size, torch.cdist(ground, known).argmin(1)
    return Fit(*found, share.unflatten(1, (-1, vendors)).amax(2))


def _ground(pictures: Tensor) -> Tensor:
    """The middle value of the outermost pixels, of which an emoji hides less than half; (n, 3)."""
    edge = torch.ones(SIDE, SIDE, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    return pictures[:, :, edge].median(2).values


def _where(deviation: Tensor, ground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Place and size of what is seen, (n,), and about where its centre is, (n, 2), by whichever drawing fits best."""
    n, sizes = len(deviation), range(len(emoji.SIZES))
    centres = torch.stack([_centres(size) for size in sizes])  # (sizes, places, 2)
    middles = (centres[:, :, None] + _moves(SHIFTS)).flatten(1, 2)  # (sizes, places · moves, 2)
    share = [_by_window(deviation, ground, middles[size].expand(n, -1, 2), size, 1.0, False) for size in sizes]
    best = torch.stack([one.amax(2) for one in share], 1).flatten(1).argmax(1)
    place = best % middles.shape[1] // len(SHIFTS) ** 2
    return place, best // middles.shape[1], middles.flatten(0, 1)[best]


def _shares(deviation: Tensor, ground: Tensor, middles: Tensor, size: int, scales: tuple[float, ...]) -> Tensor:
    """What each drawing explains at the best of these centres, (n, centres, 2), and scales; (n, drawings)."""
    shares = [_by_window(deviation, ground, middles, size, scale, True).amax(1) for scale in scales]
    return torch.stack(shares).amax(0)


def _by_window(deviation: Tensor, ground: Tensor, middles: Tensor, size: int, scale: float, edges: bool) -> Tensor:
    """Of the deviation, what each drawing explains that is laid at each of these centres; (n, centres, drawings).

    edges: whether differences of neighbouring pixels count beside the pixels.
    """
    drawn = _drawn(size, edges)
    side = scale * _middle_side(size)
    seen = windows(deviation, middles, side)
    outside = deviation.square().sum((1, 2, 3))[:, None] * (WINDOW / side) ** 2 - seen.square().sum((2, 3, 4))
    features = _features(seen, edges)  # (n, centres, 3, F)
    # A drawing deviates from the ground by colour · alpha − alpha · ground.
    grounded = torch.einsum("nwcf,nc->nwf", features, ground)
    along = features.flatten(2) @ drawn.color.flatten(1).T - grounded @ drawn.alpha.T
    length = drawn.color.square().sum((1, 2)) - 2 * ground @ torch.einsum("dcf,df->cd", drawn.color, drawn.alpha)
    length = length + ground.square().sum(1, keepdim=True) * drawn.alpha.square().sum(1)
    whole = features.square().sum((2, 3)) + outside.clamp_min(0)
    return (2 * along - length[:, None]) / whole.clamp_min(FAINT)[..., None]


@dataclass(frozen=True)
class _Drawn:
    """What the vendors drew, as windows show it: features of colour · alpha (drawings, 3, F) and of alpha (…, F)."""

    color: Tensor
    alpha: Tensor


@cache
def _drawn(size: int, edges: bool) -> _Drawn:
    centre, side = _centres(size)[0], _middle_side(size)
    x, y = (4 * centre).tolist()
    scenes = [
        emoji.Scene(concept, vendor, 0, size, 0, x, y, 4 * side)
        for concept in range(len(emoji.CONCEPTS))
        for vendor in range(len(emoji.VENDORS))
    ]
    parts = [scenes[i : i + 64] for i in range(0, len(scenes), 64)]
    layers = torch.cat([functional.avg_pool2d(emoji.render_layers(part), 4) for part in parts])
    features = _features(windows(layers, centre.expand(len(layers), 1, 2), side)[:, 0], edges)
    return _Drawn(features[:, :3], features[:, 3])


def _middle_side(size: int) -> float:
    """In small pixels."""
    return sum(emoji.SIZES[emoji.SIZE_NAMES[size]]) / 8


def _centres(size: int) -> Tensor:
    """Of emoji in this size in each place, (places, 2), x and y in small pixels."""
    side = 4 * _middle_side(size)
    return torch.tensor([emoji.centre(place, side) for place in range(len(emoji.PLACES))]) / 4


def _moves(steps: tuple[float, ...]) -> Tensor:
    return torch.cartesian_prod(torch.tensor(steps), torch.tensor(steps))


def windows(pictures: Tensor, middles: Tensor, side: float) -> Tensor:
    """Squares of pictures (n, channels, SIDE, SIDE) around these middles (n, windows, 2), all of this side.

    In small pixels, x before y. (n, windows, channels, WINDOW, WINDOW).
    """
    n, many = middles.shape[:2]
    axis = ((torch.arange(WINDOW) + 0.5) / WINDOW - 0.5) * side
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    grid = (middles[:, :, None, None] + offsets) * 2 / SIDE - 1
    found = functional.grid_sample(pictures, grid.flatten(1, 2), align_corners=False, padding_mode="border")
    return found.unflatten(2, (many, WINDOW)).transpose(1, 2)


def _features(seen: Tensor, edges: bool) -> Tensor:
    """Pixels and the differences of neighbours, (…, F); linear, so a sum's are the sum of the features."""
    if not edges:
        return seen.flatten(-2)
    right, down = seen[..., 1:] - seen[..., :-1], seen[..., 1:, :] - seen[..., :-1, :]
    return torch.cat([part.flatten(-2) for part in (seen, right, down)], -1)
