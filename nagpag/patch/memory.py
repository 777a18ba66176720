"""What guidance holds from step to step, told to the host, which makes room for a sampling before it begins.

A merge in the attention with a negative prompt holds a difference for each chosen block, as large as an activation of
the picture: 1.4 GB in all blocks of FLUX.1 at 1024 by 1024 in bfloat16. All else that guidance needs is a few of these,
as cfg needs, which the host reckons with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from .fallback import attempt, words_of
from .negative import prompts_in
from .plan import PLANS, Plan

log = logging.getLogger("nag_pag_flux")


def prepare_sampling(plan: Plan) -> Callable:
    """The PREPARE_SAMPLING wrapper: the host makes room as for so many more rows.

    It reckons by the latent's shape, which serves nothing else there; context windows have it reckon so, too.
    """

    def wrapper(executor, model, noise_shape, conds, *args, **kwargs):
        told = lambda: _enlarged(plan, model, noise_shape, conds, **kwargs)  # noqa: E731
        enlarged = attempt(told, _complain)
        return executor(model, noise_shape if enlarged is None else enlarged, conds, *args, **kwargs)

    return wrapper


def _complain(error: Exception) -> None:
    log.warning("NAG-PAG: memory for what is held between steps is not made room for: %s", words_of(error))


def _enlarged(
    plan: Plan, model: Any, noise_shape: Sequence[int], conds: dict, model_options: dict | None = None, **more: Any
) -> list[int] | None:
    """The shape with as many rows more as take the memory of what is held, rounded up; None where nothing is.

    The first of several applications speaks for all. In context windows each step computes its own.
    """
    options = model_options or {}
    plans = options.get("transformer_options", {}).get(PLANS, (plan,))
    holding = [one for one in plans if one.acts and one.holds_each_block]
    if holding[0] is not plan or options.get("context_handler") is not None:
        return None
    rows, *rest = noise_shape
    held = sum(1 for _ in prompts_in(conds)) * sum(held_bytes(one, model, noise_shape) for one in holding)
    return [rows + math.ceil(held / model.model.memory_required([1, *rest])), *rest]


def held_bytes(plan: Plan, model: Any, noise_shape: Sequence[int]) -> int:
    """Of the differences held between steps for one condition. noise_shape: of the latent, (batch, channels, …)."""
    tokens = math.prod(plan.grid(noise_shape))
    base = model.model
    a_block = noise_shape[0] * tokens * plan.family.width(base.diffusion_model) * base.get_dtype_inference().itemsize
    return len(plan.chosen) * a_block
