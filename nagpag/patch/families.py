"""Which models can be guided: the table of families, and which of them a MODEL is."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from .. import naming
from .aura import AURAFLOW
from .family import Family, Found, frames_given, not_filled, square
from .flux import FLUX, project_normed
from .hunyuan import HUNYUAN
from .lens import LENS
from .ltxv import LTX2, LTXV
from .minimax import MINIMAX_H3
from .omnigen import OMNIGEN2
from .plan import PLANS
from .sd3 import SD3

# --- what the table's entries work out ---


def _qwen_ids(model: Any, txt: Tensor, x: Tensor) -> Tensor:
    """Text stands on the diagonal behind the picture, which is centred: ids from half its longer side on."""
    sides = [(size + model.patch_size // 2) // model.patch_size for size in x.shape[-2:]]
    start = max(sides) // 2
    return torch.arange(start, start + txt.shape[1], device=txt.device).reshape(1, -1, 1).repeat(1, 1, 3)


def _filled(model: Any, tokens: int) -> int:
    """The picture's tokens with those that fill them up; an older ComfyUI has none of those."""
    return -(-tokens // (multiple := getattr(model, "pad_tokens_multiple", None) or 1)) * multiple


def _lumina_references(model: Any, given: dict) -> int:
    """How many tokens reference pictures have, each filled up; they stand before the picture."""
    sizes = (ref.shape[-2:] for ref in given.get("ref_latents") or ())
    return sum(_filled(model, (height // model.patch_size) * (width // model.patch_size)) for height, width in sizes)


def _wan_reference(model: Any, given: dict) -> int:
    """How many tokens a reference picture has, which some models put before the first frame."""
    reference = given.get("reference_latent")
    if reference is None or getattr(model, "ref_conv", None) is None:
        return 0
    height, width = (size // of for size, of in zip(reference.shape[-2:], model.patch_size[-2:], strict=True))
    return height * width


def _masked_frames(given: dict) -> int:
    """How many of the first frames a noise mask gives whole, to models that see it; the user's own."""
    mask = given.get("denoise_mask")
    return 0 if mask is None else frames_given(mask)


def _masked_last_frames(given: dict) -> int:
    """The same of the last frames."""
    mask = given.get("denoise_mask")
    return 0 if mask is None else frames_given(mask.flip(2))


def _replaced_frames(given: dict) -> int:
    """How many of the first frames are put in the noise's place; the user's own."""
    frames = given.get("time_dim_replace")
    return 0 if frames is None else frames.shape[2]


# --- the table ---

QWEN_IMAGE = Family(
    name="Qwen-Image",
    models="Qwen-Image, Qwen-Image-Edit (2509, 2511) and Qwen-Image-Layered",
    classes=("comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",),
    naming=naming.QWEN_IMAGE,
    stacks=("transformer_blocks",),
    slots=("double_block",),
    heads=lambda model: model.transformer_blocks[0].num_attention_heads,
    width=lambda model: model.inner_dim,
    patch=square,
    project=project_normed,
    ids=_qwen_ids,
    ids_by_latent=True,
    doubled_vec=True,
)
LUMINA = Family(
    name="Z-Image and Lumina 2",
    models="Z-Image (turbo, base, omni) and Lumina 2 with its fine-tunes",
    classes=("comfy.ldm.lumina.model.NextDiT",),
    naming=naming.LUMINA,
    stacks=("layers",),
    slots=(),
    heads=lambda model: model.n_heads,
    patch=square,
    ahead=_lumina_references,
    sequence_end=_filled,
)
WAN = Family(
    name="Wan",
    models="Wan 2.1 and 2.2 (text and image to video)",
    classes=("comfy.ldm.wan.model.WanModel",),
    naming=naming.WAN,
    stacks=("blocks",),
    slots=("double_block",),
    heads=lambda model: model.num_heads,
    patch=lambda model: tuple(model.patch_size),
    joint=False,
    ahead=_wan_reference,
    given_frames=_masked_frames,
    clip_first=True,
    project=lambda model, context: model.text_embedding(context),
)
# ComfyUI's own call of a block from its slot names what the block does not know, so that the slot can't be used.
KANDINSKY = Family(
    name="Kandinsky 5",
    models="Kandinsky 5 (video lite and pro, image lite)",
    classes=("comfy.ldm.kandinsky5.model.Kandinsky5",),
    naming=naming.KANDINSKY,
    stacks=("visual_transformer_blocks",),
    slots=(),
    heads=lambda model: model.visual_transformer_blocks[0].self_attention.num_heads,
    patch=lambda model: tuple(model.patch_size),
    joint=False,
    given_frames=_replaced_frames,
    sequence_end=not_filled,
)
COSMOS = Family(
    name="Cosmos Predict 2 and Anima",
    models="Cosmos Predict 2 (text to image, image to video) and Anima",
    classes=("comfy.ldm.cosmos.predict2.MiniTrainDIT", "comfy.ldm.anima.model.Anima"),
    naming=naming.COSMOS,
    stacks=("blocks",),
    slots=(),
    heads=lambda model: model.num_heads,
    patch=lambda model: (model.patch_temporal, model.patch_spatial, model.patch_spatial),
    joint=False,
    given_frames=_masked_frames,
    last_frames=_masked_last_frames,
    sequence_end=not_filled,
)
KREA_2 = Family(
    name="Krea 2",
    models="Krea 2",
    classes=("comfy.ldm.krea2.model.SingleStreamDiT",),
    naming=naming.KREA_2,
    stacks=("blocks",),
    slots=(),
    heads=lambda model: model.heads,
    patch=lambda model: (1, model.patch, model.patch),
)
# Of its blocks nothing is known: it is guided at its prediction, by a negative prompt.
ANY = Family(
    name="any other model",
    models="any model that ComfyUI samples",
    classes=(),
    naming=naming.ANY,
    stacks=(),
    slots=(),
    heads=lambda model: 0,
    patch=lambda model: (1, 1, 1),
)

FAMILIES = (
    *(FLUX, QWEN_IMAGE, LUMINA, WAN, HUNYUAN, SD3, LTXV, LTX2),
    *(AURAFLOW, KANDINSKY, COSMOS, KREA_2, OMNIGEN2, LENS, MINIMAX_H3),
)


# --- which of them ---


def diffusion_model_of(model: Any) -> Any:
    """The diffusion model inside a MODEL, also under torch.compile."""
    diffusion_model = model.get_model_object("diffusion_model")
    return getattr(diffusion_model, "_orig_mod", diffusion_model)


def refuse_nested(samples: Any, node: str) -> None:
    """Raise ValueError for a latent of several parts, such as picture and sound. node: its title, in words."""
    if getattr(samples, "is_nested", False):
        kinds = ", ".join(str(tuple(part.shape)) for part in samples.unbind())
        raise ValueError(
            f"{node}: the latent holds several at once ({kinds}), such as video and sound; wire one that holds a "
            "picture or a video alone"
        )


def refuse_guided(model: Any, node: str) -> None:
    """Raise ValueError for a MODEL that has guidance on it, where a node of this title guides it by itself."""
    if model.model_options["transformer_options"].get(PLANS):
        raise ValueError(f"{node}: this model is guided already; connect the one from before NAG-PAG Guidance")


def find_model(model: Any) -> Found:
    """The diffusion model inside a MODEL, and its family; ANY, and why, where its blocks are those of none."""
    diffusion_model = diffusion_model_of(model)
    own = type(diffusion_model)
    # A pack's class counts as ComfyUI's that it is made of, and an unknown one of ComfyUI's as itself.
    of_host = next((cls for cls in own.__mro__ if cls.__module__.startswith("comfy.")), None)
    if of_host is None and any(own.__name__ == cls.rpartition(".")[2] for each in FAMILIES for cls in each.classes):
        return Found(ANY, diffusion_model, _not_of_host(own))
    name = "" if of_host is None else f"{of_host.__module__}.{of_host.__qualname__}"
    for family in FAMILIES:
        if name in family.classes and len(getattr(diffusion_model, family.stacks[0])) > 0:
            # Packs' forwards of FLUX call its blocks, or the log says that they don't (docs/beside.md).
            if family is not FLUX and _has_own_forward(own, of_host):
                return Found(ANY, diffusion_model, _not_of_host(own))
            return Found(family, diffusion_model)
    return Found(ANY, diffusion_model, f"its class is {own.__name__}")


def _has_own_forward(own: type, of_host: type | None) -> bool:
    """Whether a pack's class, made of ComfyUI's, runs the model in a way of its own, as Nunchaku's Qwen-Image does."""
    above = itertools.takewhile(lambda cls: cls is not of_host, own.__mro__)
    return any(name in vars(cls) for cls in above for name in ("forward", "_forward", "forward_orig"))


def _not_of_host(own: type) -> str:
    return (
        f"its class {own.__name__} comes from {own.__module__}, not from ComfyUI, so that its forward need not call "
        "blocks as ComfyUI's does (load it with ComfyUI's own loader)"
    )


def known_models() -> str:
    """Which models have blocks that are known, in words."""
    return "; ".join(family.models for family in FAMILIES)


def find_flux(model: Any) -> Any:
    """The diffusion model inside a MODEL, where it is of the FLUX family; raises ValueError where it is not."""
    found = find_model(model)
    if found.family is not FLUX:
        what = f"none of these: {found.why}" if found.why else found.family.name
        raise ValueError(f"NAG-PAG: this works with {FLUX.models}; this model is {what}")
    return found.model
