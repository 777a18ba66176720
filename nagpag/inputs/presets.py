"""Settings under a name: what each sets beside the defaults of NAG-PAG Guidance (Advanced)."""

from __future__ import annotations

from typing import Any

from ..blocks import PUBLISHED
from .guidance import NEGATIVE_PROMPT, OFF, RENEW_EVERY, SAMPLERS
from .kinds import Choice

# The first three follow the defaults. The others name all that makes them, whatever the defaults become. NAG is as
# strong as ComfyUI's NAGuidance by default, computed once, and ends where the defaults begin: for a node before theirs.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "gentle": {"scale": 1.5},
    "strong": {"scale": 4.5},
    "as published": {
        "reach": "attention",
        "renew_every": 1,
        "blocks": ", ".join(map(str, PUBLISHED)),
        "scale": 3.0,
        "tau": 2.5,
        "alpha": 0.25,
        "perturbation": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
        NEGATIVE_PROMPT.name: OFF,
    },
    "NAG with a negative prompt": {
        "reach": "attention",
        "renew_every": RENEW_EVERY.maximum,
        "blocks": "all",
        "scale": 4.0,
        "tau": 1.5,
        "alpha": 0.5,
        "perturbation": 0.0,
        "start_percent": 0.05,
        "end_percent": 0.44,
        NEGATIVE_PROMPT.name: SAMPLERS,
    },
}
PRESET = Choice(
    name="preset",
    default="default",
    options=tuple(PRESETS),
    does="Sets the inputs above at once, as they then show. It is not saved and not sent: they are.",
)
OWN = "own settings"  # where the inputs are as no preset sets them
