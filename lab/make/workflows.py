"""Write the shipped workflows from one description: for people (UI format) and for POST /prompt (API format)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...nagpag.inputs import requests
from ...nagpag.inputs.comparison import COMPARE
from ...nagpag.inputs.diagnostics import INSPECT, PLOT, RECORD
from ...nagpag.inputs.guidance import ADVANCED, CURVE, GUIDANCE, START_PERCENT
from ...nagpag.service import models
from .. import host
from . import notes

WORKFLOWS = host.REPO / "workflows"
FLUX, CLIP_L, T5XXL, VAE = ((file.name, file.url, file.folder) for file in models.FILES)
PROMPT = (
    "A watchmaker's desk by a rainy window at dusk: an open pocket watch with every gear visible, brass tools laid "
    'out in a row, a handwritten label that reads "NAG-PAG", warm lamp light, sharp detail'
)
PROMPT_FROM_IMAGE = "The same picture as a detailed oil painting, rich brush strokes, warm evening light"

FILES = f"""**Files**
- diffusion_models: [{FLUX[0]}]({FLUX[1]})
- text_encoders: [{CLIP_L[0]}]({CLIP_L[1]}), [{T5XXL[0]}]({T5XXL[1]})
- vae: [{VAE[0]}]({VAE[1]})
"""

# Full strength at first, then let go: a start to draw from.
DRAWN = {"points": [[0.0, 1.0], [0.4, 0.9], [0.75, 0.2], [1.0, 0.0]], "interpolation": "monotone_cubic"}


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


def common_nodes(prompt: str, latent: tuple[int, int], denoise: float) -> list[Node]:
    """What both graphs have: loaders, prompt, guidance, sampler, output."""
    text, guided = {"text": prompt}, {"guidance": requests.DISTILLED_GUIDANCE.default}
    return [
        *_loaders(),
        Node(5, "CLIPTextEncode", (440, 80), (380, 200), ("CONDITIONING",), {"clip": (2, 0)}, text, title="Prompt"),
        Node(6, "FluxGuidance", (440, 340), (380, 58), ("CONDITIONING",), {"conditioning": (5, 0)}, guided),
        _negative(""),
        Node(8, GUIDANCE.id, (890, 80), (330, 180), ("MODEL",), {"model": (1, 0)}, GUIDANCE.defaults),
        _sampler(latent, denoise),
        Node(10, "VAEDecode", (1290, 410), (330, 46), ("IMAGE",), {"samples": (9, 0), "vae": (3, 0)}),
        Node(11, "SaveImage", (1690, 80), (480, 520), (), {"images": (10, 0)}, {"filename_prefix": "NAG-PAG/flux"}),
        Node(12, "MarkdownNote", (-560, 80), (530, 560), widgets={"text": notes.GUIDED + FILES}, title="What to turn"),
    ]


def _negative(text: str) -> Node:
    size, title = (380, 140), "Negative prompt"
    return Node(7, "CLIPTextEncode", (440, 460), size, ("CONDITIONING",), {"clip": (2, 0)}, {"text": text}, title=title)


def _loaders() -> list[Node]:
    flux = {"unet_name": FLUX[0], "weight_dtype": requests.WEIGHT_DTYPE.default}
    clip = {"clip_name1": CLIP_L[0], "clip_name2": T5XXL[0], "type": requests.CLIP_TYPE.default, "device": "default"}
    return [
        Node(1, "UNETLoader", (40, 80), (330, 82), ("MODEL",), {}, flux, (FLUX,)),
        Node(2, "DualCLIPLoader", (40, 220), (330, 130), ("CLIP",), {}, clip, (CLIP_L, T5XXL)),
        Node(3, "VAELoader", (40, 410), (330, 58), ("VAE",), {}, {"vae_name": VAE[0]}, (VAE,)),
    ]


def _sampler(latent: tuple[int, int], denoise: float) -> Node:
    inputs = {"model": (8, 0), "positive": (6, 0), "negative": (7, 0), "latent_image": latent}
    widgets = {
        "seed": 42,
        "control_after_generate": "fixed",
        "steps": requests.STEPS.default,
        "cfg": 1.0,
        "sampler_name": requests.SAMPLER.default,
        "scheduler": requests.SCHEDULER.default,
        "denoise": denoise,
    }
    only = ("control_after_generate",)
    return Node(9, "KSampler", (1290, 80), (330, 262), ("LATENT",), inputs, widgets, ui_only=only)


def text_to_image() -> list[Node]:
    size = {"width": requests.WIDTH.default, "height": requests.HEIGHT.default, "batch_size": 1}
    return [
        *common_nodes(PROMPT, (4, 0), 1.0),
        Node(4, "EmptySD3LatentImage", (440, 670), (380, 106), ("LATENT",), {}, size),
    ]


def image_to_image() -> list[Node]:
    scale = {
        "upscale_method": "lanczos",
        "width": requests.WIDTH.default,
        "height": requests.HEIGHT.default,
        "crop": "center",
    }
    image = {"image": "example.png", "upload": "image"}
    return [
        *common_nodes(PROMPT_FROM_IMAGE, (4, 0), requests.STRENGTH.default),
        Node(13, "LoadImage", (40, 560), (330, 314), ("IMAGE", "MASK"), {}, image, ui_only=("upload",)),
        Node(14, "ImageScale", (440, 670), (380, 130), ("IMAGE",), {"image": (13, 0)}, scale),
        Node(4, "VAEEncode", (440, 870), (380, 46), ("LATENT",), {"pixels": (14, 0), "vae": (3, 0)}),
    ]


def diagnostics() -> list[Node]:
    """Text to image with everything that shows what guidance does: Inspect, a drawn strength, Record and Plot."""
    nodes = {node.id: node for node in text_to_image()}
    nodes[8].kind, nodes[8].size, nodes[8].widgets = ADVANCED.id, (330, 400), ADVANCED.defaults
    nodes[8].inputs |= {"model": (15, 0), CURVE.name: (16, 0)}
    nodes[9].inputs |= {"model": (17, 0)}
    nodes[10].inputs |= {"samples": (18, 1)}
    nodes[12].widgets, nodes[12].size = {"text": notes.DIAGNOSTICS + FILES}, (530, 700)
    nodes[8].pos, nodes[11].pos = (890, 560), (2350, 80)
    recorded = ("MODEL", "NAGPAG_RECORD")
    return [
        *nodes.values(),
        Node(15, INSPECT.id, (40, 560), (330, 460), ("MODEL", "STRING"), {"model": (1, 0)}, {"blocks": "auto"}),
        Node(16, "CurveEditor", (890, 80), (330, 380), ("CURVE",), {}, {"curve": DRAWN}, title="Drawn strength"),
        Node(17, RECORD.id, (1290, 560), (330, 60), recorded, {"model": (8, 0)}),
        Node(
            18,
            PLOT.id,
            (1690, 80),
            (600, 560),
            ("IMAGE", "LATENT", "STRING"),
            {"record": (17, 1), "latent": (9, 0)},
        ),
    ]


def negative_prompt() -> list[Node]:
    """Text to image with a second text box, whose prompt the negative branch carries."""
    nodes = {node.id: node for node in text_to_image()}
    nodes[7] = _negative("blurry, low contrast, deformed hands, watermark")
    nodes[8].widgets = {**GUIDANCE.defaults, START_PERCENT.name: 0.2}
    nodes[12].widgets = {"text": notes.NEGATIVE + FILES}
    return list(nodes.values())


def compare() -> list[Node]:
    """The prompts of the graph above with one node for guidance, sampler and decoding: settings side by side."""
    kept = {node.id: node for node in negative_prompt() if node.kind not in (GUIDANCE.id, "KSampler", "VAEDecode")}
    inputs = {"model": (1, 0), "positive": (6, 0), "negative": (7, 0), "latent_image": (4, 0), "vae": (3, 0)}
    axes = "scale: 1, 3, 5\nnegative_prompt: off, sampler's"
    widgets = {**COMPARE.defaults, "axes": axes, "seed": 42}
    outputs = ("IMAGE", "IMAGE", "STRING")
    kept[8] = Node(8, COMPARE.id, (890, 80), (440, 440), outputs, inputs, widgets)
    saved = {"filename_prefix": "NAG-PAG/compare"}
    kept[11] = Node(11, "SaveImage", (1410, 80), (680, 700), (), {"images": (8, 0)}, saved)
    kept[12].widgets = {"text": notes.COMPARE + FILES}
    return list(kept.values())


TITLES = {node.id: node.title for node in (GUIDANCE, ADVANCED, COMPARE, INSPECT, RECORD, PLOT)}
GRAPHS = {
    "flux_dev_text_to_image": text_to_image,
    "flux_dev_image_to_image": image_to_image,
    "flux_dev_negative_prompt": negative_prompt,
    "flux_dev_diagnostics": diagnostics,
    "flux_dev_compare": compare,
}
GROUPS = {
    "Models": (1, 2, 3, 13, 15),
    "Prompt and latent": (4, 5, 6, 7, 14),
    "Guidance": (8, 16),
    "Sampling": (9, 10, 17),
}


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
    links: list[list] = []
    ends: dict[tuple[int, str], list] = {}
    for node in nodes:
        for slot, (name, (source, index)) in enumerate(node.inputs.items()):
            kind = by_id[source].outputs[index]
            links.append([len(links) + 1, source, index, node.id, slot, kind])
            ends[node.id, name] = links[-1]
    return {
        "last_node_id": max(by_id),
        "last_link_id": len(links),
        "nodes": [_ui_node(node, order, links, ends) for order, node in enumerate(nodes)],
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


def _ui_node(node: Node, order: int, links: list, ends: dict) -> dict:
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
            {"name": name, "type": ends[node.id, name][5], "link": ends[node.id, name][0]} for name in node.inputs
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


def files() -> dict[Path, str]:
    """Every file that is generated, with its text."""
    made = {}
    for name, build in GRAPHS.items():
        nodes = build()
        made[WORKFLOWS / f"{name}.json"] = json.dumps(ui_graph(nodes), indent=1) + "\n"
        made[WORKFLOWS / "api" / f"{name}.json"] = json.dumps(api_graph(nodes), indent=1) + "\n"
    return made


def main(arguments: list[str]) -> int:
    """Write them all."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(host.REPO))
    return 0
