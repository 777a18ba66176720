"""Settings under a name: what each sets beside the defaults of NAG-PAG Guidance (Advanced)."""

from __future__ import annotations

from typing import Any

from ..blocks import PUBLISHED
from .guidance import NEGATIVE_PROMPT, SAMPLERS
from .kinds import Choice

# The strengths of gentle and strong are the outer two that Calibrate tries.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "gentle": {"alpha": 0.05},
    "strong": {"alpha": 0.3},
    "as published": {
        "blocks": ", ".join(map(str, PUBLISHED)),
        "reach": "attention",
        "tau": 2.5,
        "alpha": 0.25,
        "perturbation": 1.0,
        "renew_every": 1,
    },
    "negative prompt": {
        NEGATIVE_PROMPT.name: SAMPLERS,
        "scale": 4.0,
        "tau": 2.5,
        "alpha": 0.25,
        "perturbation": 0.0,
    },
}
PRESET = Choice(
    name="preset",
    default="default",
    options=tuple(PRESETS),
    does="Several inputs at once, by a name; what else is named wins over it.",
)
