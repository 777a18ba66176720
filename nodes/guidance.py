"""NAG-PAG Guidance and its sister with all inputs: MODEL in, guided MODEL out."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..nagpag.blocks import check_spec
from ..nagpag.inputs.guidance import ADVANCED, ALPHA, GUIDANCE
from ..nagpag.inputs.presets import PRESETS
from ..nagpag.settings import Settings
from . import schema
from .schema import schema_of

log = logging.getLogger("nag_pag_flux")


class NAGPAGGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema_of(GUIDANCE)

    @classmethod
    def validate_inputs(cls, blocks: str | None = None) -> bool | str:
        """Refuse what no model can satisfy before any model is loaded. None: the spec comes over a link.

        The host shows one message on every input that is named here, so no other is; ranges it checks by itself.
        """
        if blocks is None:
            return True
        try:
            check_spec(Settings(blocks=blocks).blocks)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, model: io.Model.Type, curve: object = None, negative_conditioning: list | None = None, **inputs: Any
    ) -> io.NodeOutput:
        from ..nagpag.patch import apply_guidance
        from ..nagpag.patch.curve import read_curve
        from ..nagpag.patch.report import idle

        strength = None if curve is None else read_curve(curve)
        settings = Settings(**inputs, curve=strength, negative_conditioning=negative_conditioning)
        for sentence in idle(settings):
            log.info("NAG-PAG: %s.", sentence)
        return io.NodeOutput(apply_guidance(model, settings))


class NAGPAGGuidanceAdvanced(NAGPAGGuidance):
    @classmethod
    def define_schema(cls) -> io.Schema:
        values = {name: {**ADVANCED.defaults, **own} for name, own in PRESETS.items()}
        # On an input that the simple node has not: it has too few for a preset.
        return schema_of(ADVANCED, {ALPHA.name: {"extra_dict": {schema.PRESETS: values}}})
