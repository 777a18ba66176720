"""The shipped workflows of other families than FLUX: the files and settings of ComfyUI's own templates."""

from __future__ import annotations

from ...nagpag.inputs.guidance import GUIDANCE
from . import notes
from .formats import Node

File = tuple[str, str, str]  # name, URL, folder
_HUB = "https://huggingface.co"
_QWEN, _WAN = (
    f"{_HUB}/Comfy-Org/{name}/resolve/main/split_files" for name in ("Qwen-Image_ComfyUI", "Wan_2.1_ComfyUI_repackaged")
)


def _file(at: str, folder: str, name: str) -> File:
    return name, f"{at}/{folder}/{name}", folder


QWEN_MODEL = _file(_QWEN, "diffusion_models", "qwen_image_fp8_e4m3fn.safetensors")
QWEN_CLIP = _file(_QWEN, "text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors")
QWEN_VAE = _file(_QWEN, "vae", "qwen_image_vae.safetensors")
_LORA = "Qwen-Image-Lightning-8steps-V1.0.safetensors"
QWEN_LORA = (_LORA, f"{_HUB}/lightx2v/Qwen-Image-Lightning/resolve/main/{_LORA}", "loras")
WAN_MODEL = _file(_WAN, "diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors")
WAN_CLIP = _file(_WAN, "text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
WAN_VAE = _file(_WAN, "vae", "wan_2.1_vae.safetensors")

QWEN_PROMPT = (
    "A watchmaker's desk by a rainy window at dusk: an open pocket watch with every gear visible, brass tools laid "
    'out in a row, a handwritten label that reads "NAG-PAG", warm lamp light, sharp detail'
)
WAN_PROMPT = "A red fox trots through a snowy birch forest towards the camera, powder snow flies up, low winter sun"
WAN_NEGATIVE = "blurry, washed out, static, subtitles, watermark, deformed legs, extra limbs, walking backwards"


def qwen_image() -> list[Node]:
    """Qwen-Image with its 8-step LoRA, at cfg 1."""
    size = {"width": 1328, "height": 1328, "batch_size": 1}
    lora = {"lora_name": QWEN_LORA[0], "strength_model": 1.0}
    return [
        *_loaders(QWEN_MODEL, QWEN_CLIP, QWEN_VAE, "qwen_image"),
        *_prompts(QWEN_PROMPT, ""),
        Node(4, "EmptySD3LatentImage", (440, 550), (380, 106), ("LATENT",), {}, size),
        Node(8, GUIDANCE.id, (890, 80), (330, 180), ("MODEL",), {"model": (1, 0)}, GUIDANCE.defaults),
        Node(33, "LoraLoaderModelOnly", (890, 380), (330, 82), ("MODEL",), {"model": (8, 0)}, lora, (QWEN_LORA,)),
        Node(34, "ModelSamplingAuraFlow", (890, 530), (330, 58), ("MODEL",), {"model": (33, 0)}, {"shift": 3.1}),
        *_sampled(8, 1.0, "euler"),
        Node(11, "SaveImage", (1690, 80), (480, 520), (), {"images": (10, 0)}, {"filename_prefix": "NAG-PAG/qwen"}),
        _note(notes.QWEN_IMAGE, QWEN_MODEL, QWEN_CLIP, QWEN_VAE, QWEN_LORA),
    ]


def wan() -> list[Node]:
    """Wan 2.1, the small one, at the cfg that it wants."""
    size = {"width": 832, "height": 480, "length": 33, "batch_size": 1}
    video = {"fps": 16.0, "bit_depth": 8}  # older hosts have no bit_depth, and mind none
    saved = {"filename_prefix": "NAG-PAG/wan", "format": "auto", "codec": "auto"}
    return [
        *_loaders(WAN_MODEL, WAN_CLIP, WAN_VAE, "wan"),
        *_prompts(WAN_PROMPT, WAN_NEGATIVE),
        Node(4, "EmptyHunyuanLatentVideo", (440, 550), (380, 130), ("LATENT",), {}, size),
        Node(8, GUIDANCE.id, (890, 80), (330, 180), ("MODEL",), {"model": (1, 0)}, GUIDANCE.defaults),
        Node(34, "ModelSamplingSD3", (890, 380), (330, 58), ("MODEL",), {"model": (8, 0)}, {"shift": 8.0}),
        *_sampled(30, 6.0, "uni_pc"),
        Node(35, "CreateVideo", (1290, 510), (330, 102), ("VIDEO",), {"images": (10, 0)}, video),
        Node(11, "SaveVideo", (1690, 80), (480, 520), (), {"video": (35, 0)}, saved),
        _note(notes.WAN, WAN_MODEL, WAN_CLIP, WAN_VAE),
    ]


def _loaders(model: File, clip: File, vae: File, kind: str) -> list[Node]:
    unet = {"unet_name": model[0], "weight_dtype": "default"}
    text = {"clip_name": clip[0], "type": kind, "device": "default"}
    return [
        Node(1, "UNETLoader", (40, 80), (330, 82), ("MODEL",), {}, unet, (model,)),
        Node(2, "CLIPLoader", (40, 220), (330, 106), ("CLIP",), {}, text, (clip,)),
        Node(3, "VAELoader", (40, 390), (330, 58), ("VAE",), {}, {"vae_name": vae[0]}, (vae,)),
    ]


def _prompts(prompt: str, negative: str) -> list[Node]:
    kind, size, given, inputs = "CLIPTextEncode", (380, 180), ("CONDITIONING",), {"clip": (2, 0)}
    return [
        Node(5, kind, (440, 80), size, given, inputs, {"text": prompt}, title="Prompt"),
        Node(7, kind, (440, 310), size, given, inputs, {"text": negative}, title="Negative prompt"),
    ]


def _sampled(steps: int, cfg: float, sampler: str) -> list[Node]:
    inputs = {"model": (34, 0), "positive": (5, 0), "negative": (7, 0), "latent_image": (4, 0)}
    widgets = {"seed": 42, "control_after_generate": "fixed", "steps": steps, "cfg": cfg}
    widgets |= {"sampler_name": sampler, "scheduler": "simple", "denoise": 1.0}
    only = ("control_after_generate",)
    return [
        Node(9, "KSampler", (1290, 80), (330, 262), ("LATENT",), inputs, widgets, ui_only=only),
        Node(10, "VAEDecode", (1290, 410), (330, 46), ("IMAGE",), {"samples": (9, 0), "vae": (3, 0)}),
    ]


def _note(words: str, *files: File) -> Node:
    listed = "\n".join(f"- {folder}: [{name}]({url})" for name, url, folder in files)
    text = {"text": f"{words}**Files**\n{listed}\n"}
    return Node(12, "MarkdownNote", (-560, 80), (530, 620), widgets=text, title="What to turn")
