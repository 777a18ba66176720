"""The description of FLUX: in a module of its own, as it decides which pictures the kept evidence shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import naming
from .family import Family, square


def project_normed(model: Any, context: Tensor) -> Tensor:
    """The text's own projection, behind a norm where there is one."""
    if getattr(model, "txt_norm", None) is not None:
        context = model.txt_norm(context)
    return model.txt_in(context)


def _flux_ids(flux: Any, txt: Tensor, x: Tensor) -> Tensor:
    """Ids of text tokens, (1, text tokens, axes), as the host's forward makes them."""
    ids = torch.zeros(1, txt.shape[1], len(flux.params.axes_dim), device=txt.device, dtype=torch.float32)
    for axis in getattr(flux.params, "txt_ids_dims", None) or ():
        ids[:, :, axis] = torch.arange(txt.shape[1], device=txt.device, dtype=torch.float32)
    return ids


def _flux_text_is_fixed(flux: Any, given: dict, second: bool) -> bool:
    """True where the host's single blocks know the picture's place by the prompt's length."""
    method = given.get("ref_latents_method") or getattr(flux.params, "default_ref_method", None)
    return second and bool(given.get("ref_latents")) and method == "index_timestep_zero"


FLUX = Family(
    name="FLUX",
    models="FLUX.1 (dev, schnell, Krea, Kontext, Fill, Redux) and its fine-tunes, FLUX.2, Chroma and Chroma Radiance",
    classes=(
        "comfy.ldm.flux.model.Flux",
        "comfy.ldm.chroma.model.Chroma",
        "comfy.ldm.chroma_radiance.model.ChromaRadiance",
    ),
    naming=naming.FLUX,
    stacks=("double_blocks", "single_blocks"),
    slots=("double_block", "single_block"),
    heads=lambda model: model.num_heads,
    width=lambda model: model.hidden_size,
    patch=square,
    project=project_normed,
    ids=_flux_ids,
    mask="attn_mask",
    text_is_fixed=_flux_text_is_fixed,
)
