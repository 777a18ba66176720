"""NAG-PAG Compare: the same prompt and noise under several settings, on one sheet."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..nagpag.inputs.comparison import AXES, COMPARE
from .schema import schema_of


class NAGPAGCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from comfy.samplers import KSampler

        known = {"sampler_name": KSampler.SAMPLERS, "scheduler": KSampler.SCHEDULERS}
        more = {name: {"options": list(words)} for name, words in known.items()}
        return schema_of(COMPARE, more, is_output_node=True)

    @classmethod
    def validate_inputs(cls, axes: str | None = None) -> bool | str:
        """Say before any model is loaded what can't be compared. None: it comes over a link."""
        from ..nagpag.comparison.axes import read_axes

        try:
            read_axes(AXES.default if axes is None else axes)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        latent_image: io.Latent.Type,
        vae: io.Vae.Type,
        **inputs: Any,
    ) -> io.NodeOutput:
        import torch

        from ..nagpag.comparison import drawing, told
        from ..nagpag.comparison.axes import read_axes
        from ..nagpag.comparison.sheet import draw_sheet
        from ..nagpag.kept import Source
        from ..nagpag.patch.families import refuse_nested

        refuse_nested(latent_image["samples"], "NAG-PAG Compare")
        given = {**COMPARE.defaults, **inputs}
        grid, batch = read_axes(given["axes"]), len(latent_image["samples"])
        wanted = drawing.shots(grid.different, given["seed"], given["seeds"], batch)
        sampling = drawing.Sampling(
            given["steps"], given["cfg"], given["sampler_name"], given["scheduler"], given["denoise"]
        )
        source = Source(model, positive, negative, latent_image)
        pictures = torch.cat(drawing.draw(source, vae, wanted, sampling, drawing.KEPT))
        rows = told.rows_of(grid, wanted, batch)
        sheet = draw_sheet(pictures, told.title(grid, sampling), grid.columns, rows)
        numbers = told.as_json(grid, wanted, rows, sampling, batch)
        return io.NodeOutput(sheet, pictures, numbers, ui=ui.PreviewImage(sheet, cls=cls))
