"""NAG-PAG Calibrate: the blocks and the strength that suit a model, by what the model itself says."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..nagpag.config import CALIBRATE, REACH
from .diagnostics import schema_of, what_plotting_lacks

TIPS = CALIBRATE.inputs


class NAGPAGCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Model.Input("model", tooltip=TIPS["model"]),
            io.Conditioning.Input("positive", tooltip=TIPS["positive"]),
            io.Conditioning.Input("empty", tooltip=TIPS["empty"]),
            io.Latent.Input("latent_image", tooltip=TIPS["latent_image"]),
            io.String.Input("candidates", default="", multiline=True, tooltip=TIPS["candidates"]),
            io.String.Input("alphas", default="0.05, 0.15, 0.3", tooltip=TIPS["alphas"]),
            io.Combo.Input("reach", options=list(REACH.options), default=REACH.default, tooltip=TIPS["reach"]),
            io.Int.Input("pictures", default=128, min=2, max=1024, tooltip=TIPS["pictures"]),
            io.Int.Input("steps", default=12, min=1, max=200, tooltip=TIPS["steps"]),
            io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=False, tooltip=TIPS["seed"]),
            io.Float.Input("sigma", default=0.7, min=0.05, max=0.95, step=0.05, advanced=True, tooltip=TIPS["sigma"]),
        ]
        outputs = [
            io.String.Output(display_name="blocks", tooltip=CALIBRATE.outputs["blocks"]),
            io.Float.Output(display_name="alpha", tooltip=CALIBRATE.outputs["alpha"]),
            io.Image.Output(tooltip=CALIBRATE.outputs["IMAGE"]),
            io.String.Output(display_name="numbers", tooltip=CALIBRATE.outputs["numbers"]),
        ]
        return schema_of(CALIBRATE, inputs, outputs, is_output_node=True)

    @classmethod
    def validate_inputs(cls, candidates: str | None = None, alphas: str | None = None) -> bool | str:
        """Say before any model is loaded what is no block spec, no alpha, or not installed. None: it comes over a link."""
        from ..nagpag.calibration.search import read_candidates

        try:
            read_candidates(candidates or "", "1" if alphas is None else alphas)
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
        candidates: str,
        alphas: str,
        reach: str,
        pictures: int,
        steps: int,
        seed: int,
        sigma: float,
    ) -> io.NodeOutput:
        import comfy.sample
        import comfy.utils
        import torch

        from ..nagpag.calibration import search
        from ..nagpag.diagnostics.plot import draw_measured

        # An empty latent may be of another model's size: as in KSampler it is fitted to this one's.
        scale = latent_image.get("downscale_ratio_spacial")
        latent = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"], scale)
        asked = search.Asked(positive, empty, latent, pictures, steps, seed, sigma)
        guided = search.guided_by(model, candidates, alphas, reach)
        bar = comfy.utils.ProgressBar(search.steps_in_all(asked, len(guided)))
        tried = search.compare(model, guided, asked, lambda: bar.update(1))
        chosen = search.best(tried)
        plot = draw_measured({str(one.candidate): one.change for one in tried}, chosen and str(chosen))
        image = torch.from_numpy(plot).unsqueeze(0)
        spec, alpha = (chosen.blocks, chosen.alpha) if chosen else (tried[0].candidate.blocks, 0.0)
        return io.NodeOutput(spec, alpha, image, search.as_json(tried), ui=ui.PreviewImage(image, cls=cls))
