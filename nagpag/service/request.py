"""What can be asked of the service: two endpoints, the fields of each from the one table, and what goes together.

The request models, the OpenAPI document, the command line's options and docs/api.md follow this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import blocks
from ..inputs import requests as table
from ..inputs.guidance import MOST_SPEC, START_PERCENT
from ..inputs.kinds import Input

# What changes the answer and not the picture.
OF_THE_ANSWER: tuple[Input, ...] = (table.NUMBERS, table.WAIT, table.CLIENT_ID)
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
    *OF_THE_ANSWER,
)
IMAGE_TO_IMAGE: tuple[Input, ...] = (table.PROMPT, table.IMAGE_URL, table.STRENGTH, *TEXT_TO_IMAGE[1:])
# Path and command: the shipped graph that runs, and the fields.
ENDPOINTS = {
    "text-to-image": ("flux_dev_text_to_image", TEXT_TO_IMAGE),
    "image-to-image": ("flux_dev_image_to_image", IMAGE_TO_IMAGE),
}
# A picture of 32 MiB as a data: URI is a third larger.
MOST_BODY = {"text-to-image": 2**20, "image-to-image": 45 * 2**20}


def layers_as_spec(layers: Iterable[str]) -> str:
    """The list as the node's block spec, such as "8, double_blocks.12"."""
    return ", ".join(layers)


def with_negative(named: dict[str, Any]) -> dict[str, Any]:
    """The fields that are named, with an empty negative prompt where neither one is nor a way to disturb the branch.

    Whoever says how a branch is disturbed wants that, and one that carries a negative prompt is not.
    """
    if table.DISTURBING & named.keys() or named.get(table.NEGATIVE_PROMPT.name) is not None:
        return named
    return {**named, table.NEGATIVE_PROMPT.name: ""}


def problems_between(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, rule) where fields that are valid by themselves don't go together, or a layer's name means nothing.

    values: the fields that are valid by themselves; of the layers any value. What takes a field that is not there is
    left out.
    """
    return [*_layer_problems(values.get(table.LAYERS.name)), *_window_problems(values)]


def _layer_problems(layers: Any) -> list[tuple[str, str]]:
    if not isinstance(layers, (list, tuple)):
        return []
    if sum(len(layer) for layer in layers if isinstance(layer, str)) > MOST_SPEC:
        return [(table.LAYERS.name, f"at most {MOST_SPEC} characters in all")]
    texts = [(i, layer) for i, layer in enumerate(layers[: table.LAYERS.most]) if isinstance(layer, str)]
    found = [(f"{table.LAYERS.name}/{i}", rule) for i, layer in texts if (rule := _spec_problem(layer))]
    # What is valid is said once.
    found[1:] = [(place, rule.removesuffix(f" {blocks.valid_specs()}")) for place, rule in found[1:]]
    if not found and 0 < len(layers) == len(texts) and (rule := _spec_problem(layers_as_spec(layers))):
        found.append((table.LAYERS.name, rule))
    return found


def _window_problems(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    start, end = (table.GUIDANCE_FIELDS[name].name for name in ("start_percent", "end_percent"))
    if {start, end} <= values.keys() and values[start] > values[end]:
        unasked = f" ({values[start]:g} where it isn't given)" if values[start] == START_PERCENT.default else ""
        return [(start, f"at most {end}, or guidance would never be on{unasked}")]
    return []


def _spec_problem(spec: str) -> str | None:
    try:
        blocks.check_spec(spec)
    except ValueError as error:
        return str(error)
    return None
