"""ComfyUI's curves: what the stock Curve Editor draws, as a function of progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..inputs.kinds import shortened


def read_curve(curve: Any) -> Callable[[float], float]:
    """A CURVE as a function from progress x to strength y, sampled by the host as its editor shows it.

    curve: what comes over a CURVE link, or its raw form: {"points": [[x, y], …], "interpolation": "monotone_cubic" or
    "linear"}, or the points alone. Left of the first point and right of the last their y holds. Points lie in 0 to 1
    on both axes, as in the editor: beyond 1 it would be the scale that is too small, and below 0 guidance would push
    towards the negative branch. Raises ValueError where that is not so, and where this ComfyUI has no curves to sample.
    """
    try:
        from comfy_api.input import CurveInput
    except ImportError:
        raise ValueError(
            "NAG-PAG: curve: this ComfyUI can't sample a curve, as it has no Curve Editor yet; "
            "use schedule, or a newer ComfyUI"
        ) from None
    try:
        drawn = CurveInput.from_raw(curve)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"NAG-PAG: curve: {shortened(curve)} is not a curve ({type(error).__name__}: {error!s:.200}); valid is the "
            'output of a Curve Editor node, or {"points": [[x, y], …], "interpolation": "monotone_cubic" or "linear"}'
        ) from None
    _check_points(drawn.points)
    # Rounding may lead beyond the points by a hair.
    return lambda x: min(max(float(drawn.interp(x)), 0.0), 1.0)


def _check_points(points: list[tuple[float, float]]) -> None:
    if not points:
        raise ValueError("NAG-PAG: curve has no points, so it says no strength; draw at least one")
    for x, y in points:
        if not (math.isfinite(x) and 0 <= x <= 1):
            raise ValueError(
                f"NAG-PAG: curve point ({x:g}, {y:g}): x is not in 0 to 1, the way from start_percent to end_percent"
            )
        if not (math.isfinite(y) and 0 <= y <= 1):
            raise ValueError(
                f"NAG-PAG: curve point ({x:g}, {y:g}): y is not in 0 to 1, the share of scale; for more raise scale"
            )
