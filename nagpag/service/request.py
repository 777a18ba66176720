"""What can be asked of the service: two endpoints, the fields of each from the one table, and what goes together.

The request models, the OpenAPI document, the command line's options and docs/api.md follow this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import blocks
from ..inputs import requests as table
from ..inputs.guidance import REACH
from ..inputs.kinds import Input

TEXT_TO_IMAGE: tuple[Input, ...] = (
    table.PROMPT,
    table.NEGATIVE_PROMPT,
    table.WIDTH,
    table.HEIGHT,
    table.STEPS,
    table.DISTILLED_GUIDANCE,
    table.GUIDANCE_FIELDS["scale"],
    table.LAYERS,
    table.SEED,
    *(item for name, item in table.GUIDANCE_FIELDS.items() if name != "scale"),
    table.NUM_IMAGES,
    table.SAMPLER,
    table.SCHEDULER,
    *table.FILES,
    table.WEIGHT_DTYPE,
    table.CLIP_TYPE,
    table.WAIT,
    table.CLIENT_ID,
)
IMAGE_TO_IMAGE: tuple[Input, ...] = (table.PROMPT, table.IMAGE_URL, table.STRENGTH, *TEXT_TO_IMAGE[1:])
# Path and command: the shipped graph that runs, and the fields.
ENDPOINTS = {
    "text-to-image": ("flux_dev_text_to_image", TEXT_TO_IMAGE),
    "image-to-image": ("flux_dev_image_to_image", IMAGE_TO_IMAGE),
}
# A picture of 32 MiB as a data: URI is a third larger.
MOST_BODY = {"text-to-image": 2**20, "image-to-image": 45 * 2**20}


_LONGER = ", ".join(map(repr, REACH.options[1:]))  # than the attention


def layers_as_spec(layers: Iterable[str]) -> str:
    """The list as the node's block spec, such as "8, double_blocks.12"."""
    return ", ".join(layers)


def problems_between(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, rule) where fields that are valid by themselves don't go together, or a layer's name means nothing."""
    name, layers = table.LAYERS.name, values[table.LAYERS.name]
    start, end = (table.GUIDANCE_FIELDS[name].name for name in ("start_percent", "end_percent"))
    found = [(f"{name}/{i}", rule) for i, layer in enumerate(layers) if (rule := _spec_problem(layer))]
    if not found and (rule := _spec_problem(layers_as_spec(layers))):
        found.append((name, rule))
    reach, reach_blocks = (table.GUIDANCE_FIELDS[name].name for name in ("reach", "reach_blocks"))
    to_attention = (values[reach], values[reach_blocks]) == (REACH.options[0], 0)
    if values[table.NEGATIVE_PROMPT.name] is not None and to_attention:
        found.append((reach, f"with {table.NEGATIVE_PROMPT.name} one of {_LONGER}"))
    if values[start] > values[end]:
        found.append((start, f"at most {end}, or guidance would never be on"))
    return found


def _spec_problem(spec: str) -> str | None:
    try:
        blocks.check_spec(spec)
    except ValueError as error:
        return str(error)
    return None
