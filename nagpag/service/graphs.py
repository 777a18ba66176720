"""ComfyUI's prompts as plain dicts, and how its history says that one ended: what server and client both read."""

from __future__ import annotations

import copy
import json
import secrets

from ..inputs.diagnostics import PLOT, RECORD
from ..inputs.guidance import ADVANCED, GUIDANCE

Graph = dict[str, dict]
_DECODERS = ("VAEDecode", "VAEDecodeTiled")
_RECORD, _PLOT, NUMBERS = "nagpag_record", "nagpag_plot", "nagpag_numbers"  # ids of nodes that `recorded` adds


def node_of(graph: Graph, kind: str) -> dict:
    """The graph's one node of this kind."""
    (node,) = (node for node in graph.values() if node["class_type"] == kind)
    return node


def with_all_inputs(graph: Graph) -> Graph:
    """The same graph with, in place of each simple guidance node, its sister that has all inputs."""
    return {number: _with_all_inputs(node) for number, node in graph.items()}


def _with_all_inputs(node: dict) -> dict:
    if node["class_type"] != GUIDANCE.id:
        return {**node, "inputs": dict(node["inputs"])}
    return _node(ADVANCED.id, ADVANCED.title, **{**ADVANCED.defaults, **node["inputs"]})


def saved_anew(graph: Graph) -> Graph:
    """The same graph with a name of its own for its files.

    ComfyUI does not run again what it has in its cache: a repeated request would be answered with the first one's
    files, which may be gone, and by older releases with none. So saving, and only that, is always run.
    """
    graph, token = copy.deepcopy(graph), secrets.token_hex(4)
    for node in graph.values():
        if node["class_type"] == "SaveImage" or "filename_prefix" in node["inputs"]:
            prefix = node["inputs"].get("filename_prefix")  # it may be missing, or come over a link
            node["inputs"]["filename_prefix"] = f"{prefix if isinstance(prefix, str) else 'ComfyUI'}_{token}"
    return graph


def recorded(graph: Graph) -> Graph:
    """The same graph, with what guidance did told in its history: recorded, plotted, and the numbers shown as text.

    As it is where it has no guidance node, or several, or more than one latent that is decoded: nobody would know
    which to tell of.
    """
    guidance = [number for number, node in graph.items() if node["class_type"] in (GUIDANCE.id, ADVANCED.id)]
    latents = [node["inputs"]["samples"] for node in graph.values() if node["class_type"] in _DECODERS]
    if len(guidance) != 1 or len(latents) != 1:
        return graph
    graph, guided = copy.deepcopy(graph), [guidance[0], 0]
    for node in graph.values():
        node["inputs"] |= {name: [_RECORD, 0] for name, value in node["inputs"].items() if value == guided}
    return {
        **graph,
        _RECORD: _node(RECORD.id, RECORD.title, model=guided),
        _PLOT: _node(PLOT.id, PLOT.title, record=[_RECORD, 1], latent=latents[0]),
        NUMBERS: _node("PreviewAny", "Preview as Text", source=[_PLOT, 2]),
    }


def _node(kind: str, title: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def ended_state(history: dict) -> dict:
    """How a prompt ended, from ComfyUI's history: a status, and what goes with it."""
    events = dict(history["status"]["messages"])
    if "execution_error" in events:
        error = events["execution_error"]
        message = f"{error['exception_type']}: {error['exception_message'].strip()}"
        failure = {"node_id": str(error["node_id"]), "node": error["node_type"], "message": message}
        return {"status": "failed", "reason": f"{failure['node']}: {message}", "error": failure}
    if "execution_interrupted" in events:
        return {"status": "cancelled", "reason": "it was interrupted while it ran"}
    times = [event["timestamp"] for event in events.values()]
    listed = [told for output in history["outputs"].values() for told in output.values() if isinstance(told, list)]
    files = [file for told in listed for file in told if isinstance(file, dict) and "filename" in file]
    saved = [file for file in files if file.get("type") == "output"]  # not a node's preview
    told = history["outputs"].get(NUMBERS, {}).get("text")
    numbers = {"numbers": json.loads(told[0])} if told else {}
    return {"status": "done", "images": saved, "seconds": (max(times) - min(times)) / 1000, **numbers}
