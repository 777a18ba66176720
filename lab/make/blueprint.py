"""Write the subgraph blueprint that the host offers among its nodes: the same picture with guidance off and on."""

from __future__ import annotations

import json
import uuid

from .. import host
from .formats import Node, linked, ui_node
from .workflows import negative_prompt

NAME = "FLUX.1 [dev] with NAG-PAG, off and on"
PATH = host.REPO / "subgraphs" / f"{NAME}.json"
DESCRIPTION = (
    "Draws the same prompt and seed twice with FLUX.1 [dev], without guidance and with NAG-PAG Guidance, which carries "
    "the negative prompt at cfg 1."
)
INPUT, OUTPUT = -10, -20  # the ids that the frontend gives a subgraph's two ends
ON, OFF = (9, 10), (18, 19)  # sampler and decoder
# What the node shows: type, and the widgets within that it sets.
INPUTS = {
    "prompt": ("STRING", [(5, "text")]),
    "negative_prompt": ("STRING", [(7, "text")]),
    "scale": ("FLOAT", [(8, "scale")]),
    "width": ("INT", [(4, "width")]),
    "height": ("INT", [(4, "height")]),
    "steps": ("INT", [(9, "steps"), (18, "steps")]),
    "seed": ("INT", [(9, "seed"), (18, "seed")]),
    "unet_name": ("COMBO", [(1, "unet_name")]),
    "clip_name1": ("COMBO", [(2, "clip_name1")]),
    "clip_name2": ("COMBO", [(2, "clip_name2")]),
    "vae_name": ("COMBO", [(3, "vae_name")]),
}
OUTPUTS = {"off": (OFF[1], 0), "on": (ON[1], 0)}


def _within() -> list[Node]:
    """The graph of the negative prompt without its ends, sampled twice, and the subgraph's own ends."""
    nodes = {node.id: node for node in negative_prompt() if node.kind not in ("SaveImage", "MarkdownNote")}
    sampler, decoder = nodes[ON[0]], nodes[ON[1]]
    off = {**sampler.inputs, "model": (1, 0)}
    size, only = sampler.size, sampler.ui_only
    nodes[OFF[0]] = Node(OFF[0], "KSampler", (1290, 560), size, ("LATENT",), off, sampler.widgets, (), "Off", only)
    drawn = {"samples": (OFF[0], 0), "vae": (3, 0)}
    nodes[OFF[1]] = Node(OFF[1], "VAEDecode", (1290, 890), decoder.size, ("IMAGE",), drawn)
    sampler.title = "On"
    for slot, (_, widgets) in enumerate(INPUTS.values()):
        for number, name in widgets:
            nodes[number].inputs = {**nodes[number].inputs, name: (INPUT, slot)}
    kinds = tuple(kind for kind, _ in INPUTS.values())
    ends = [Node(INPUT, "", (-160, 80), (120, 20 * len(kinds) + 40), kinds), Node(OUTPUT, "", (1700, 400), (120, 80))]
    ends[1].inputs = OUTPUTS
    return [*nodes.values(), *ends]


def _subgraph(nodes: list[Node], key: str) -> dict:
    """The definition as the frontend saves it."""
    links, ends = linked(nodes)
    *inner, first, last = nodes
    inputs = [
        {**_slot(name, kind, first, i), "linkIds": [link[0] for link in links if link[1:3] == [INPUT, i]]}
        for i, (name, (kind, _)) in enumerate(INPUTS.items())
    ]
    outputs = [{**_slot(name, "IMAGE", last, i), "linkIds": [ends[OUTPUT, name][0]]} for i, name in enumerate(OUTPUTS)]
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    number = max(node.id for node in inner)
    return {
        "id": key,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": number, "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": INPUT, "bounding": [*first.pos, *first.size]},
        "outputNode": {"id": OUTPUT, "bounding": [*last.pos, *last.size]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": [ui_node(node, order, links, ends) for order, node in enumerate(inner)],
        "groups": [],
        "links": [dict(zip(names, link, strict=True)) for link in links],
        "extra": {},
        "category": "Image generation and editing/Text to image",
        "description": DESCRIPTION,
    }


def _slot(name: str, kind: str, end: Node, index: int) -> dict:
    at = [end.pos[0] + 100, end.pos[1] + 20 * (index + 1)]
    return {"id": _key(end.id, name), "name": name, "type": kind, "pos": at}


def _key(*parts: object) -> str:
    """A UUID that is the same each time it is written."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, ("nag-pag-flux", NAME, *parts)))))


def text() -> str:
    """The file: one node whose kind is the subgraph."""
    key = _key()
    inputs = [
        {"name": name, "type": kind, "widget": {"name": name}, "link": None} for name, (kind, _) in INPUTS.items()
    ]
    node = {
        "id": 1,
        "type": key,
        "title": NAME,
        "pos": [0, 0],
        "size": [400, 520],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": name, "type": "IMAGE", "links": []} for name in OUTPUTS],
        "properties": {"cnr_id": "nag-pag-flux"},
        "widgets_values": [],
    }
    whole = {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [_subgraph(_within(), key)]},
        "extra": {},
    }
    return json.dumps(whole, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """Write it."""
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(text())
    return 0
