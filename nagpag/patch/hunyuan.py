"""The description of HunyuanVideo and Hunyuan Image: FLUX's blocks, and a text that is refined anew at each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import naming
from .family import Family


def _refined(model: Any, given: dict) -> Tensor:
    """The text as the host's forward makes it: what CLIP sees of a picture, the refined text, and byT5's beside it."""
    kinds, byt5, seen = model.cond_type_embedding, given.get("txt_byt5"), given.get("clip_fea")

    def of_kind(tokens: Tensor, kind: int) -> Tensor:
        return tokens if kinds is None else tokens + kinds.weight[kind].to(tokens)

    parts = [of_kind(model.txt_in(given["c_crossattn"], given["timestep"], None), 0)]
    if byt5 is not None and model.byt5_in is not None:
        # HunyuanVideo 1.5, which tells kinds of text apart, has it before the text.
        parts.insert(1 if kinds is None else 0, of_kind(model.byt5_in(byt5), 1))
    if seen is not None:
        parts.insert(0, of_kind(model.vision_in(seen), 2))
    return torch.cat(parts, 1)


def _ids(model: Any, txt: Tensor, x: Tensor) -> Tensor:
    """All of the text stands at the origin."""
    return torch.zeros(1, txt.shape[1], len(model.params.axes_dim), device=txt.device, dtype=torch.float32)


def _token(model: Any) -> tuple[int, int, int]:
    """The size of a token; a model of pictures says only height and width."""
    frames, height, width = (1, *model.patch_size)[-3:]
    return frames, height, width


def _reference(model: Any, given: dict) -> int:
    """How many tokens a reference picture has, which stands before the first frame."""
    reference = given.get("ref_latent")
    if reference is None:
        return 0
    return math.prod(-(-size // of) for size, of in zip(reference.shape[-3:], _token(model), strict=True))


def _replaced_frame(given: dict) -> int:
    """The first frame is the user's own picture where the model is told so (HunyuanImageToVideo, "v2 (replace)")."""
    return int(given.get("guiding_frame_index") is not None)


HUNYUAN = Family(
    name="HunyuanVideo and Hunyuan Image",
    models="HunyuanVideo 1.0 and 1.5 (text and image to video) and Hunyuan Image 2.1, with their refiners",
    classes=("comfy.ldm.hunyuan_video.model.HunyuanVideo",),
    naming=naming.FLUX,
    stacks=("double_blocks", "single_blocks"),
    slots=("double_block", "single_block"),
    heads=lambda model: model.num_heads,
    width=lambda model: model.hidden_size,
    patch=_token,
    ahead=_reference,
    given_frames=_replaced_frame,
    refine=_refined,
    texts=("c_crossattn", "txt_byt5"),
    ids=_ids,
)
