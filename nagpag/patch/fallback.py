"""The one place where errors are caught: what goes wrong inside guidance must not cost the user the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import torch

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


def _belongs_to_host(error: Exception) -> bool:
    """True for out-of-memory and interrupts, which the host must see to act on them."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, comfy.model_management.InterruptProcessingException):
        return True
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
