"""One sampling run: its state, and what is said at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..blocks import block_name, blocks_name
from ..schedule import Renewal
from .plan import Plan

log = logging.getLogger("nag_pag_flux")


@dataclass(eq=False)
class Run:
    """What has happened in one sampling run. Of tensors it keeps scalars, and the differences kept for renewal.

    prompts: the identities of the conditions that are the prompt's, as the guider has them. conditional: which of the
    numbered lists of conditions now worked out are; rows: how many rows each condition has. unclear: forwards whose
    rows nobody told apart.
    differences: h⁻ − h⁺ at the merge, by condition and shape. seen: the conditions of the evaluation going on;
    repeated: those that one evaluation asked for more than once (tiles, windows), which can't be told apart.
    """

    renewal: Renewal
    prompts: set[Hashable] = field(default_factory=set)
    conditional: set[int] = field(default_factory=lambda: {0})
    rows: int = 0
    unclear: int = 0
    tried: bool = False
    complained: bool = False
    guided: set[int] = field(default_factory=set)
    differences: dict[Hashable, Tensor] = field(default_factory=dict)
    seen: set[Hashable] = field(default_factory=set)
    repeated: set[Hashable] = field(default_factory=set)
    forwards: int = 0
    guided_sigmas: list[Tensor] = field(default_factory=list)
    renewed_sigmas: list[Tensor] = field(default_factory=list)
    reached: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    statistics: list[Tensor] = field(default_factory=list)

    def guided_blocks(self, plan: Plan) -> list[int]:
        """The chosen blocks in which guidance worked, by position; of a longer reach, those that its branch passed."""
        reached = self.guided if plan.merge is None else self.reached if plan.merge in self.guided else set()
        return sorted(reached & set(plan.blocks))


def outer_sample(plan: Plan) -> Callable:
    """The OUTER_SAMPLE wrapper."""

    def wrapper(executor, *args, **kwargs):
        run = Run(Renewal(plan.settings.renew_every), _prompts(getattr(executor.class_obj, "conds", {})))
        # The guider's options are this run's own copy, dropped by the host at the end: the run goes with them.
        executor.class_obj.model_options["transformer_options"][plan.key] = run
        finished = False
        try:
            samples = executor(*args, **kwargs)
            finished = True
            return samples
        finally:
            run.differences.clear()
            _report(plan, run, finished)

    return wrapper


def _prompts(conds: dict[str, list[dict]]) -> set[Hashable]:
    """Which of a guider's conditions, by name, are the prompt's; some guiders mark a second negative one inside."""
    return {
        cond["uuid"]
        for name, listed in conds.items()
        if "negative" not in name
        for cond in listed
        if "uuid" in cond and cond.get("prompt_type") != "negative"
    }


def _report(plan: Plan, run: Run, finished: bool) -> None:
    """One line that says what was guided, and a warning for needed blocks that the model never called."""
    if finished and run.forwards:
        _warn_unreached(plan, run)
    if run.unclear:
        log.warning(
            "NAG-PAG: %d of %d forwards not guided: another patch (a model function wrapper) runs the batch in parts of "
            "its own and does not say which rows are the prompt's. Switch it off, or set cfg to 1.0.",
            run.unclear,
            run.forwards,
        )
    blocks = run.guided_blocks(plan)
    if not blocks:
        log.info("NAG-PAG guided nothing: %s.", why_nothing(run))
        return
    # Only a run that went well is asked for its numbers: after an error the device may not answer.
    detail = f"{_steps(plan, run)}, {_means(run)}" if finished else "stopped early"
    names = blocks_name(plan.chosen[position] for position in blocks)
    log.info("NAG-PAG guided %s: %s (%s).", names, detail, plan.settings.summary())


def why_nothing(run: Run | None) -> str:
    """Why a run guided nothing, in words."""
    if run is None or not run.forwards:
        return "the model was not called"
    if run.unclear:
        return "nobody told the prompt's rows from others, as said above"
    if not run.tried and not run.complained:
        return (
            "no step of this sampling lay between start_percent and end_percent with a strength above 0, "
            "or no row was conditional"
        )
    return "it failed, as said above" if run.failed or run.complained else "no chosen block was reached"


def _steps(plan: Plan, run: Run) -> str:
    steps = f"{_distinct(run.guided_sigmas)} steps"
    if plan.merge is None:
        return steps
    merged = block_name(plan.merge, plan.double_blocks)
    return f"{steps}, branch merged after {merged} and computed at {_distinct(run.renewed_sigmas)} of them"


def _distinct(sigmas: list[Tensor]) -> int:
    return len(set(_numbers([sigma.reshape(1) for sigma in sigmas]))) if sigmas else 0


def _numbers(tensors: list[Tensor]) -> list:
    """The rows of all: they cross from the device together, from several devices by way of the first."""
    return torch.cat([tensor.to(tensors[0].device) for tensor in tensors]).tolist()


def _means(run: Run) -> str:
    pairs = _numbers(run.statistics)
    change, limited = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return f"mean change {change:.1%}, {limited:.0%} of tokens at the limit"


def _warn_unreached(plan: Plan, run: Run) -> None:
    taken = sorted((run.replaced & plan.needed) - run.reached)
    silent = sorted(plan.needed - run.reached - run.replaced)
    if taken:
        log.warning(
            "NAG-PAG: %s not guided: a node after NAG-PAG Guidance replaced it without "
            "calling what was there. Put NAG-PAG Guidance after that node.",
            _names(plan, taken),
        )
    if silent:
        log.warning(
            "NAG-PAG: %s never reached: another patch skips it or replaced the model's forward "
            "(a block cache, a layer skip, another pack's own FLUX forward). Switch that off, or choose other blocks.",
            _names(plan, silent),
        )


def _names(plan: Plan, positions: list[int]) -> str:
    return ", ".join(block_name(position, plan.double_blocks) for position in positions)
