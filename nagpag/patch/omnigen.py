"""The description of OmniGen 2."""

from __future__ import annotations

from typing import Any

from .. import naming
from .family import Family, not_filled, square


def _references(model: Any, given: dict) -> int:
    """How many tokens reference pictures have, which stand before the picture."""
    patch, sizes = model.patch_size, (reference.shape[-2:] for reference in given.get("ref_latents") or ())
    return sum(-(-height // patch) * -(-width // patch) for height, width in sizes)


OMNIGEN2 = Family(
    name="OmniGen 2",
    models="OmniGen 2",
    classes=("comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel",),
    naming=naming.OMNIGEN2,
    stacks=("layers",),
    slots=(),
    heads=lambda model: model.layers[0].attn.heads,
    patch=square,
    ahead=_references,
    sequence_end=not_filled,
    counted=True,
)
