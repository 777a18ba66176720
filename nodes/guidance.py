"""NAG-PAG Guidance: MODEL in, guided MODEL out."""

from comfy_api.latest import io

from ..nagpag import config
from ..nagpag.blocks import check_spec


def _widget(item: config.Input, **extra) -> io.WidgetInput:
    common = {"default": item.default, "tooltip": item.tooltip, "advanced": item.advanced or None, **extra}
    if isinstance(item, config.Choice):
        return io.Combo.Input(item.name, options=list(item.options), **common)
    if isinstance(item, config.Flag):
        return io.Boolean.Input(item.name, **common)
    if isinstance(item, config.Text):
        return io.String.Input(item.name, **common)
    bounds = {"min": item.minimum, "max": item.maximum, "step": item.step}
    if isinstance(item.default, int):
        return io.Int.Input(item.name, **bounds, **common)
    return io.Float.Input(item.name, round=False, **bounds, **common)


def _curve_socket() -> io.Input:
    """A CURVE that comes over a link; as a widget it would always have a value, and always win over schedule."""
    return io.Custom(io.Curve.io_type).Input(
        config.CURVE, optional=True, tooltip=config.CURVE_TOOLTIP, extra_dict={"forceInput": True}
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
                *(_widget(item) for item in config.FIRST_INPUTS),
                # Optional, so that API graphs saved before these were there still run; what they lack is at its default.
                *(_widget(item, optional=True) for item in config.LATER_INPUTS),
                _curve_socket(),
            ],
            outputs=[io.Model.Output(tooltip=config.OUTPUT_TOOLTIP)],
        )

    @classmethod
    def validate_inputs(
        cls, blocks: str | None = None, start_percent: float | None = None, end_percent: float | None = None
    ) -> bool | str:
        """Refuse what no model can satisfy before any model is loaded. None: the value comes over a link.

        The host leaves the inputs named here to us, their ranges too.
        """
        given = {"blocks": blocks, "start_percent": start_percent, "end_percent": end_percent}
        try:
            settings = config.Settings(**{name: value for name, value in given.items() if value is not None})
            check_spec(settings.blocks)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: io.Model.Type, curve: object = None, **inputs: float | int | str | bool) -> io.NodeOutput:
        from ..nagpag.patch import apply_guidance
        from ..nagpag.patch.curve import read_curve

        strength = None if curve is None else read_curve(curve)
        return io.NodeOutput(apply_guidance(model, config.Settings(**inputs, curve=strength)))
