"""The inputs of NAG-PAG guidance: one table of names, defaults, ranges and what each does.

The node, its help, the translations and the README follow this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .schedule import SHAPES


@dataclass(frozen=True)
class Number:
    """A number that the user can set; bounds are inclusive. A whole number where `default` is an int."""

    name: str
    default: float
    minimum: float
    maximum: float
    step: float
    tooltip: str
    advanced: bool = False

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None."""
        kinds = int if isinstance(self.default, int) else (int, float)
        if isinstance(value, kinds) and math.isfinite(value) and self.minimum <= value <= self.maximum:
            return None
        whole = "whole " if isinstance(self.default, int) else ""
        return f"{self.name} {value!r} is not a {whole}number from {self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    name: str
    default: str
    options: tuple[str, ...]
    tooltip: str
    advanced: bool = False

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None."""
        if value in self.options:
            return None
        return f"{self.name} {value!r} is not one of {', '.join(map(repr, self.options))}"


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    name: str
    default: bool
    tooltip: str
    advanced: bool = False

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None."""
        return None if isinstance(value, bool) else f"{self.name} {value!r} is not true or false"


@dataclass(frozen=True)
class Text:
    """A line of text; what it may say is checked where it is read."""

    name: str
    default: str
    tooltip: str
    advanced: bool = False

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None."""
        return None if isinstance(value, str) else f"{self.name} {value!r} is not a text"


Input = Number | Choice | Flag | Text

SCALE = Number(
    "scale",
    3.0,
    0.0,
    10.0,
    0.1,
    "How far each picture token is pushed away from the negative branch. Higher: firmer structure and "
    "more contrast, then overcooked; lower: closer to the plain picture. 0 switches guidance off.",
)
BLOCKS = Text(
    "blocks",
    "auto",
    "Which blocks are guided. Earlier blocks change the layout, later ones the detail; more blocks "
    "make a stronger change. auto (the later ones, 7-18 on FLUX.1), all, or a list such as 8, 12-14, s20 (a single block), "
    "8:1.5 (its own scale), 12[0-7] (its heads 0 to 7) or transformer_blocks.8.attn.",
)
TAU = Number(
    "tau",
    1.5,
    1.0,
    10.0,
    0.05,
    "Limit on how much a guided token may outgrow the plain one (ratio of L1 norms). Lower: calmer, fewer "
    "burnt spots; higher: stronger but riskier. Matters where tokens hit the limit.",
    advanced=True,
)
ALPHA = Number(
    "alpha",
    0.15,
    0.0,
    1.0,
    0.01,
    "How much of the guided result is blended into the plain one. Higher: the change shows more; "
    "lower: the picture stays closer to the plain one. 0 switches guidance off.",
    advanced=True,
)
START_PERCENT = Number(
    "start_percent",
    0.0,
    0.0,
    1.0,
    0.001,
    "Where in the sampling guidance begins. Early steps decide the layout: raise it to keep the plain "
    "picture's composition and change only its details.",
    advanced=True,
)
END_PERCENT = Number(
    "end_percent",
    1.0,
    0.0,
    1.0,
    0.001,
    "Where in the sampling guidance ends. Late steps decide the fine detail: lower it to change the "
    "layout and leave the texture as the plain model draws it.",
    advanced=True,
)
REACH = Choice(
    "reach",
    "double blocks",
    ("attention", "double blocks", "output"),
    "How far the negative branch runs on before the picture is pushed away from it: not at all (attention, free), "
    "to the last double block, or to the last block of all (output; costs most). Further: the model itself turns "
    "the disturbance into a worse picture to avoid, so the change is more meaningful.",
)
RENEW_EVERY = Number(
    "renew_every",
    4,
    1,
    20,
    1,
    "With a reach beyond the attention: compute the negative branch at every so many steps and reuse its "
    "difference in between. Higher: faster, a little less exact; 1: every step. "
    "With reach attention it does nothing, as nothing would be saved.",
)
NEGATIVE = Choice(
    "negative",
    "identity",
    ("identity", "softened", "mean", "identity + text"),
    "What the negative branch's attention is. identity: each token sees only itself, a strong disturbance; "
    "softened: the same attention blurred, gentler; mean: all tokens see the same average; "
    "identity + text: each token sees itself and the prompt, so that the prompt's content is disturbed less.",
    advanced=True,
)
TEMPERATURE = Number(
    "temperature",
    2.0,
    1.0,
    100.0,
    0.1,
    "With negative softened: how much its attention is blurred. Higher: a stronger disturbance, so a stronger "
    "change of the picture; 1: none. With the other negatives it does nothing.",
    advanced=True,
)
PERTURBATION = Number(
    "perturbation",
    0.3,
    0.0,
    1.0,
    0.05,
    "How much of the negative attention goes into the branch; the rest stays the plain attention. Lower: gentler, "
    "closer to the plain picture. 0 switches guidance off.",
    advanced=True,
)
REACH_BLOCKS = Number(
    "reach_blocks",
    0,
    0,
    100,
    1,
    "Exact reach: merge the negative branch this many blocks beyond the first chosen one, instead of where "
    "reach says. More blocks: more meaningful change, more cost. 0: follow reach.",
    advanced=True,
)
SCHEDULE = Choice(
    "schedule",
    "constant",
    tuple(SHAPES),
    "How the scale changes between start_percent and end_percent: the same all along, fading out (works on the layout, "
    "spares the texture), fading in (the other way round), or a bell (strongest in the middle). A curve wins over it.",
)
GUIDE_UNCONDITIONAL = Flag(
    "guide_unconditional",
    False,
    "With cfg above 1: guide the negative prompt's own prediction as well. On: guidance moves both predictions, and cfg "
    "enlarges only what it does differently in the two; off: cfg enlarges all that it does.",
    advanced=True,
)
# In the order of the node. What came after the first version goes to the end, so that saved workflows stay right.
FIRST_INPUTS = (SCALE, BLOCKS, TAU, ALPHA, START_PERCENT, END_PERCENT)
LATER_INPUTS = (
    *(REACH, RENEW_EVERY, NEGATIVE, TEMPERATURE, PERTURBATION, REACH_BLOCKS),
    *(SCHEDULE, GUIDE_UNCONDITIONAL),
)
INPUTS: tuple[Input, ...] = (*FIRST_INPUTS, *LATER_INPUTS)

MODEL_TOOLTIP = (
    "A model of the FLUX family. It goes out patched, for the stock samplers; the one that came in stays as it was."
)

# A socket behind the inputs above.
CURVE = "curve"
CURVE_TOOLTIP = (
    "A drawn strength, from a Curve Editor node, instead of schedule. From left to right: from start_percent to "
    "end_percent of the sampling; from bottom to top: none of the scale to all of it. Where it is 0 guidance is off "
    "and costs nothing."
)

OUTPUT_TOOLTIP = "The guided model, for any sampler."

NODE_ID = "NAGPAGGuidance"
DISPLAY_NAME = "NAG-PAG Guidance"
DESCRIPTION = (
    "Guides FLUX from within: pushes each picture token away from what it would be with a disturbed "
    "attention, within a limit. Needs no negative prompt and no second pass of the model. "
    "NAG (arXiv 2505.21179) with the identity branch of PAG (arXiv 2403.17377)."
)
SEARCH_ALIASES = ("NAG", "PAG", "perturbed attention", "normalized attention guidance", "flux guidance")


@dataclass(frozen=True)
class Settings:
    """What the user asked for; each field is the input of that name.

    blocks: a block spec as `blocks.parse_blocks` reads it. start_percent, end_percent: the guided part of
    the sampling, as in ComfyUI's own nodes. curve: what multiplies the scale, in [0, 1], at each progress in [0, 1]
    between the two; None to follow schedule. Raises ValueError that lists every value out of its range.
    """

    scale: float = SCALE.default
    blocks: str = BLOCKS.default
    tau: float = TAU.default
    alpha: float = ALPHA.default
    start_percent: float = START_PERCENT.default
    end_percent: float = END_PERCENT.default
    reach: str = REACH.default
    renew_every: int = int(RENEW_EVERY.default)
    negative: str = NEGATIVE.default
    temperature: float = TEMPERATURE.default
    perturbation: float = PERTURBATION.default
    reach_blocks: int = int(REACH_BLOCKS.default)
    schedule: str = SCHEDULE.default
    guide_unconditional: bool = GUIDE_UNCONDITIONAL.default
    curve: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        problems = [problem for item in INPUTS if (problem := item.problem(getattr(self, item.name)))]
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
        return self.scale == 0 or self.alpha == 0 or self.perturbation == 0

    @property
    def varies(self) -> bool:
        """True where the strength depends on the step."""
        return self.curve is not None or self.schedule != SCHEDULE.default

    def strength(self, progress: float) -> float:
        """What multiplies the scale at this progress, in [0, 1], between start_percent and end_percent."""
        return (self.curve or SHAPES[self.schedule])(progress)

    def summary(self) -> str:
        """The settings in a few words, for log lines."""
        part = (self.start_percent, self.end_percent)
        words = [f"scale {self.scale:g}", f"tau {self.tau:g}", f"alpha {self.alpha:g}", self.branch()]
        if part != (0.0, 1.0):
            words.append(f"from {part[0]:.0%} to {part[1]:.0%} of the sampling")
        if self.varies:
            words.append("along a curve" if self.curve else self.schedule)
        if self.guide_unconditional:
            words.append("unconditional rows too")
        return ", ".join(words)

    def branch(self) -> str:
        """The negative branch in a few words."""
        temperature = f" at temperature {self.temperature:g}" if self.negative == "softened" else ""
        share = f" by {self.perturbation:g}" if self.perturbation != 1 else ""
        return f"{self.negative}{temperature}{share}"


# --- the nodes that show what guidance does ---


@dataclass(frozen=True)
class NodeTexts:
    """What a node without a table of numbers says of itself; inputs and outputs by name, in the order of the node."""

    id: str
    display_name: str
    description: str
    search_aliases: tuple[str, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]


INSPECT = NodeTexts(
    "NAGPAGInspect",
    "NAG-PAG Inspect Model",
    "Says what NAG-PAG can do with this model before you patch it: its family, blocks, heads and weights, what a block "
    "spec would guide and cost, which other patches are on it, and what may get in the way. Changes nothing.",
    ("NAG", "PAG", "model info", "show blocks", "flux structure", "attention heads"),
    {
        "model": "Any model; one that can't be guided is told why. It goes through unchanged.",
        "blocks": "A block spec to explain, as NAG-PAG Guidance takes it, such as auto, all or 8:1.5, 12[0-7], s20. "
        "What is wrong with it is said in the text.",
    },
    {"MODEL": "The model that came in, unchanged.", "text": "What was found, as text."},
)
RECORD = NodeTexts(
    "NAGPAGRecord",
    "NAG-PAG Record",
    "Notes what NAG-PAG guidance does at every step in every block, for NAG-PAG Plot. Goes before or after NAG-PAG "
    "Guidance, in front of the sampler. Recording takes a little time; without this node it takes none.",
    ("NAG", "PAG", "guidance statistics", "diagnostics", "record guidance"),
    {"model": "A model that is guided already, or will be guided behind this node."},
    {"MODEL": "The same model, recorded; connect it to the sampler.", "record": "The record, for NAG-PAG Plot."},
)
PLOT = NodeTexts(
    "NAGPAGPlot",
    "NAG-PAG Plot",
    "Draws what guidance did while sampling: the change by step and block and over the picture, the strength, the share "
    "of tokens at the limit. Needs matplotlib in ComfyUI's Python.",
    ("NAG", "PAG", "guidance plot", "diagnostics", "heat map", "guidance statistics"),
    {
        "record": "The record of the model that was sampled, from NAG-PAG Record.",
        "latent": "The sampler's latent. It tells which run to draw, and that the plot comes after the sampling.",
    },
    {
        "IMAGE": "The plot as a picture.",
        "LATENT": "The latent that came in, unchanged.",
        "numbers": "All numbers as JSON: one row for each step and block.",
    },
)
CALIBRATE = NodeTexts(
    "NAGPAGCalibrate",
    "NAG-PAG Calibrate",
    "Looks for the blocks and the alpha that suit a model: draws your prompts under each candidate, noises the pictures again "
    "and asks the plain model how surely it finds the prompts in them, beside the empty prompt. Draws at cfg 1. Takes a "
    "sampling for each candidate and batch. Needs matplotlib in ComfyUI's Python.",
    ("NAG", "PAG", "calibrate guidance", "find blocks", "tune guidance", "block search"),
    {
        "model": "A FLUX model without NAG-PAG guidance.",
        "positive": "The prompts to draw. Join several with Conditioning (Combine): each counts as a prompt of its own, and "
        "a dozen different ones say more than one. Whole ones: no areas, masks or timestep ranges.",
        "empty": "The empty prompt: CLIP Text Encode without text. Its text alone counts; guidance and reference pictures are "
        "those of the prompts.",
        "latent_image": "An empty latent: the size of the pictures, and in its batch size how many are drawn at once.",
        "candidates": "Block specs to try, one a line or with semicolons, such as auto; 9-18; 12[0-7]. Empty: the double "
        "blocks from the first, from a quarter, three eighths (auto), half and three quarters of the way to the last.",
        "alphas": "Strengths to try with each, from 0 to 1 with commas. Fewer: faster.",
        "reach": "Of all candidates; set the same in NAG-PAG Guidance, and leave its other inputs at their defaults, as they "
        "are here.",
        "pictures": "How many pictures each candidate draws. More: surer and slower; it was measured at 128, and a quarter of "
        "that says much less.",
        "steps": "Sampling steps of each picture, Euler on the simple schedule. Fewer: faster, further from what you will draw.",
        "seed": "Of the noise, which is the same for all candidates.",
        "sigma": "The noise level at which the model looks at the pictures again. Higher: it minds the layout; lower: the detail.",
    },
    {
        "blocks": "The best candidate's block spec, for NAG-PAG Guidance.",
        "alpha": "Its alpha; 0, which switches guidance off, where no candidate was found to do better than no guidance.",
        "IMAGE": "All candidates with their errors as a picture.",
        "numbers": "The same as JSON.",
    },
)
OTHER_NODES = (INSPECT, RECORD, PLOT, CALIBRATE)
