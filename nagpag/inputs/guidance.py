"""The two nodes that guide, and every input of them."""

from __future__ import annotations

from ..schedule import SHAPES
from .kinds import LINKED, Choice, Flag, Input, Need, Node, Number, Socket, Text

MODEL = Socket(
    name="model",
    kind="MODEL",
    does="Any model: reach prediction with a negative prompt works with all. More works with these: FLUX, Qwen-Image, "
    "Z-Image, Lumina 2, Wan, HunyuanVideo, Hunyuan Image, SD 3, LTXV, LTX-2, AuraFlow, Kandinsky 5, Cosmos Predict 2, "
    "Anima, Krea 2, OmniGen 2, Lens, MiniMax H3. It goes out patched, for the stock samplers; the one that came in "
    "stays as it was.",
)

# --- what ---

SCALE = Number(
    name="scale",
    default=3.0,
    minimum=0.0,
    maximum=10.0,
    step=0.1,
    does="How far each picture token is pushed away from the negative branch. Higher: firmer structure and "
    "more contrast, then overcooked; lower: closer to the plain picture. 0 switches guidance off.",
)
ALPHA = Number(
    name="alpha",
    default=0.5,
    minimum=0.0,
    maximum=1.0,
    step=0.01,
    does="How much of the guided result is blended into the plain one. Higher: the change shows more; "
    "lower: the picture stays closer to the plain one. 0 switches guidance off.",
)
TAU = Number(
    name="tau",
    default=1.75,
    minimum=1.0,
    maximum=10.0,
    step=0.05,
    does="Limit on how much a guided token may outgrow the plain one (ratio of L1 norms). Lower: calmer, fewer "
    "burnt spots; higher: stronger but riskier. Matters where tokens hit the limit.",
)

# --- where ---

MOST_SPEC = 10_000  # characters of a block spec: one that names every head of every block of FLUX.1 has half of that
BLOCKS = Text(
    name="blocks",
    default="auto",
    most=MOST_SPEC,
    does="Which blocks are guided where the branch carries no negative prompt, or with reach attention. Earlier blocks"
    " change the layout, later ones the detail; more blocks make a stronger change. auto (the later ones, 7-18 on"
    " FLUX.1), all, or a list such as 8, 12-14, s20 (a single block), 8:1.5 (its own scale), 12[0-7] (its heads 0"
    " to 7) or transformer_blocks.8.attn.",
)
REACH = Choice(
    name="reach",
    default="prediction",
    options=("attention", "double blocks", "output", "prediction"),
    needs=(Need("reach_blocks", (0,)),),
    does="Where the picture is pushed away from the negative branch. prediction: in what the model predicts, before "
    "the sampler is given it. The branch is then a whole evaluation of the model, which ComfyUI works out as it does "
    "for cfg, so that every model can have it; a token is one place of the latent. The others push inside the model, "
    "for less than a whole pass: after the last block of all (output), after the last of the double blocks, or in the "
    "chosen blocks themselves (attention: free, or with a negative prompt that of NAG).",
)
REACH_BLOCKS = Number(
    name="reach_blocks",
    default=0,
    minimum=0,
    maximum=100,
    whole=True,
    does="Exact reach: merge the negative branch this many blocks beyond the first chosen one, instead of where "
    "reach says. More blocks: more meaningful change, more cost. 0: follow reach.",
)

# --- against what ---

OFF, SAMPLERS = "off", "sampler's"  # whose negative prompt
NEGATIVE_PROMPT = Choice(
    name="negative_prompt",
    default=SAMPLERS,
    options=(OFF, SAMPLERS),
    needs=(Need("negative_conditioning", (None,)),),
    does="Whose text the negative branch carries. sampler's: the negative prompt that is wired to the sampler (an "
    "empty text will do), which is ignored at cfg 1 without this. Above cfg 1 "
    "and with reach prediction it costs nothing more, as cfg has it computed anyway, and both predictions are pushed "
    "alike, so that cfg does not enlarge the push. off, or where the sampler has none: the prompt's own, and the "
    "attention of the chosen blocks is disturbed instead.",
)
NEGATIVE_CONDITIONING = Socket(
    name="negative_conditioning",
    kind="CONDITIONING",
    default=None,
    does="A negative prompt for the branch that wins over the sampler's: for guiders that have none, such as Basic "
    "Guider, or to have another one here than there.",
)
NEGATIVE = Choice(
    name="negative",
    default="identity",
    options=("identity", "softened", "mean", "identity + text"),
    needs=(Need("perturbation", above=0),),
    does="What the negative branch's attention is. identity: each token sees only itself, a strong disturbance; "
    "softened: the same attention blurred, gentler; mean: all tokens see the same average; "
    "identity + text: each token sees itself and the prompt, so that the prompt's content is disturbed less.",
)
TEMPERATURE = Number(
    name="temperature",
    default=2.0,
    minimum=1.0,
    maximum=100.0,
    step=0.1,
    needs=(Need("negative", ("softened",)),),
    does="With negative softened: how much its attention is blurred. Higher: a stronger disturbance, so a stronger "
    "change of the picture; 1: none. With the other negatives it does nothing.",
)
PERTURBATION = Number(
    name="perturbation",
    default=0.1,
    minimum=0.0,
    maximum=1.0,
    step=0.05,
    does="How much of the negative attention goes into a branch that carries no negative prompt; the rest stays the "
    "plain attention. Lower: gentler, closer to the plain picture. 0: none, which switches guidance off there.",
)

DISTURBING = (BLOCKS, NEGATIVE, TEMPERATURE, PERTURBATION)  # what they say holds where no negative prompt is carried

# --- when ---

START_PERCENT = Number(
    name="start_percent",
    default=0.45,
    minimum=0.0,
    maximum=1.0,
    step=0.001,
    does="Where in the sampling guidance begins. Early steps decide the layout: raise it to keep the plain "
    "picture's composition and change only its details; lower it where the negative prompt is to decide what is there.",
)
END_PERCENT = Number(
    name="end_percent",
    default=1.0,
    minimum=0.0,
    maximum=1.0,
    step=0.001,
    does="Where in the sampling guidance ends. Late steps decide the fine detail: lower it to change the "
    "layout and leave the texture as the plain model draws it.",
)
SCHEDULE = Choice(
    name="schedule",
    default="constant",
    options=tuple(SHAPES),
    needs=(Need("curve", (None,)),),
    does="How the scale changes between start_percent and end_percent: the same all along, fading out (works on the "
    "layout, spares the texture), fading in (the other way round), or a bell (strongest in the middle). A curve wins "
    "over it.",
)
CURVE = Socket(
    name="curve",
    kind="CURVE",
    default=None,
    does="A drawn strength, from a Curve Editor node, instead of schedule. From left to right: from start_percent to "
    "end_percent of the sampling; from bottom to top: none of the scale to all of it. Where it is 0 guidance is off "
    "and costs nothing.",
)
RENEW_EVERY = Number(
    name="renew_every",
    default=0,
    minimum=0,
    maximum=20,
    whole=True,
    needs=(
        Need("reach", ("double blocks", "output", "prediction")),
        Need("reach_blocks", above=0),
        Need("negative_prompt", (SAMPLERS,)),
        Need("negative_conditioning", (LINKED,)),
    ),
    does="Compute the negative branch at every so many steps and reuse its difference in between. 0: by itself, so "
    "that a difference stands for at most 30 % of the sampling (every 6th of 20 steps, every 2nd of 8); 1: every step; "
    "higher: faster, a little less exact. Each sampling counts its own steps, so does each part of one that is split "
    "(SplitSigmas). With reach attention and without a negative prompt it does nothing. Nor above "
    "cfg 1 with reach prediction and the sampler's negative prompt.",
)

# --- who ---

GUIDE_UNCONDITIONAL = Flag(
    name="guide_unconditional",
    default=False,  # what it needs is told by the sampling alone: no negative prompt, or one of zeros
    does="With cfg above 1: guide the negative prompt's own prediction as well. On: guidance moves both predictions, "
    "and cfg enlarges only what it does differently in the two; off: cfg enlarges all that it does. "
    "Where the branch carries a negative prompt it does nothing.",
)

# --- the nodes ---

GUIDED = Socket(name="MODEL", kind="MODEL", does="The guided model, for any sampler.")
_DESCRIPTION = (
    "Guides FLUX and other diffusion models, at cfg 1: pushes the picture away from what it would be under the "
    "negative prompt, or with a disturbed attention where there is none, within a limit. Costs about a tenth of a "
    "step at 20 steps. The limit is that of NAG (arXiv 2505.21179), the disturbed attention that of PAG (arXiv "
    "2403.17377)."
)
# The host finds a node by what looks like one of these; web/search.js says where it then stands among others.
_ALIASES = (
    *("NAG", "PAG", "NAG-PAG", "SLG", "skip layer guidance", "better quality"),
    *("attention guidance", "perturbed attention", "normalized attention guidance"),
    *("flux guidance", "negative prompt", "negative prompt at cfg 1"),
)

GUIDANCE = Node(
    id="NAGPAGGuidance",
    title="NAG-PAG Guidance",
    description=_DESCRIPTION,
    aliases=_ALIASES,
    inputs=(MODEL, SCALE, BLOCKS, START_PERCENT, END_PERCENT, NEGATIVE_PROMPT),
    outputs=(GUIDED,),
)
ADVANCED = Node(
    id="NAGPAGGuidanceAdvanced",
    title="NAG-PAG Guidance (Advanced)",
    description=f"NAG-PAG Guidance with all that can be turned. {_DESCRIPTION}",
    aliases=_ALIASES,
    inputs=(
        MODEL,
        *(SCALE, ALPHA, TAU),
        *(BLOCKS, REACH, REACH_BLOCKS),
        *(NEGATIVE_PROMPT, NEGATIVE_CONDITIONING, NEGATIVE, TEMPERATURE, PERTURBATION),
        *(START_PERCENT, END_PERCENT, SCHEDULE, CURVE, RENEW_EVERY),
        GUIDE_UNCONDITIONAL,
    ),
    outputs=(GUIDED,),
)
# All that sets the method, curve aside: the plain values.
INPUTS: tuple[Input, ...] = ADVANCED.widgets
# The widgets of NAGPAGGuidance in workflows of before it had a sister, by position: the first six, twelve or all.
SAVED_WIDGETS: tuple[Input, ...] = (
    *(SCALE, BLOCKS, TAU, ALPHA, START_PERCENT, END_PERCENT),
    *(REACH, RENEW_EVERY, NEGATIVE, TEMPERATURE, PERTURBATION, REACH_BLOCKS),
    *(SCHEDULE, GUIDE_UNCONDITIONAL),
)
