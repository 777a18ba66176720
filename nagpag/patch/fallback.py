"""The one place where errors are caught: what goes wrong inside guidance must not cost the user the picture."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import torch

from ..blocks import block_name
from .forward import Forward
from .plan import Plan

log = logging.getLogger("nag_pag_flux")

T = TypeVar("T")


def attempt(work: Callable[[], T], give_up: Callable[[Exception], None]) -> T | None:
    """Do a piece of guidance; where it fails, `give_up` says so, and the caller goes on without it."""
    try:
        return work()
    except Exception as error:
        if _belongs_to_host(error):
            raise
        give_up(error)
        return None


def attempt_in_block(plan: Plan, forward: Forward, position: int, work: Callable[[], None]) -> None:
    """Do a piece of guidance; where it fails, go on without guidance here, and say so once."""
    if position in forward.run.failed:
        return
    attempt(work, lambda error: _give_up(plan, forward, position, error))


def _give_up(plan: Plan, forward: Forward, position: int, error: Exception) -> None:
    # A branch that breaks is lost as a whole; guidance inside the attention is each block's own.
    forward.run.failed.update([position] if plan.merge is None else plan.positions)
    for chunk in forward.chunks:
        chunk.end_branch()
    log.warning(
        "NAG-PAG: %s goes on without guidance from sigma %s on: %s: %s",
        block_name(position, plan.double_blocks),
        "unknown" if forward.sigmas is None else f"{float(forward.sigmas[0]):.4g}",
        type(error).__name__,
        error,
    )


def _belongs_to_host(error: Exception) -> bool:
    """True for out-of-memory and interrupts, which the host must see to act on them."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, comfy.model_management.InterruptProcessingException):
        return True
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
