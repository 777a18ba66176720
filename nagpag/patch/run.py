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

    differences: h⁻ − h⁺ at the merge, by condition and shape. seen: the conditions of the evaluation going on;
    repeated: those that one evaluation asked for more than once (tiles, windows), which can't be told apart.
    """

    renewal: Renewal
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

    def guided_nothing(self, plan: Plan) -> bool:
        """True where no guided step reached a block that would have shown it."""
        blocks = (self.reached & set(plan.blocks)) - self.failed
        return not self.guided_sigmas or not blocks or (plan.merge is not None and plan.merge not in self.reached)


def outer_sample(plan: Plan) -> Callable:
    """The OUTER_SAMPLE wrapper."""

    def wrapper(executor, *args, **kwargs):
        run = Run(Renewal(plan.settings.renew_every))
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


def _report(plan: Plan, run: Run, finished: bool) -> None:
    """One line that says what was guided, and a warning for needed blocks that the model never called."""
    if finished and run.forwards:
        _warn_unreached(plan, run)
    blocks = sorted((run.reached & set(plan.blocks)) - run.failed)
    if run.guided_nothing(plan):
        log.info("NAG-PAG guided nothing: %s.", why_nothing(run))
        return
    # Only a run that went well is asked for its numbers: after an error the device may not answer.
    detail = f"{_steps(plan, run)}, {_means(run)}" if finished else "stopped early"
    guided = blocks_name(plan.chosen[position] for position in blocks)
    log.info("NAG-PAG guided %s: %s (%s).", guided, detail, plan.settings.summary())


def why_nothing(run: Run | None) -> str:
    """Why a run guided nothing, in words."""
    if run is None or not run.forwards:
        return "the model was not called"
    if not run.guided_sigmas:
        return (
            "no step of this sampling lay between start_percent and end_percent with a strength above 0, "
            "or no row was conditional"
        )
    return "no chosen block was reached" if not run.failed else "it failed, as said above"


def _steps(plan: Plan, run: Run) -> str:
    steps = f"{_distinct(run.guided_sigmas)} steps"
    if plan.merge is None:
        return steps
    merged = block_name(plan.merge, plan.double_blocks)
    return f"{steps}, branch merged after {merged} and computed at {_distinct(run.renewed_sigmas)} of them"


def _distinct(sigmas: list[Tensor]) -> int:
    return len(set(torch.stack(sigmas).tolist())) if sigmas else 0


def _means(run: Run) -> str:
    change, limited = torch.cat(run.statistics).mean(dim=0).tolist()
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
