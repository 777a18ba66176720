"""Write the shipped workflows from one description: for people (UI format) and for POST /prompt (API format)."""

from __future__ import annotations

import json
from pathlib import Path

from ...nagpag.inputs import requests
from ...nagpag.inputs.calibration import CALIBRATE
from ...nagpag.inputs.comparison import COMPARE
from ...nagpag.inputs.diagnostics import INSPECT, PLOT, RECORD
from ...nagpag.inputs.guidance import ADVANCED, CURVE, GUIDANCE, START_PERCENT
from ...nagpag.service import models
from .. import graphs, host
from . import notes, other_families
from .formats import Node, api_graph, ui_graph

WORKFLOWS = host.REPO / "workflows"
FLUX, CLIP_L, T5XXL, VAE = ((file.name, file.url, file.folder) for file in models.FILES)
PROMPT = (
    "A watchmaker's desk by a rainy window at dusk: an open pocket watch with every gear visible, brass tools laid "
    'out in a row, a handwritten label that reads "NAG-PAG", warm lamp light, sharp detail'
)
MORE_PROMPTS = (
    "An old fisherman mending a net on a pier at sunrise, gulls in the air, three boats behind him",
    'A street market at night, a hand-painted sign that reads "FRESH TEA", steam, two people at the counter',
    "A red fox asleep on a mossy stone in a birch forest, a blue jay on a branch above it, morning fog",
)
PROMPT_FROM_IMAGE = "The same picture as a detailed oil painting, rich brush strokes, warm evening light"

FILES = f"""**Files**
- diffusion_models: [{FLUX[0]}]({FLUX[1]})
- text_encoders: [{CLIP_L[0]}]({CLIP_L[1]}), [{T5XXL[0]}]({T5XXL[1]})
- vae: [{VAE[0]}]({VAE[1]})
"""

# Full strength at first, then let go: a start to draw from.
DRAWN = {"points": [[0.0, 1.0], [0.4, 0.9], [0.75, 0.2], [1.0, 0.0]], "interpolation": "monotone_cubic"}


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
    nodes[8].kind, nodes[8].size, nodes[8].widgets = ADVANCED.id, (330, 570), ADVANCED.defaults
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


def calibrate() -> list[Node]:
    """Prompts, joined, and the empty one into Calibrate; what it finds draws a picture of the first prompt."""
    kept = {node.id: node for node in text_to_image() if node.id in (1, 2, 3, 4, 5, 9, 10, 11, 12)}
    kept[5].size = (380, 130)
    kept[4].pos, kept[4].size, kept[4].title = (440, 940), (380, 106), "Size of the picture"
    kept[9].inputs |= {"positive": (26, 0)}
    kept[9].pos, kept[10].pos, kept[11].pos = (2150, 80), (2150, 410), (2560, 80)
    kept[12].widgets = {"text": notes.CALIBRATE + FILES}
    return [*kept.values(), *_joined_prompts(), *_calibrating()]


def _joined_prompts() -> list[Node]:
    kind, inputs = "CLIPTextEncode", {"clip": (2, 0)}
    texts = enumerate((*MORE_PROMPTS, ""), 1)
    size, one = (380, 130), ("CONDITIONING",)
    encoded = [Node(19 + i, kind, (440, 80 + 170 * i), size, one, inputs, {"text": text}) for i, text in texts]
    encoded[-1].id, encoded[-1].title = 7, "Empty prompt"
    pairs = enumerate(zip((5, 23, 24), (20, 21, 22), strict=True))
    both = [(i, {"conditioning_1": (a, 0), "conditioning_2": (b, 0)}) for i, (a, b) in pairs]
    joined = [Node(23 + i, "ConditioningCombine", (870, 80 + 100 * i), (310, 46), one, pair) for i, pair in both]
    guided = {"guidance": requests.DISTILLED_GUIDANCE.default}
    return [
        *encoded,
        *joined,
        Node(6, "FluxGuidance", (870, 400), (310, 58), one, {"conditioning": (25, 0)}, guided),
        Node(
            26,
            "FluxGuidance",
            (870, 520),
            (310, 58),
            one,
            {"conditioning": (5, 0)},
            guided,
            title="FluxGuidance, first prompt",
        ),
    ]


def _calibrating() -> list[Node]:
    small = {"width": 512, "height": 512, "batch_size": 4}
    wired = {"model": (1, 0), "positive": (6, 0), "empty": (7, 0), "latent_image": (27, 0), "vae": (3, 0)}
    found = ("STRING", "FLOAT", "IMAGE", "STRING", "IMAGE")
    linked = {"model": (1, 0), "blocks": (30, 0), "alpha": (30, 1)}
    return [
        Node(27, "EmptySD3LatentImage", (870, 940), (310, 106), ("LATENT",), {}, small, title="Size of the trials"),
        Node(30, CALIBRATE.id, (1260, 80), (400, 460), found, wired, CALIBRATE.defaults),
        Node(8, ADVANCED.id, (1740, 80), (330, 570), ("MODEL",), linked, ADVANCED.defaults),
    ]


GRAPHS = {
    "flux_dev_text_to_image": text_to_image,
    "flux_dev_image_to_image": image_to_image,
    "flux_dev_negative_prompt": negative_prompt,
    "flux_dev_diagnostics": diagnostics,
    "flux_dev_compare": compare,
    "flux_dev_calibrate": calibrate,
    graphs.QWEN_IMAGE: other_families.qwen_image,
    graphs.WAN: other_families.wan,
}


def files() -> dict[Path, str]:
    """Every file that is generated, with its text."""
    made = {}
    for name, build in GRAPHS.items():
        nodes = build()
        made[graphs.template(name)] = json.dumps(ui_graph(nodes), indent=1) + "\n"
        made[WORKFLOWS / "api" / f"{name}.json"] = json.dumps(api_graph(nodes), indent=1) + "\n"
    return made


def main(arguments: list[str]) -> int:
    """Write them all."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(host.REPO))
    return 0
