"""The description of SD 3 and SD 3.5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import naming
from .family import Family, square


def _project(model: Any, context: Tensor) -> Tensor:
    if model.context_processor is not None:
        context = model.context_processor(context.clone())  # it adds in place
    txt = model.context_embedder(context)
    if model.register_length == 0:
        return txt
    return torch.cat((model.register.to(txt).expand(len(txt), -1, -1), txt), 1)


def _pooled(model: Any, y: Tensor) -> Tensor | None:
    """A prompt's part of the modulation vector."""
    return None if model.y_embedder is None else model.y_embedder(y)


# Its blocks with a second attention, of the picture alone (SD 3.5 Medium), call the joint one first.
SD3 = Family(
    name="SD 3",
    models="Stable Diffusion 3 and 3.5 (Medium, Large, Turbo)",
    classes=("comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",),
    naming=naming.SD3,
    stacks=("joint_blocks",),
    slots=("double_block",),
    heads=lambda model: model.num_heads,
    width=lambda model: model.hidden_size,
    patch=square,
    project=_project,
    pooled=_pooled,
)
