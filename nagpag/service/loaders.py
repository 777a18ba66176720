"""The guidance node behind the model loaders of any graph, by what ComfyUI says of the graph's nodes.

A graph is ComfyUI's own (Export (API)); kinds is the answer of its /object_info. What is wrong is a ValueError.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

from ..inputs.calibration import CALIBRATE
from ..inputs.comparison import COMPARE
from ..inputs.guidance import ADVANCED, GUIDANCE
from .graphs import Graph

Kinds = dict[str, dict]
Place = tuple[str, str]  # a node's id, and an input
Link = tuple[str, int]  # a node's id, and an output
MODEL = "MODEL"
SEEDS = ("seed", "noise_seed")  # what ComfyUI's nodes call them
_GUIDES = {node.id: node.title for node in (GUIDANCE, ADVANCED, COMPARE, CALIBRATE)}
# Types that carry no model: what is behind them is no way to a loader.
_WITHOUT_MODEL = {"CLIP", "VAE", "CLIP_VISION", "CONDITIONING", "LATENT", "IMAGE", "MASK", "VIDEO", "AUDIO", "SIGMAS"}
_WITHOUT_MODEL |= {"NOISE", "SAMPLER", "STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"}
# What ComfyUI's own samplers and guiders make of a MODEL, and what a pack's nodes make that do not sample it.
_SAMPLED = {"LATENT", "GUIDER"}
_PASSED_ON = _WITHOUT_MODEL - {"LATENT", "IMAGE", "VIDEO"}


def read_graph(data: bytes) -> Graph:
    """The graph in a file's bytes."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        graph = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply to be a graph") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if isinstance(graph, dict) and isinstance(graph.get("prompt"), dict) and not _is_node(graph["prompt"]):
        graph = graph["prompt"]  # as it is sent to /prompt
    nodes = list(graph.values()) if isinstance(graph, dict) else []
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise ValueError("it is no API graph: it has the canvas's nodes and links; in ComfyUI use Export (API)")
    if not nodes or not all(_is_node(node) for node in nodes):
        raise ValueError("it is no API graph: not every node has class_type and inputs; in ComfyUI use Export (API)")
    return graph


def _is_node(node: Any) -> bool:
    kind = node.get("class_type") if isinstance(node, dict) else None
    return isinstance(kind, str) and bool(kind) and isinstance(node.get("inputs"), dict)


def named(graph: Graph, number: str) -> str:
    """A node, as people are told of it."""
    return f"{graph[number]['class_type']} (node {number})"


def guided(graph: Graph, kinds: Kinds, **inputs: Any) -> tuple[Graph, list[str]]:
    """The same graph with a guidance node right behind each loader whose MODEL is sampled, and these loaders.

    inputs: of NAG-PAG Guidance (Advanced). LoRA loaders and what else changes the model come after it; all else stays
    as it is.
    """
    _check(graph, kinds)
    taking = [number for number in graph if _samples(graph, kinds, number)]
    if not taking:
        raise ValueError("it samples nothing: no node of it takes a MODEL and makes a LATENT of it, as KSampler does")
    loaders = {link: None for number in taking for link in _loaders(graph, kinds, number)}
    if not loaders:
        raise ValueError(f"no loader gives the MODEL that {named(graph, taking[0])} takes")
    made = copy.deepcopy(graph)
    for link in loaders:
        ours = next(name for name in _names() if name not in made)
        for node in made.values():
            node["inputs"] |= {name: [ours, 0] for name, value in node["inputs"].items() if _link(value) == link}
        told = {**ADVANCED.defaults, **inputs, "model": list(link)}
        made[ours] = {"class_type": ADVANCED.id, "inputs": told, "_meta": {"title": ADVANCED.title}}
    return made, [named(graph, number) for number, _ in loaders]


def _names() -> Iterator[str]:
    """Of our nodes: nagpag_guidance, nagpag_guidance_2, …"""
    yield "nagpag_guidance"
    yield from (f"nagpag_guidance_{count}" for count in itertools.count(2))


def _check(graph: Graph, kinds: Kinds) -> None:
    if lacking := [named(graph, number) for number, node in graph.items() if node["class_type"] not in kinds]:
        raise ValueError(f"this ComfyUI lacks {', '.join(lacking)}: install the packs that have them")
    if by := [named(graph, number) for number, node in graph.items() if node["class_type"] in _GUIDES]:
        raise ValueError(f"it is guided already, by {', '.join(by)}: queue it as it is, or take that node out")
    saving = [node["class_type"] for node in graph.values() if kinds[node["class_type"]].get("output_node")]
    if not [kind for kind in saving if not kind.startswith("Preview")]:
        raise ValueError("it saves nothing: it needs a Save Image node, or another that saves")


# --- the ways of a MODEL ---


def _link(value: Any) -> Link | None:
    """What an input is linked to, as ComfyUI tells a link from a value."""
    linked = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
    return (value[0], value[1]) if linked else None


def _links(graph: Graph, number: str) -> Iterator[tuple[str, Link]]:
    for name, value in graph[number]["inputs"].items():
        if (link := _link(value)) and link[0] in graph:
            yield name, link


def _declared(kinds: Kinds, kind: str, name: str) -> tuple[Any, dict]:
    """The type and the options of an input, (None, {}) where ComfyUI names none such."""
    for group in ("required", "optional"):
        told = kinds[kind].get("input", {}).get(group, {}).get(name)
        if told:
            return told[0], told[1] if len(told) > 1 and isinstance(told[1], dict) else {}
    return None, {}


def _given(kinds: Kinds, kind: str) -> list[str]:
    """The types of what a node gives; a list of words is a COMBO."""
    return [one if isinstance(one, str) else "COMBO" for one in kinds[kind].get("output", ())]


def _samples(graph: Graph, kinds: Kinds, number: str) -> bool:
    kind = graph[number]["class_type"]
    made = {one for one in _given(kinds, kind) if one not in _PASSED_ON and not _any_type(one)}
    if not kinds[kind].get("python_module", "").startswith("custom_nodes"):
        made &= _SAMPLED
    wired = [name for name, value in graph[number]["inputs"].items() if _link(value)]
    return bool(made) and any(_declared(kinds, kind, name)[0] == MODEL for name in wired)


def _any_type(given: str) -> bool:
    """Whether it may be a MODEL that is passed on: of a switch, or one of several types."""
    return given == "*" or given.startswith("COMFY_") or MODEL in given.split(",")


def _loaders(graph: Graph, kinds: Kinds, number: str) -> Iterator[Link]:
    """The loaders of the models that this sampler takes."""
    for name, link in _links(graph, number):
        if _declared(kinds, graph[number]["class_type"], name)[0] == MODEL:
            yield from _begins(graph, kinds, link, {})


def _begins(graph: Graph, kinds: Kinds, link: Link, known: dict[Link, list[Link]]) -> list[Link]:
    """Where what comes over this link begins as a MODEL: back through all that may carry one, be it a switch."""
    if link not in known:
        known[link] = []  # for who comes by in a circle
        number, slot = link
        given = _given(kinds, graph[number]["class_type"])
        kind = given[slot] if slot < len(given) else "*"
        if kind not in _WITHOUT_MODEL:
            before = [one for _, source in _links(graph, number) for one in _begins(graph, kinds, source, known)]
            known[link] = list(dict.fromkeys(before)) or ([link] if kind == MODEL else [])
    return known[link]


# --- what is said of the graph's own inputs ---


def texts(graph: Graph, kinds: Kinds, wires: tuple[str, ...]) -> list[Place]:
    """Where the texts stand that reach a sampler over one of these wires, such as "positive"."""
    found: dict[Place, None] = {}
    for number in graph:
        if _samples(graph, kinds, number):
            for name, link in _links(graph, number):
                if name in wires:
                    found |= dict.fromkeys(_texts_behind(graph, kinds, link[0], wires, set()))
    return list(found)


def _texts_behind(graph: Graph, kinds: Kinds, number: str, wires: tuple[str, ...], seen: set[str]) -> Iterator[Place]:
    if number in seen:
        return
    seen.add(number)
    kind, inputs = graph[number]["class_type"], graph[number]["inputs"]
    for name, value in inputs.items():
        declared, options = _declared(kinds, kind, name)
        if declared == "STRING" and options.get("multiline") and isinstance(value, str):
            yield number, name
    links = dict(_links(graph, number))
    own = {name for name in links if name in wires}  # it passes both prompts on, each by itself
    for name in own or links:
        yield from _texts_behind(graph, kinds, links[name][0], wires, seen)


def enlarged(graph: Graph, kinds: Kinds) -> list[tuple[str, float]]:
    """The samplers and guiders that have a cfg above 1, and it."""
    cfgs = {number: node["inputs"].get("cfg") for number, node in graph.items() if _samples(graph, kinds, number)}
    return [(number, cfg) for number, cfg in cfgs.items() if isinstance(cfg, int | float) and cfg > 1]


def whole_numbers(graph: Graph, *names: str) -> list[Place]:
    """Where a whole number is written in an input of one of these names."""
    return [(number, name) for number, node in graph.items() for name in names if type(node["inputs"].get(name)) is int]
