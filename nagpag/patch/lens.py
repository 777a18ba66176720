"""The description of Lens, whose sequence begins with the picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import naming
from .family import Family


def _project(model: Any, context: Tensor) -> Tensor:
    """The text as blocks take it, of several layers of its encoder side by side."""
    if not model.multi_layer_encoder_feature:
        return model.txt_in(model.txt_norm(context))
    layers = context.unflatten(-1, (len(model.txt_norm), -1)).unbind(2)
    return model.txt_in(torch.cat([norm(layer) for norm, layer in zip(model.txt_norm, layers, strict=True)], -1))


def _ids(model: Any, txt: Tensor, x: Tensor) -> Tensor:
    """Text stands on the diagonal behind the picture, which is centred: ids from half its longer side on."""
    places = torch.arange(txt.shape[1], device=txt.device, dtype=torch.float32) + max(x.shape[-2:]) // 2
    return places.reshape(1, -1, 1).repeat(1, 1, 3)


def _mask(model: Any, mask: Tensor | None, txt: Tensor, x: Tensor) -> Tensor:
    """The mask of the whole sequence, (1 or rows, 1, 1, tokens), which blocks are always given."""
    if mask is None:
        mask = torch.ones(1, txt.shape[1], dtype=torch.bool, device=txt.device)
    return model._build_joint_attention_mask(mask, x.shape[-2] * x.shape[-1])


LENS = Family(
    name="Lens",
    models="Microsoft Lens",
    classes=("comfy.ldm.lens.model.LensTransformer2DModel",),
    naming=naming.LENS,
    stacks=("transformer_blocks",),
    slots=("double_block",),
    heads=lambda model: model.transformer_blocks[0].attn.heads,
    width=lambda model: model.transformer_blocks[0].attn.inner_dim,
    patch=lambda model: (1, 1, 1),
    picture_first=True,
    project=_project,
    ids=_ids,
    ids_by_latent=True,
    embedder="pos_embed",
    mask="attn_mask",
    prepare_mask=_mask,
)
