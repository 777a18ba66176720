"""Experiments on renewal: when the branch's difference is computed anew, and what stands in for it in between.

Steps are the sampler's, one evaluation each (Euler).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import sampling
from .contenders import Contender, carried
from .variants import Variants, named, step_of, varied

# The product keeps a difference for at most so many steps: more than the pauses of these samplings.
MOST = 20


def extrapolated(by: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """Between renewals the line through the last two differences, in sigma: d₁ + by (σ − σ₁) (d₁ − d₀) / (σ₁ − σ₀).

    Held until there are two. by: 1 is the line, 0 the product; between them a shorter way along it.
    """
    words = named(f"extrapolated by {by}", inputs)
    return varied(carried(depths=depths, **inputs), words, partial(_extrapolated, by), __file__)


def _extrapolated(by: float) -> Variants:
    last_two: dict[Any, list] = {}

    def hand_out(original: Callable, plan: Any, run: Any, chunks: tuple, *rest: Any) -> None:
        original(plan, run, chunks, *rest)
        for chunk in chunks:
            if chunk.difference is None:
                continue
            kept, known = run.differences[chunk.evaluation], last_two.setdefault(chunk.evaluation, [])
            if not known or known[-1] is not kept:
                known[:] = [*known[-1:], kept]
            if len(known) == 2:
                chunk.difference = on_line(known[0], known[1], run.sigma, by)

    return {"wrappers.hand_out_differences": hand_out}


def on_line(earlier: Any, later: Any, sigma: float, by: float) -> Tensor:
    """Two kept differences, (rows, picture tokens, hidden), continued to another noise level, in the later's type."""
    way = by * (sigma - later.sigma) / (later.sigma - earlier.sigma)
    first, last = earlier.difference.float(), later.difference.float()
    return (last + way * (last - first)).to(later.difference.dtype)


def faded(power: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """Between renewals the last difference, as much smaller as the noise has become: d₁ (σ / σ₁)^power.

    On trained small models ‖d‖ / ‖h⁺‖ falls all the way, so that a held d is too long. power: 0 is the product.
    """
    words = named(f"faded by power {power}", inputs)
    return varied(carried(depths=depths, **inputs), words, partial(_faded, power), __file__)


def _faded(power: float) -> Variants:
    def hand_out(original: Callable, plan: Any, run: Any, chunks: tuple, *rest: Any) -> None:
        original(plan, run, chunks, *rest)
        for chunk in chunks:
            if chunk.difference is not None:
                since = run.sigma / run.differences[chunk.evaluation].sigma
                chunk.difference = chunk.difference * since**power

    return {"wrappers.hand_out_differences": hand_out}


def placed(shares: Iterable[float], *, depths: tuple[int, int], steps: int = 0, **inputs: Any) -> Contender:
    """Renewed at the steps that lie nearest to these shares of the sampling, in [0, 1), and at the first in any case.

    Before start_percent nothing is renewed: the first is then the step at which guidance begins. Shares count to three
    decimals. steps: of the sampling that the cost is counted for; the laboratory's if 0.
    """
    shares, steps = tuple(round(share, 3) for share in shares), steps or sampling.STEPS
    words = named(f"renewed at {', '.join(map(str, shares))}", inputs)
    passes = _passes(len(_steps_at(shares, steps)), steps, depths, inputs)
    base = carried(depths=depths, renew_every=MOST, **inputs)
    return varied(base, words, partial(_placed, shares), __file__, passes)


def _passes(renewals: int, steps: int, depths: tuple[int, int], inputs: dict[str, Any]) -> float:
    whole = inputs | {"renew_every": 1, "start_percent": 0.0, "end_percent": 1.0}
    return carried(depths=depths, **whole).passes * renewals / steps + (1 - renewals / steps)


def _steps_at(shares: Iterable[float], steps: int) -> set[int]:
    return {0, *(round(share * steps) for share in shares)}


def _placed(shares: tuple[float, ...]) -> Variants:
    def hand_out(original: Callable, plan: Any, run: Any, *rest: Any) -> None:
        step, steps = step_of(run)
        if step in _steps_at(shares, steps):
            forget(run)
        original(plan, run, *rest)

    return {"wrappers.hand_out_differences": hand_out}


def forget(run: Any) -> None:
    """Forget the differences of earlier steps, so that they are computed anew."""
    run.differences = {key: kept for key, kept in run.differences.items() if not run.steps_between(kept.sigma)}


def adaptive(
    every: int, power: float, usual: float, *, depths: tuple[int, int], steps: int = 0, **inputs: Any
) -> Contender:
    """As often as at every so many steps, but closer together where the difference was found to change fast.

    A renewal tells for nothing how far d has come, ‖d − d before‖₂ / ‖d‖₂ a step, the mean over the pictures of a
    batch: they are renewed together, so that a picture depends on its batch. The next follows after an even share of
    the steps left · (usual / that)^power. If a held difference errs by as much as it changes, the sum of errors is
    least at power 1/2. Of the first pause nothing is known, so it is even. power 0 is the product, where `every`
    divides the steps.

    usual: change a step at which the pause is an even one. No renewal is left over and none is added, whatever is
    measured, so that the passes are exact. steps: as in `placed`.
    """
    steps = steps or sampling.STEPS
    words = named(f"adaptive, every {every} on average, power {power}, usual change {usual}", inputs)
    base = carried(depths=depths, renew_every=MOST, **inputs)
    passes = _passes(math.ceil(steps / every), steps, depths, inputs)
    return varied(base, words, partial(_adaptive, every, power, usual), __file__, passes)


@dataclass
class Pace:
    """Of one sampling: the step of the next renewal, how many are left after the last; d as it was kept then."""

    due: int = 0
    left: int | None = None
    step: int = 0
    before: dict[Any, Tensor] = field(default_factory=dict)


def _adaptive(every: int, power: float, usual: float) -> Variants:
    pace = Pace()

    def hand_out(original: Callable, plan: Any, run: Any, *rest: Any) -> None:
        if step_of(run)[0] >= pace.due:
            forget(run)
        original(plan, run, *rest)

    def keep(original: Callable, plan: Any, run: Any, chunks: tuple) -> None:
        original(plan, run, chunks)
        renewed = {chunk.evaluation: chunk.renewed for chunk in chunks if chunk.renewed is not None}
        if not renewed:
            return
        step, steps = step_of(run)
        pace.left = (math.ceil(steps / every) if pace.left is None else pace.left) - 1
        ratio = 1.0
        if change := changed(pace.before, renewed) / max(1, step - pace.step):
            ratio = (usual / change) ** power
        pace.due, pace.step, pace.before = next_step(step, steps, pace.left, ratio), step, renewed

    return {"wrappers.hand_out_differences": hand_out, "wrappers.keep_differences": keep}


def changed(before: dict[Any, Tensor], now: dict[Any, Tensor]) -> float:
    """‖now − before‖₂ / ‖now‖₂, the mean over rows of (rows, picture tokens, hidden); 0 if nothing was before."""
    rows = [_norm(d.float() - before[key].float()) / _norm(d.float()) for key, d in now.items() if key in before]
    return float(torch.cat(rows).nan_to_num().mean()) if rows else 0.0


def _norm(d: Tensor) -> Tensor:
    return torch.linalg.vector_norm(d, dim=(1, 2))


def next_step(step: int, steps: int, left: int, ratio: float) -> int:
    """When to renew after `step`: at `ratio` times an even pause, so that all that are left have a step each."""
    if not left:
        return steps
    even = (steps - step) / (left + 1)
    return step + max(1, round(min(ratio * even, steps - step - left)))
