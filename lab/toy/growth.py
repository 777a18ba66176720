"""Widen a small FLUX: a narrow one learns more of a minute, a wide one more of a picture.

Net2WiderNet (Chen et al., arXiv 1511.05641, section 2.2): each feature is doubled, and what reads it splits its weight
between the two at random. The wide model computes what the narrow one does, and its halves part as it goes on learning.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .flux import Sizes
from .proportioned import ProportionedFlux

# Layers whose outputs, or inputs, are several parts of whole widths side by side; each part is widened by itself.
OUT_PARTS: dict[str, tuple[int, ...]] = {
    "qkv": (1, 1, 1),
    "linear1": (1, 1, 1, 4),
    "img_mod": (1,) * 6,
    "txt_mod": (1,) * 6,
    ".modulation": (1, 1, 1),
    "adaLN_modulation": (1, 1),
}
IN_PARTS: dict[str, tuple[int, ...]] = {"linear2": (1, 4)}
SPREAD = 0.35  # of the share that goes to the first of two, around a half


def widened(narrow: ProportionedFlux, sizes: Sizes, generator: torch.Generator) -> ProportionedFlux:
    """A model of twice the width that computes the same; heads are doubled with the features. sizes: the new ones.

    Raises ValueError where sizes are not those of narrow at twice the width.
    """
    if sizes != replace(narrow.sizes, hidden=2 * narrow.sizes.hidden):
        raise ValueError(f"sizes must be {narrow.sizes} at twice the width; they are {sizes}")
    wide = ProportionedFlux(sizes, narrow.distilled)
    targets, state = wide.state_dict(), narrow.state_dict()
    wide.load_state_dict({name: _widened(name, state[name], targets[name], generator) for name in state})
    return wide


def _widened(name: str, tensor: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    if target.shape[0] != tensor.shape[0]:
        tensor = torch.cat([part for one in _parts(name, tensor, 0, OUT_PARTS) for part in (one, one)])
    if target.shape[1:] != tensor.shape[1:]:
        parts = _parts(name, tensor, 1, IN_PARTS)
        tensor = torch.cat([part for one in parts for part in _split(one, generator)], 1)
    return tensor


def _parts(name: str, tensor: Tensor, dim: int, known: dict[str, tuple[int, ...]]) -> tuple[Tensor, ...]:
    widths = next((widths for layer, widths in known.items() if layer in name), (1,))
    unit = tensor.shape[dim] // sum(widths)
    return tensor.split([unit * width for width in widths], dim)


def _split(weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two weights that together are this one."""
    first = weight * (0.5 + SPREAD * torch.randn(weight.shape, generator=generator))
    return first, weight - first
