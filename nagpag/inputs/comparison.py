"""The node that shows settings side by side: Compare."""

from __future__ import annotations

import dataclasses

from . import calibration, requests
from .kinds import Node, Number, Socket, Text

MOST_PICTURES = 128  # in one comparison: at 1024 by 1024 their batch is 1.6 GB
AXES = Text(
    name="axes",
    default="scale: 1, 3, 5",
    most=10_000,
    lines=True,
    does="What differs, one input of NAG-PAG Guidance (Advanced) a line, such as scale: 0, 1, 3, 5 or "
    "negative_prompt: off, sampler's. Block specs count where negative_prompt is off, and have semicolons between "
    "them: blocks: auto; 9-18. preset: gentle, strong sets several inputs at once. The first line with several values "
    "is the columns, the second the rows; a line with one value holds for all, and what is not named is at its "
    "default. Guidance off is always in it.",
)
SEED = dataclasses.replace(
    calibration.SEED, does="Of the first picture's noise; the same noise for all settings. The next seeds follow it."
)
SEEDS = Number(
    name="seeds",
    default=2,
    minimum=1,
    maximum=MOST_PICTURES,
    whole=True,
    does="How many seeds. More: you see what the settings do and not what one noise does.",
)
STEPS = dataclasses.replace(requests.STEPS, name="steps")
CFG = Number(
    name="cfg",
    default=1.0,
    minimum=0.0,
    maximum=100.0,
    step=0.1,
    does="The sampler's cfg. Leave it at 1 for FLUX.1 [dev] and [schnell]; above 1 each step costs twice.",
)
DENOISE = Number(
    name="denoise",
    default=1.0,
    minimum=0.0,
    maximum=1.0,
    step=0.01,
    does="How much of the latent is drawn anew: 1 all of it, lower values keep more of the picture that comes in.",
)

COMPARE = Node(
    id="NAGPAGCompare",
    title="NAG-PAG Compare",
    description="Draws the same prompt and noise under several settings of NAG-PAG Guidance, and with guidance off, "
    "onto one labelled sheet. Stands in the place of guidance, sampler and VAE decode. What is drawn is kept: "
    "interrupted or asked for more, the next run draws only what is missing.",
    aliases=("NAG", "PAG", "compare guidance", "contact sheet", "xy plot", "grid", "side by side", "before and after"),
    inputs=(
        Socket(name="model", kind="MODEL", does="A FLUX model without NAG-PAG guidance: it is guided here."),
        Socket(name="positive", kind="CONDITIONING", does="The prompt, as for a sampler."),
        Socket(
            name="negative",
            kind="CONDITIONING",
            does="The negative prompt, as for a sampler. At cfg 1 it counts only where negative_prompt is sampler's.",
        ),
        Socket(
            name="latent_image",
            kind="LATENT",
            does="As for a sampler: an empty latent, or a picture to start from. Of a batch each picture gets rows of "
            "its own.",
        ),
        Socket(name="vae", kind="VAE", does="Decodes the pictures."),
        AXES,
        *(SEED, SEEDS, STEPS, CFG, requests.SAMPLER, requests.SCHEDULER, DENOISE),
    ),
    outputs=(
        Socket(
            name="sheet",
            kind="IMAGE",
            does="All pictures with their settings as one picture. A very large one is scaled down.",
        ),
        Socket(name="pictures", kind="IMAGE", does="The single pictures as a batch, each once, at full size."),
        Socket(
            name="numbers",
            kind="STRING",
            does="JSON: of each picture of the batch its seed and settings, and the sheet's rows and columns.",
        ),
    ),
)
