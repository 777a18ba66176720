"""Experiments on the merge: what of the difference d = h⁺ − h⁻ the positive stream is pushed along, and how far.

Each is there because guidance that is stronger helps until it overcooks: it may be that only a part of d does that.
Variants of `guidance.guide` hand it another h⁻: that of the part of d that they leave. A number at which nothing is
taken away leaves h⁻ as it is, to the bit.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .contenders import Contender, carried
from .variants import Variants, named, step_of, varied


def parallel(keep: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """d⊥ + keep · d∥, in each token, where d∥ lies along h⁺ (APG, arXiv 2410.02416; in attention, arXiv 2603.02531).

    keep: in [0, 1]; 1 is the product.
    """
    variants = partial(_at_merge, partial(project, keep=keep))
    return varied(carried(depths=depths, **inputs), named(f"parallel part {keep}", inputs), variants, __file__)


def project(guide: Callable, z_pos: Tensor, z_neg: Tensor, *rest: Any, keep: float) -> tuple[Tensor, Tensor]:
    """Guide with d⊥ + keep · d∥. z_pos, z_neg: (rows, picture tokens, heads, head_dim), as in `guidance.guide`."""
    pos, neg = _wide(z_pos), _wide(z_neg)
    along = ((pos - neg) * pos).sum((-2, -1), keepdim=True) / pos.square().sum((-2, -1), keepdim=True)
    # A token of zeros has no direction, and d no part along it.
    taken = (1 - keep) * torch.nan_to_num(along, nan=0.0) * pos
    return guide(z_pos, (neg + taken).to(z_neg.dtype), *rest)


def bound(ratio: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """d no longer than `ratio` times h⁺, by the L2 norms over all tokens of a picture (arXiv 2410.02416).

    Beside the limit by token, tau, or with a tau of 10 in its place. ratio: above 0; infinite is the product.
    """
    variants = partial(_at_merge, partial(shorten, ratio=ratio))
    words = named(f"difference at most {ratio} of the picture", inputs)
    return varied(carried(depths=depths, **inputs), words, variants, __file__)


def shorten(guide: Callable, z_pos: Tensor, z_neg: Tensor, *rest: Any, ratio: float) -> tuple[Tensor, Tensor]:
    """Guide with d · min(1, ratio ‖h⁺‖₂ / ‖d‖₂), as in `project`."""
    pos, neg = _wide(z_pos), _wide(z_neg)
    d = pos - neg
    kept = torch.nan_to_num(ratio * _norm(pos) / _norm(d), nan=1.0).clamp(max=1.0)
    return guide(z_pos, (neg + (1 - kept) * d).to(z_neg.dtype), *rest)


def momentum(beta: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """d with that of the steps before: m = d + beta · m of the step before (arXiv 2410.02416).

    beta: in (−1, 1); negative is its reverse momentum, 0 is the product.
    """
    base = carried(depths=depths, **inputs)
    return varied(base, named(f"momentum {beta}", inputs), partial(_momentum, beta), __file__)


def _momentum(beta: float) -> Variants:
    m: Tensor | None = None

    def guide(original: Callable, z_pos: Tensor, z_neg: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        nonlocal m
        pos, neg = _wide(z_pos), _wide(z_neg)
        more = torch.zeros_like(pos) if m is None else beta * m
        m = pos - neg + more
        return original(z_pos, (neg - more).to(z_neg.dtype), *rest)

    return _at_merge(guide)


def tau_by_step(first: float, last: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """A limit that goes evenly from `first` at the first step to `last` at the last; both the same is the product."""
    base = carried(depths=depths, tau=first, **inputs)
    variants = partial(_tau_by_step, first, last)
    return varied(base, named(f"tau {first} to {last}", inputs), variants, __file__)


def _tau_by_step(first: float, last: float) -> Variants:
    def merge_branch(original: Callable, plan: Any, forward: Any, *rest: Any) -> None:
        step, steps = step_of(forward.run)
        own = copy.copy(plan)
        own.settings = dataclasses.replace(plan.settings, tau=first + (last - first) * step / max(1, steps - 1))
        original(own, forward, *rest)

    return {"block.merge_branch": merge_branch}


def _at_merge(guide: Callable) -> Variants:
    return {"merge.guide": guide}


def _wide(z: Tensor) -> Tensor:
    """In float32, or wider where it is."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _norm(z: Tensor) -> Tensor:
    return torch.linalg.vector_norm(z, dim=(1, 2, 3), keepdim=True)
