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

        The host shows one message on every input that is named here, so alphas are read when the node runs.
        """
        from ..nagpag.calibration.search import read_candidates

        try:
            read_candidates(candidates or "", CALIBRATE.defaults["alphas"])
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
        **inputs: Any,
    ) -> io.NodeOutput:
        import comfy.sample
        import comfy.utils
        import torch

        from ..nagpag.calibration import search
        from ..nagpag.diagnostics.plot import draw_measured

        given = {**CALIBRATE.defaults, **inputs}
        # An empty latent may be of another model's size: as in KSampler it is fitted to this one's.
        scale = latent_image.get("downscale_ratio_spacial")
        latent = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"], scale)
        drawn = (given[name] for name in ("pictures", "steps", "seed", "sigma"))
        series = search.Series(positive, empty, latent, *drawn)
        guided = search.guided_by(model, given["candidates"], given["alphas"], given["reach"])
        bar = comfy.utils.ProgressBar(search.steps_in_all(series, len(guided)))
        tried = search.compare(model, guided, series, lambda: bar.update(1))
        chosen = search.best(tried)
        plot = draw_measured({str(one.candidate): one.change for one in tried}, chosen and str(chosen))
        image = torch.from_numpy(plot).unsqueeze(0)
        spec, alpha = (chosen.blocks, chosen.alpha) if chosen else (tried[0].candidate.blocks, 0.0)
        return io.NodeOutput(spec, alpha, image, search.as_json(tried), ui=ui.PreviewImage(image, cls=cls))
