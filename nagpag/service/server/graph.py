"""A request as a ComfyUI prompt: the shipped API graph with the request's values in it."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

from ...inputs import requests as table
from ...inputs.guidance import ADVANCED, NEGATIVE_PROMPT, OFF, SAMPLERS
from ...inputs.kinds import Input
from .. import request
from ..graphs import Graph, node_of, recorded, with_all_inputs
from .schema import Request

SHIPPED = Path(__file__).resolve().parents[3] / "workflows" / "api"
LEAST_STRENGTH = 0.01  # the sampler's schedule has steps / strength steps in all


def build(endpoint: str, asked: Request) -> Graph:
    """The graph that makes what is asked: a whole request, with file names and a seed.

    It is the shipped graph: the same nodes and links, but for the guidance node, of which the sister that has all
    inputs stands in its place. Only several pictures from one picture need a node more, and numbers three.
    """
    name, fields = request.ENDPOINTS[endpoint]
    graph = copy.deepcopy(_shipped(name))
    for item in fields:
        if item.target:
            _set(graph, *item.target, _for_the_node(item, getattr(asked, item.name)))
    whole = _with_batch(_with_negative(graph, asked.negative_prompt), asked.num_images)
    return recorded(whole) if asked.numbers else whole


@functools.cache
def _shipped(name: str) -> Graph:
    return with_all_inputs(json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8")))


def _for_the_node(item: Input, value: Any) -> Any:
    if item is table.LAYERS:
        return request.layers_as_spec(value)
    return max(value, LEAST_STRENGTH) if item is table.STRENGTH and value else value


def _set(graph: Graph, kind: str, name: str, value: object) -> None:
    """Set the input of all nodes of this kind ("" is any kind), where it is a value and no link."""
    for node in graph.values():
        if kind in ("", node["class_type"]) and (kind or name in node["inputs"]):
            node["inputs"][name] = value


def _with_negative(graph: Graph, text: str | None) -> Graph:
    """The same graph with this negative prompt, for the negative branch to carry; None: it carries none."""
    number = node_of(graph, "KSampler")["inputs"]["negative"][0]
    graph[number]["inputs"]["text"] = text or ""
    node_of(graph, ADVANCED.id)["inputs"][NEGATIVE_PROMPT.name] = OFF if text is None else SAMPLERS
    return graph


def _with_batch(graph: Graph, count: int) -> Graph:
    """The same graph for `count` pictures."""
    latent = node_of(graph, "KSampler")["inputs"]["latent_image"]
    source = graph[latent[0]]
    if "batch_size" in source["inputs"]:
        source["inputs"]["batch_size"] = count
    elif count > 1:
        number = str(max(map(int, graph)) + 1)
        graph[number] = {
            "class_type": "RepeatLatentBatch",
            "inputs": {"samples": latent, "amount": count},
            "_meta": {"title": "RepeatLatentBatch"},
        }
        node_of(graph, "KSampler")["inputs"]["latent_image"] = [number, 0]
    return graph


def sampler_id(graph: Graph) -> str:
    """The id of the node whose progress counts the steps."""
    return next(number for number, node in graph.items() if node["class_type"] == "KSampler")
