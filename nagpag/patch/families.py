"""Which models can be guided."""

from __future__ import annotations

from typing import Any

from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux

from .plan import PLANS


def diffusion_model_of(model: Any) -> Any:
    """The diffusion model inside a MODEL, also under torch.compile."""
    diffusion_model = model.get_model_object("diffusion_model")
    return getattr(diffusion_model, "_orig_mod", diffusion_model)


def refuse_guided(model: Any, node: str) -> None:
    """Raise ValueError for a MODEL that has guidance on it, where a node of this title guides it by itself."""
    if model.model_options["transformer_options"].get(PLANS):
        raise ValueError(f"{node}: this model is guided already; connect the one from before NAG-PAG Guidance")


def find_flux(model: Any) -> Any:
    """The diffusion model inside a MODEL, where it is of the FLUX family.

    Raises ValueError that names the class and the families that work.
    """
    diffusion_model = diffusion_model_of(model)
    if isinstance(diffusion_model, (Flux, Chroma)) and len(diffusion_model.double_blocks) > 0:
        return diffusion_model
    raise ValueError(
        f"NAG-PAG can't guide this model: {type(diffusion_model).__name__} has no double blocks as FLUX has them. "
        "Models that work: FLUX.1 (dev, schnell, Krea, Kontext, Fill, Redux) and its fine-tunes, FLUX.2, "
        "Chroma and Chroma Radiance."
    )
