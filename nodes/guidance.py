"""NAG-PAG Guidance: MODEL in, guided MODEL out."""

from comfy_api.latest import io

from ..nagpag import config
from ..nagpag.blocks import check_spec


def _float_input(number: config.Input) -> io.Float.Input:
    return io.Float.Input(
        number.name,
        default=number.default,
        min=number.minimum,
        max=number.maximum,
        step=number.step,
        round=False,
        tooltip=number.tooltip,
        advanced=number.advanced or None,
    )


class NAGPAGGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=config.NODE_ID,
            display_name=config.DISPLAY_NAME,
            category="advanced/guidance",
            description=config.DESCRIPTION,
            search_aliases=list(config.SEARCH_ALIASES),
            inputs=[
                io.Model.Input("model", tooltip=config.MODEL_TOOLTIP),
                _float_input(config.SCALE),
                io.String.Input("blocks", default=config.BLOCKS_DEFAULT, tooltip=config.BLOCKS_TOOLTIP),
                _float_input(config.TAU),
                _float_input(config.ALPHA),
                _float_input(config.START_PERCENT),
                _float_input(config.END_PERCENT),
            ],
            outputs=[io.Model.Output(tooltip="The guided model, for any sampler.")],
        )

    @classmethod
    def validate_inputs(cls, blocks: str | None = None) -> bool | str:
        """Refuse a spec that no model can satisfy before any model is loaded (None: it comes over a link)."""
        try:
            check_spec(config.BLOCKS_DEFAULT if blocks is None else blocks)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: io.Model.Type, **inputs: float | str) -> io.NodeOutput:
        from ..nagpag.patch import apply_guidance

        return io.NodeOutput(apply_guidance(model, config.Settings(**inputs)))
