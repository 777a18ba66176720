"""One guided merge, in the attention or of a branch: guide in place, and take down what that did."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..blocks import Range
from ..guidance import guide
from ..measure import measure
from ..settings import Settings
from .forward import Chunk, Forward, Merge, Visit

# Statistics for the log line look at this many tokens of each picture at most: enough for a mean, and free.
SAMPLED_TOKENS = 256
# Takes Z⁺, Z⁻ and Z, (rows, picture tokens, heads, head_dim), and the ratio before the limit, (rows, picture tokens).
Note = Callable[[Tensor, Tensor, Tensor, Tensor], None]


def heads_in(z: Tensor, ranges: tuple[Range, ...] | None) -> tuple[Tensor, ...]:
    """Views of z, (rows, picture tokens, heads, head_dim), of the heads in each range."""
    return (z,) if ranges is None else tuple(z[:, :, first : last + 1] for first, last in ranges)


def guide_heads_in_place(
    z_pos: Tensor,
    z_neg: Tensor,
    ranges: tuple[Range, ...] | None,
    scale: float | Tensor,
    settings: Settings,
    note: Note,
) -> None:
    """Guide the features of the chosen heads, which share one L1 ratio; the others keep Z⁺."""
    parts = heads_in(z_pos, ranges)
    if len(parts) == 1:
        guide_in_place(parts[0], heads_in(z_neg, ranges)[0], scale, settings, note)
        return
    joined = torch.cat(parts, dim=2)
    guide_in_place(joined, torch.cat(heads_in(z_neg, ranges), dim=2), scale, settings, note)
    for part, guided in zip(parts, joined.split([part.shape[2] for part in parts], dim=2), strict=True):
        part.copy_(guided)


def guide_in_place(z_pos: Tensor, z_neg: Tensor, scale: float | Tensor, settings: Settings, note: Note) -> None:
    """Guide z_pos, a view into the host's tensor, (rows, picture tokens, heads, head_dim); note what that does."""
    if z_pos.shape != z_neg.shape:
        raise ValueError(f"plain tokens are {tuple(z_pos.shape)}, negative ones {tuple(z_neg.shape)}")
    guided, ratio = guide(z_pos, z_neg, scale, settings.tau, settings.alpha)
    note(z_pos, z_neg, guided, ratio)
    # The last thing that happens: whatever fails before this leaves Z⁺ as it was.
    z_pos.copy_(guided)


def noting(forward: Forward, visit: Visit, chunk: Chunk, tau: float) -> Note:
    """What takes down a guided merge: all that a record wants, or only the log line's two numbers."""

    def note(z_pos: Tensor, z_neg: Tensor, z: Tensor, ratio: Tensor) -> None:
        if forward.recorded:
            numbers, moved = measure(z_pos, z_neg, z, ratio, tau)
            reused, first = chunk.reuses, chunk is forward.chunks[0]
            visit.merges = (*visit.merges, Merge(visit.position, reused, first, numbers, moved))
        else:
            visit.statistics = (*visit.statistics, _sampled(z_pos, z, ratio, tau))
        visit.guided = True

    return note


def _sampled(z_pos: Tensor, z: Tensor, ratio: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The mean relative change, from a few tokens, and the share of tokens at the limit, both on the device."""
    every = slice(None, None, max(1, z_pos.shape[1] // SAMPLED_TOKENS))
    change = (z[:, every] - z_pos[:, every]).abs().sum(dtype=torch.float32)
    return change / z_pos[:, every].abs().sum(dtype=torch.float32), (ratio > tau).float().mean()
