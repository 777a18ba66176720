"""The inputs of NAG-PAG guidance: one table of names, defaults, ranges and what each does.

The node, its help, the translations and the README follow this table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Input:
    """One number that the user can set; bounds are inclusive."""

    name: str
    default: float
    minimum: float
    maximum: float
    step: float
    tooltip: str
    advanced: bool = False


SCALE = Input(
    "scale",
    3.0,
    0.0,
    10.0,
    0.1,
    "How far each picture token is pushed away from the negative branch. Higher: firmer structure and "
    "more contrast, then overcooked; lower: closer to the plain picture. 0 switches guidance off.",
)
TAU = Input(
    "tau",
    2.5,
    1.0,
    10.0,
    0.05,
    "Limit on how much a guided token may outgrow the plain one (ratio of L1 norms). Lower: calmer, fewer "
    "burnt spots; higher: stronger but riskier. Matters where tokens hit the limit.",
    advanced=True,
)
ALPHA = Input(
    "alpha",
    0.25,
    0.0,
    1.0,
    0.01,
    "How much of the guided result is blended into the plain one. Higher: the change shows more; "
    "lower: the picture stays closer to the plain one. 0 switches guidance off.",
    advanced=True,
)
START_PERCENT = Input(
    "start_percent",
    0.0,
    0.0,
    1.0,
    0.001,
    "Where in the sampling guidance begins. Early steps decide the layout: raise it to keep the plain "
    "picture's composition and change only its details.",
    advanced=True,
)
END_PERCENT = Input(
    "end_percent",
    1.0,
    0.0,
    1.0,
    0.001,
    "Where in the sampling guidance ends. Late steps decide the fine detail: lower it to change the "
    "layout and leave the texture as the plain model draws it.",
    advanced=True,
)
NUMBERS = (SCALE, TAU, ALPHA, START_PERCENT, END_PERCENT)

BLOCKS_DEFAULT = "auto"
BLOCKS_TOOLTIP = (
    "Which double blocks are guided. Earlier blocks change the layout, later ones the detail; more blocks "
    "make a stronger change. auto (8, 12, 16 on FLUX.1), all, or a list such as 8, 12-14 or "
    "transformer_blocks.8.attn."
)
MODEL_TOOLTIP = (
    "A model of the FLUX family. It goes out patched, for the stock samplers; the one that came in stays as it was."
)

NODE_ID = "NAGPAGGuidance"
DISPLAY_NAME = "NAG-PAG Guidance"
DESCRIPTION = (
    "Guides FLUX inside its attention: pushes each picture token away from what it would be with no "
    "attention at all, within a limit. Needs no negative prompt and no second pass of the model. "
    "NAG (arXiv 2505.21179) with the identity branch of PAG (arXiv 2403.17377)."
)
SEARCH_ALIASES = ("NAG", "PAG", "perturbed attention", "normalized attention guidance", "flux guidance")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    scale, tau, alpha: the s, τ and α of the method. blocks: a block spec as `blocks.parse_blocks`
    reads it. start_percent, end_percent: the guided part of the sampling, as in ComfyUI's own nodes.
    Raises ValueError for a value out of its range.
    """

    scale: float = SCALE.default
    blocks: str = BLOCKS_DEFAULT
    tau: float = TAU.default
    alpha: float = ALPHA.default
    start_percent: float = START_PERCENT.default
    end_percent: float = END_PERCENT.default

    def __post_init__(self) -> None:
        problems = [problem for number in NUMBERS if (problem := out_of_range(number, getattr(self, number.name)))]
        if not problems and self.start_percent > self.end_percent:
            problems.append(
                f"start_percent {self.start_percent:g} is after end_percent {self.end_percent:g}: "
                "guidance would never be on; start_percent must be at most end_percent"
            )
        if problems:
            raise ValueError("NAG-PAG: " + "; ".join(problems))

    @property
    def off(self) -> bool:
        """True where the method leaves the model as it is, bit for bit."""
        return self.scale == 0 or self.alpha == 0

    def summary(self) -> str:
        """The settings in a few words, for log lines."""
        part = (self.start_percent, self.end_percent)
        window = "" if part == (0.0, 1.0) else f", from {part[0]:.0%} to {part[1]:.0%} of the sampling"
        return f"scale {self.scale:g}, tau {self.tau:g}, alpha {self.alpha:g}{window}"


def out_of_range(number: Input, value: float) -> str | None:
    """Say what is wrong with `value` for this input, or None."""
    if isinstance(value, (int, float)) and math.isfinite(value) and number.minimum <= value <= number.maximum:
        return None
    return f"{number.name} {value!r} is not a number from {number.minimum:g} to {number.maximum:g}"
