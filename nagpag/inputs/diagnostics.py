"""The nodes that show what guidance does: Inspect, Record, Plot."""

from __future__ import annotations

import dataclasses

from .guidance import BLOCKS
from .kinds import Node, Socket

INSPECT = Node(
    id="NAGPAGInspect",
    title="NAG-PAG Inspect Model",
    description="Says what NAG-PAG can do with this model before you patch it: its family, blocks, heads and weights, "
    "what a block spec would guide and cost, which other patches are on it, and what may get in the way. Changes "
    "nothing.",
    aliases=("NAG", "PAG", "model info", "show blocks", "flux structure", "attention heads"),
    inputs=(
        Socket(
            name="model",
            kind="MODEL",
            does="Any model; it is said what works with it. It goes through unchanged.",
        ),
        dataclasses.replace(
            BLOCKS,
            does="A block spec to explain, as NAG-PAG Guidance takes it, such as auto, all or 8:1.5, 12[0-7], s20. "
            "What is wrong with it is said in the text.",
        ),
    ),
    outputs=(
        Socket(name="MODEL", kind="MODEL", does="The model that came in, unchanged."),
        Socket(name="text", kind="STRING", does="What was found, as text."),
    ),
)
RECORD = Node(
    id="NAGPAGRecord",
    title="NAG-PAG Record",
    description="Notes what NAG-PAG guidance does at every step in every block, for NAG-PAG Plot. Goes before or after "
    "NAG-PAG Guidance, in front of the sampler. Recording takes a little time; without this node it takes none.",
    aliases=("NAG", "PAG", "guidance statistics", "diagnostics", "record guidance"),
    inputs=(
        Socket(
            name="model",
            kind="MODEL",
            does="A model that is guided already, or will be guided behind this node.",
        ),
    ),
    outputs=(
        Socket(name="MODEL", kind="MODEL", does="The same model, recorded; connect it to the sampler."),
        Socket(name="record", kind="NAGPAG_RECORD", does="The record, for NAG-PAG Plot."),
    ),
)
PLOT = Node(
    id="NAGPAGPlot",
    title="NAG-PAG Plot",
    description="Draws what guidance did while sampling: the change by step and block and over the picture, the "
    "strength, the share of tokens at the limit. Needs matplotlib in ComfyUI's Python.",
    aliases=("NAG", "PAG", "guidance plot", "diagnostics", "heat map", "guidance statistics"),
    inputs=(
        Socket(
            name="record",
            kind="NAGPAG_RECORD",
            does="The record of the model that was sampled, from NAG-PAG Record.",
        ),
        Socket(
            name="latent",
            kind="LATENT",
            does="The sampler's latent. It tells which run to draw, and that the plot comes after the sampling.",
        ),
    ),
    outputs=(
        Socket(name="IMAGE", kind="IMAGE", does="The plot as a picture."),
        Socket(name="LATENT", kind="LATENT", does="The latent that came in, unchanged."),
        Socket(name="numbers", kind="STRING", does="All numbers as JSON: one row for each step and block."),
    ),
)
