"""The node that looks for what suits a model: Calibrate."""

from __future__ import annotations

import dataclasses

from .guidance import MOST_SPEC, NEGATIVE_PROMPT, REACH
from .kinds import SEEDS, Node, Number, Socket, Text

CANDIDATES = Text(
    name="candidates",
    default="",
    most=MOST_SPEC,
    lines=True,
    does="Block specs to try, one a line or with semicolons, such as auto; 9-18; 12[0-7]. Empty: the double "
    "blocks from the first, from a quarter, three eighths (auto), half and three quarters of the way to the last. "
    "With a negative prompt blocks count at reach attention alone: leave it empty elsewhere.",
)
ALPHAS = Text(
    name="alphas",
    default="0.2, 0.35, 0.5, 0.75, 1",
    most=1000,
    does="Strengths to try with each, from 0 to 1 with commas. Fewer: faster.",
)
PICTURES = Number(
    name="pictures",
    default=128,
    minimum=2,
    maximum=1024,
    whole=True,
    does="How many pictures each candidate draws. More: surer and slower; it was measured at 128, and a quarter of "
    "that says much less.",
)
STEPS = Number(
    name="steps",
    default=12,
    minimum=1,
    maximum=200,
    whole=True,
    does="Sampling steps of each picture, Euler on the simple schedule. Fewer: faster, further from what you will "
    "draw.",
)
SEED = Number(
    name="seed",
    default=0,
    minimum=0,
    maximum=SEEDS - 1,
    whole=True,
    does="Of the noise, which is the same for all candidates.",
)
SIGMA = Number(
    name="sigma",
    default=0.7,
    minimum=0.05,
    maximum=0.95,
    step=0.05,
    advanced=True,
    does="The noise level at which the model looks at the pictures again. Higher: it minds the layout; lower: the "
    "detail.",
)

CALIBRATE = Node(
    id="NAGPAGCalibrate",
    title="NAG-PAG Calibrate",
    description="Looks for the alpha that suits a model, and without a negative prompt for the blocks: draws your "
    "prompts under each candidate, noises the pictures again and asks the plain model how surely it finds the prompts "
    "in them, beside the empty prompt. Draws at cfg 1. What is drawn is kept: interrupted or asked for more, the next "
    "run goes on from there. Takes a sampling for each candidate and batch. Needs matplotlib in ComfyUI's Python.",
    aliases=("NAG", "PAG", "calibrate guidance", "find blocks", "tune guidance", "block search"),
    inputs=(
        Socket(name="model", kind="MODEL", does="A FLUX model without NAG-PAG guidance."),
        Socket(
            name="positive",
            kind="CONDITIONING",
            does="The prompts to draw. Join several with Conditioning (Combine): each counts as a prompt of its own, "
            "and a dozen different ones say more than one. Whole ones: no areas, masks or timestep ranges.",
        ),
        Socket(
            name="empty",
            kind="CONDITIONING",
            does="The empty prompt: CLIP Text Encode without text. Its text alone counts; guidance and reference "
            "pictures are those of the prompts. It is the negative prompt, too, unless that is off.",
        ),
        Socket(
            name="latent_image",
            kind="LATENT",
            does="An empty latent: the size of the pictures, and in its batch size how many are drawn at once.",
        ),
        Socket(name="vae", kind="VAE", does="Decodes the pictures."),
        *(CANDIDATES, ALPHAS),
        dataclasses.replace(
            REACH,
            needs=(),
            does="Where all candidates push the picture. Turn this or negative_prompt only together with the same "
            "input of NAG-PAG Guidance (Advanced); all else there stays at its default.",
        ),
        dataclasses.replace(
            NEGATIVE_PROMPT,
            needs=(),
            does="What all candidates push the picture away from. sampler's: from the empty prompt, the negative "
            "prompt of most graphs; then alpha alone is looked for. off: from the prompt with a disturbed attention; "
            "then blocks and alpha are.",
        ),
        *(PICTURES, STEPS, SEED, SIGMA),
    ),
    outputs=(
        Socket(name="blocks", kind="STRING", does="The best candidate's block spec, for NAG-PAG Guidance."),
        Socket(
            name="alpha",
            kind="FLOAT",
            does="Its alpha; 0, which switches guidance off, where no candidate was found to do better than no "
            "guidance.",
        ),
        Socket(name="IMAGE", kind="IMAGE", does="All candidates with their errors as a picture."),
        Socket(name="numbers", kind="STRING", does="The same as JSON."),
        Socket(
            name="sheet",
            kind="IMAGE",
            does="Pictures with guidance off and under the best candidate, of the same noise: the first of each of the "
            "first four batches, on one labelled sheet.",
        ),
    ),
)
