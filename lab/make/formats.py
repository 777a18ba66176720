"""A graph described once, and as its readers want it: for people (UI format) and for POST /prompt (API format)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...nagpag.inputs.calibration import CALIBRATE
from ...nagpag.inputs.comparison import COMPARE
from ...nagpag.inputs.diagnostics import INSPECT, PLOT, RECORD
from ...nagpag.inputs.guidance import ADVANCED, GUIDANCE

TITLES = {node.id: node.title for node in (GUIDANCE, ADVANCED, COMPARE, CALIBRATE, INSPECT, RECORD, PLOT)}
GROUPS = {
    "Models": (1, 2, 3, 13, 15),
    "Prompt and latent": (4, 5, 6, 7, 14, *range(20, 28)),
    "Guidance": (8, 16),
    "Sampling": (9, 10, 17, 35),
    "Calibration": (30,),
    "Changes of the model": (33, 34),
}


@dataclass
class Node:
    """One node: widgets by name in the order of the UI; inputs as (node id, output index)."""

    id: int
    kind: str
    pos: tuple[int, int]
    size: tuple[int, int]
    outputs: tuple[str, ...] = ()
    inputs: dict[str, tuple[int, int]] = field(default_factory=dict)
    widgets: Mapping[str, object] = field(default_factory=dict)
    models: tuple[tuple[str, str, str], ...] = ()
    title: str | None = None
    ui_only: tuple[str, ...] = ()  # widgets that the frontend has and the host's API has not


def api_graph(nodes: list[Node]) -> dict[str, dict]:
    """The graph as POST /prompt takes it."""
    return {
        str(node.id): {
            "class_type": node.kind,
            "inputs": {
                **{name: value for name, value in node.widgets.items() if name not in node.ui_only},
                **{name: [str(source), index] for name, (source, index) in node.inputs.items()},
            },
            "_meta": {"title": node.title or _title(node.kind)},
        }
        for node in sorted(nodes, key=lambda node: node.id)
        if node.kind != "MarkdownNote"
    }


def ui_graph(nodes: list[Node]) -> dict:
    """The graph as the frontend opens it."""
    by_id = {node.id: node for node in nodes}
    links, ends = linked(nodes)
    return {
        "last_node_id": max(by_id),
        "last_link_id": len(links),
        "nodes": [ui_node(node, order, links, ends) for order, node in enumerate(nodes)],
        "links": links,
        "groups": [
            _group(i, title, inside)
            for i, (title, ids) in enumerate(GROUPS.items())
            if (inside := [by_id[n] for n in ids if n in by_id])
        ],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def linked(nodes: list[Node]) -> tuple[list[list], dict[tuple[int, str], list]]:
    """All links as the frontend saves them, and the one at each input: (node id, name) → link."""
    by_id = {node.id: node for node in nodes}
    links: list[list] = []
    ends: dict[tuple[int, str], list] = {}
    for node in nodes:
        for slot, (name, (source, index)) in enumerate(node.inputs.items()):
            kind = by_id[source].outputs[index]
            links.append([len(links) + 1, source, index, node.id, slot, kind])
            ends[node.id, name] = links[-1]
    return links, ends


def ui_node(node: Node, order: int, links: list, ends: dict) -> dict:
    """A node as the frontend saves it. links, ends: as `linked` gives them."""
    slots = [(slot, kind) for slot, kind in enumerate(node.outputs)]
    out = {
        "id": node.id,
        "type": node.kind,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [
            {
                "name": name,
                "type": ends[node.id, name][5],
                "link": ends[node.id, name][0],
                **({"widget": {"name": name}} if name in node.widgets else {}),  # what would be typed comes over a link
            }
            for name in node.inputs
        ],
        "outputs": [
            {"name": kind, "type": kind, "links": [link[0] for link in links if link[1:3] == [node.id, slot]]}
            for slot, kind in slots
        ],
        "properties": _properties(node),
        "widgets_values": list(node.widgets.values()),
    }
    return out if node.title is None else {**out, "title": node.title}


def _properties(node: Node) -> dict:
    if node.kind == "MarkdownNote":
        return {}
    pack = "nag-pag-flux" if node.kind in TITLES else "comfy-core"
    properties: dict = {"cnr_id": pack, "Node name for S&R": node.kind}
    if node.models:
        properties["models"] = [dict(zip(("name", "url", "directory"), model, strict=True)) for model in node.models]
    return properties


def _group(index: int, title: str, nodes: list[Node]) -> dict:
    left, top = min(node.pos[0] for node in nodes) - 20, min(node.pos[1] for node in nodes) - 75
    right = max(node.pos[0] + node.size[0] for node in nodes) + 20
    bottom = max(node.pos[1] + node.size[1] for node in nodes) + 20
    color = "#3f789e" if title != "Guidance" else "#8A8"
    return {
        "id": index + 1,
        "title": title,
        "bounding": [left, top, right - left, bottom - top],
        "color": color,
        "flags": {},
    }


def _title(kind: str) -> str:
    return TITLES.get(kind, kind)
