"""The one place where errors are caught: what goes wrong inside guidance must not cost the user the picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import comfy.model_management
import torch

from .forward import Forward, Visit
from .plan import Plan
from .run import Run

log = logging.getLogger("nag_pag_flux")

T = TypeVar("T")


class Refusal(ValueError):
    """What was asked for can't be done, said before any step is."""


def attempt(work: Callable[[], T], give_up: Callable[[Exception], None]) -> T | None:
    """Do a piece of guidance; where it fails, `give_up` says so, and the caller goes on without it."""
    try:
        return work()
    except Exception as error:
        if _passes_through(error):
            raise
        give_up(error)
        return None


def words_of(error: BaseException) -> str:
    """What went wrong, in words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def attempt_in_block(plan: Plan, forward: Forward, visit: Visit, work: Callable[[], T]) -> T | None:
    """Do a piece of guidance; where it fails, go on without guidance here, and say so once. None where it failed."""
    return attempt(
        lambda: None if visit.failed else work(),
        lambda error: _give_up(plan, forward, visit.position, error),
    )


def leave_alone(run: Run, error: Exception) -> None:
    """Give up guidance for the rest of a sampling, and say so once."""
    if not run.complained:
        log.warning("NAG-PAG: forwards go on without guidance: %s", words_of(error))
    run.complained = True


class Unheard(Exception):
    """The attention of a block that was to be guided or disturbed never asked for ours."""

    def __str__(self) -> str:
        return (
            "another patch's forward does not hand transformer_options on to the block, so that its attention can't be "
            "reached (a block cache, another pack's own forward). Switch that off, or use a negative prompt with "
            "a longer reach"
        )


def _give_up(plan: Plan, forward: Forward, position: int, error: Exception) -> None:
    for lost in _lost_with(plan, position, forward.meets):
        forward.visits[lost].failed = True
        forward.run.failed.add(lost)
    for chunk in forward.chunks:
        chunk.end_branch()
    sigma = "unknown" if forward.sigmas is None else f"{float(forward.sigmas[0]):.4g}"
    _say_once(forward.run.said, plan, position, f"goes on without guidance from sigma {sigma} on", error)


def give_up_without_forward(plan: Plan, position: int, error: Exception) -> None:
    """The same where the forward, and with it the run, has not been found."""
    for lost in _lost_with(plan, position, plan.beside_blocks):
        plan.calls[lost].failed = True
    _say_once(plan.said, plan, position, "goes on without guidance", error)


def _lost_with(plan: Plan, position: int, meets: bool) -> Iterable[int]:
    """A branch that breaks is lost as a whole. Guidance in the attention is each block's own, unless it meets one."""
    return plan.positions if meets or plan.merge is not None else [position]


def _say_once(said: set[str], plan: Plan, position: int, what: str, error: Exception) -> None:
    """Warn; where the same goes wrong in several blocks, the first of them stands for all."""
    cause = words_of(error)
    if cause not in said:
        said.add(cause)
        log.warning("NAG-PAG: %s %s: %s", plan.name(position), what, cause)


def _passes_through(error: Exception) -> bool:
    """True for a refusal, and for out-of-memory and interrupts, which the host must see to act on them."""
    if isinstance(error, Refusal):
        return True
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, comfy.model_management.InterruptProcessingException):
        return True
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
