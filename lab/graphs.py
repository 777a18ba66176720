"""The shipped API graphs, and what has to change in them to run on the small models."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from ..nagpag.inputs.guidance import ADVANCED, GUIDANCE
from . import host
from .toy import shapes, small_models, whole_families

PICTURES = ("flux_dev_text_to_image", "flux_dev_image_to_image")
WITH_NEGATIVE = "flux_dev_negative_prompt"
DIAGNOSTICS = "flux_dev_diagnostics"
COMPARE, CALIBRATE = "flux_dev_compare", "flux_dev_calibrate"
NAMES = (*PICTURES, WITH_NEGATIVE, DIAGNOSTICS)  # with a guidance node and a KSampler
QWEN_IMAGE, WAN = "qwen_image_text_to_image", "wan_text_to_video"
# The frontend shows the name of a template's file as its title.
TITLES = {
    "flux_dev_text_to_image": "NAG-PAG text to image",
    "flux_dev_image_to_image": "NAG-PAG image to image",
    WITH_NEGATIVE: "NAG-PAG negative prompt",
    DIAGNOSTICS: "NAG-PAG diagnostics",
    COMPARE: "NAG-PAG compare",
    CALIBRATE: "NAG-PAG calibrate",
    QWEN_IMAGE: "NAG-PAG Qwen-Image text to image",
    WAN: "NAG-PAG Wan text to video",
}
TEMPLATES = tuple(TITLES)
Graph = dict[str, dict]


def template(name: str, kind: str = "json") -> Path:
    """A shipped graph as the frontend opens it; kind jpg: its thumbnail."""
    return host.REPO / "workflows" / f"{TITLES[name]}.{kind}"


def load_graph(name: str) -> Graph:
    """A shipped graph as POST /prompt takes it."""
    return json.loads((host.REPO / "workflows" / "api" / f"{name}.json").read_text())


# By the shipped model's file: the small ones in its place, and of what belongs to it.
_OF_FAMILY = {
    "qwen_image_fp8_e4m3fn.safetensors": (whole_families.QWEN_FILE, whole_families.VAE_FILE),
    "wan2.1_t2v_1.3B_fp16.safetensors": (whole_families.WAN_FILE, whole_families.VAE_FILE),
}


def _small_files(graph: Graph) -> dict[str, str]:
    loader = next(node for node in graph.values() if node["class_type"] == "UNETLoader")
    if loader["inputs"]["unet_name"] not in _OF_FAMILY:
        return {"unet_name": Path(small_models.FLUX_FILE).name, "vae_name": "taef1"}
    unet, vae = _OF_FAMILY[loader["inputs"]["unet_name"]]
    lora = whole_families.LORA_FILE
    return {
        name: file.partition("/")[2] for name, file in (("unet_name", unet), ("vae_name", vae), ("lora_name", lora))
    }


def for_small_models(graph: Graph, width: int, height: int, **inputs) -> Graph:
    """The same graph with other loader file names and sizes, and what else is named (steps=4, image="x.png").

    T5-XXL has no small form, so the text encoder's loader gets CLIP-L twice and the type `sd3`: the stock path then
    gives CLIP-L's tokens padded to T5's 4096 features, and a pooled vector that begins with CLIP-L's. So do those of
    the other families, and one CLIP-L is enough for them.
    """
    clip = Path(small_models.CLIP_FILE).name
    changes = {
        **_small_files(graph),
        "clip_name": clip,
        "clip_name1": clip,
        "clip_name2": clip,
        "type": "sd3",
        "width": width,
        "height": height,
        **inputs,
    }
    graph = copy.deepcopy(graph)
    for node in graph.values():
        own = [name for name, value in node["inputs"].items() if not isinstance(value, list)]  # a list is a link
        node["inputs"] |= {name: value for name, value in changes.items() if name in own}
    return graph


def for_trained_model(graph: Graph, text: str, negative: str = "", **inputs) -> Graph:
    """The same graph for the shipped FLUX that draws coloured shapes, at the size and in the words of its training."""
    flux = small_models.SHAPES_FILE.partition("/")[2]
    graph = for_small_models(graph, shapes.SIZE, shapes.SIZE, unet_name=flux, text=text, **inputs)
    for node in graph.values():
        if node["_meta"]["title"] in ("Negative prompt", "Empty prompt"):
            node["inputs"]["text"] = negative
    return graph


def with_guidance(graph: Graph, **inputs) -> Graph:
    """The same graph with other inputs of our node, such as scale=0.0."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        if node["class_type"] in (GUIDANCE.id, ADVANCED.id):
            node["inputs"] |= inputs
    return graph


def with_plot_saved(graph: Graph) -> Graph:
    """The same graph with the plot, not the picture, as what is saved."""
    graph = copy.deepcopy(graph)
    plot = next(key for key, node in graph.items() if node["class_type"] == "NAGPAGPlot")
    saver = next(node for node in graph.values() if node["class_type"] == "SaveImage")
    saver["inputs"]["images"] = [plot, 0]
    return graph
