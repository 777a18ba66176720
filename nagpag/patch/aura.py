"""The description of AuraFlow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import naming
from .family import Family, square


def _project(model: Any, context: Tensor) -> Tensor:
    """The text as blocks take it, behind the model's registers."""
    txt = model.cond_seq_linear(context)
    return torch.cat((model.register_tokens.to(txt).expand(len(txt), -1, -1), txt), 1)


AURAFLOW = Family(
    name="AuraFlow",
    models="AuraFlow and its fine-tunes",
    classes=("comfy.ldm.aura.mmdit.MMDiT",),
    naming=naming.AURAFLOW,
    stacks=("double_layers", "single_layers"),
    slots=("double_block", "single_block"),
    heads=lambda model: model.double_layers[0].attn.n_heads,
    width=lambda model: model.double_layers[0].attn.n_heads * model.double_layers[0].attn.head_dim,
    patch=square,
    picture_last=True,
    project=_project,
)
