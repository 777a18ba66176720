"""When in the sampling guidance is on."""

from __future__ import annotations


def guided_at(sigma: float, sigma_start: float, sigma_end: float) -> bool:
    """True where `sigma` lies in the guided part of the sampling, both ends included.

    Sigmas fall during sampling, so sigma_start ≥ sigma_end; the rule is the one of ComfyUI's
    own start_percent and end_percent.
    """
    return sigma_end <= sigma <= sigma_start
