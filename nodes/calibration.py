"""NAG-PAG Calibrate: the blocks and the strength that suit a model, by what the model itself says."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..nagpag.inputs.calibration import CALIBRATE
from .diagnostics import what_plotting_lacks
from .schema import schema_of


class NAGPAGCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema_of(CALIBRATE, is_output_node=True)

    @classmethod
    def validate_inputs(cls, candidates: str | None = None) -> bool | str:
        """Say before any model is loaded what is no spec, or not installed. None: it comes over a link.

        The host shows one message on every input that is named here, so the others are read when the node runs.
        """
        from ..nagpag.candidates import read_specs

        try:
            read_specs(candidates or "")
        except ValueError as error:
            return str(error)
        return what_plotting_lacks(CALIBRATE) or True

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        empty: io.Conditioning.Type,
        latent_image: io.Latent.Type,
        vae: io.Vae.Type,
        **inputs: Any,
    ) -> io.NodeOutput:
        import comfy.sample
        import comfy.utils
        import torch

        from ..nagpag.calibration import search, told
        from ..nagpag.calibration.series import Series
        from ..nagpag.diagnostics.plot import draw_measured
        from ..nagpag.patch.families import refuse_nested
        from ..nagpag.settings import Settings

        refuse_nested(latent_image["samples"], "NAG-PAG Calibrate")
        given = {**CALIBRATE.defaults, **inputs}
        # An empty latent may be of another model's size: as in KSampler it is fitted to this one's.
        scale = latent_image.get("downscale_ratio_spacial")
        latent = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"], scale)
        series = Series(positive, empty, latent, *(given[name] for name in ("pictures", "steps", "seed", "sigma")))
        common = Settings(reach=given["reach"], negative_prompt=given["negative_prompt"])
        guided = search.guided_by(model, given["candidates"], given["alphas"], common)
        asked, found = search.Search(model, guided, common, series), search.FOUND
        bar = comfy.utils.ProgressBar(search.steps_missing(asked, found) + 2 * len(told.columns(asked)))
        tried = search.compare(asked, found, lambda: bar.update(1))
        chosen, first = search.best(tried), tried[0].candidate
        sheet = _sheet(asked, found, tried, vae, bar)
        measured = draw_measured({str(one.candidate): one.change for one in tried}, chosen and str(chosen))
        plot = torch.from_numpy(measured).unsqueeze(0)
        previews = [*ui.PreviewImage(sheet, cls=cls).values, *ui.PreviewImage(plot, cls=cls).values]
        alpha = chosen.alpha if chosen else 0.0
        return io.NodeOutput(first.blocks, alpha, plot, told.as_json(asked, tried), sheet, ui={"images": previews})


def _sheet(asked: Any, found: Any, tried: list, vae: Any, bar: Any) -> Any:
    """Pictures with guidance off and under the first of what was tried, decoded, on one sheet."""
    import torch

    from ..nagpag.calibration import search, told
    from ..nagpag.comparison.drawing import decode
    from ..nagpag.comparison.sheet import draw_sheet

    shown = [latent for one in (None, tried[0].candidate) for latent in search.shown(asked, found, one)]
    pictures = torch.cat([decode(vae, latent, bar, len(shown) - i - 1) for i, latent in enumerate(shown)])
    return draw_sheet(pictures, told.title(asked), told.columns(asked), told.rows(asked, tried))
