"""The nodes that show: NAG-PAG Inspect Model, NAG-PAG Record, NAG-PAG Plot."""

from __future__ import annotations

import importlib.util
import sys

from comfy_api.latest import io, ui

from ..nagpag.config import BLOCKS, INSPECT, PLOT, RECORD, NodeTexts

RecordSocket = io.Custom("NAGPAG_RECORD")


def schema_of(node: NodeTexts, inputs: list, outputs: list, **extra) -> io.Schema:
    return io.Schema(
        node_id=node.id,
        display_name=node.display_name,
        category="advanced/guidance",
        description=node.description,
        search_aliases=list(node.search_aliases),
        inputs=inputs,
        outputs=outputs,
        **extra,
    )


def what_plotting_lacks(node: NodeTexts) -> str | None:
    """That matplotlib is not installed, and how to mend it."""
    if importlib.util.find_spec("matplotlib"):
        return None
    how = f'"{sys.executable}" -m pip install matplotlib'
    return f"{node.display_name} needs matplotlib, which is not installed: {how}"


class NAGPAGInspect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Model.Input("model", tooltip=INSPECT.inputs["model"]),
            io.String.Input("blocks", default=BLOCKS.default, optional=True, tooltip=INSPECT.inputs["blocks"]),
        ]
        outputs = [
            io.Model.Output(tooltip=INSPECT.outputs["MODEL"]),
            io.String.Output(display_name="text", tooltip=INSPECT.outputs["text"]),
        ]
        return schema_of(INSPECT, inputs, outputs, is_output_node=True)

    @classmethod
    def execute(cls, model: io.Model.Type, blocks: str = BLOCKS.default) -> io.NodeOutput:
        from ..nagpag.diagnostics.inspect import inspect_model

        text = inspect_model(model, blocks)
        return io.NodeOutput(model, text, ui=ui.PreviewText(text))


class NAGPAGRecord(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model", tooltip=RECORD.inputs["model"])]
        outputs = [
            io.Model.Output(tooltip=RECORD.outputs["MODEL"]),
            RecordSocket.Output(display_name="record", tooltip=RECORD.outputs["record"]),
        ]
        # Two of these on one model are two records: the host may not take one's outputs for the other's.
        return schema_of(RECORD, inputs, outputs, not_idempotent=True)

    @classmethod
    def execute(cls, model: io.Model.Type) -> io.NodeOutput:
        from ..nagpag.diagnostics.record import Record
        from ..nagpag.patch import record_model

        record = Record()
        return io.NodeOutput(record_model(model, record), record)


class NAGPAGPlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            RecordSocket.Input("record", tooltip=PLOT.inputs["record"]),
            io.Latent.Input("latent", tooltip=PLOT.inputs["latent"]),
        ]
        outputs = [
            io.Image.Output(tooltip=PLOT.outputs["IMAGE"]),
            io.Latent.Output(tooltip=PLOT.outputs["LATENT"]),
            io.String.Output(display_name="numbers", tooltip=PLOT.outputs["numbers"]),
        ]
        return schema_of(PLOT, inputs, outputs, is_output_node=True)

    @classmethod
    def validate_inputs(cls) -> bool | str:
        """Say before any work that the plotting library is missing; the other nodes do without it."""
        return what_plotting_lacks(PLOT) or True

    @classmethod
    def execute(cls, record, latent: io.Latent.Type) -> io.NodeOutput:
        import torch

        from ..nagpag.diagnostics.plot import draw

        recording, matched = record.of(latent["samples"])
        image = torch.from_numpy(draw(recording, matched)).unsqueeze(0)
        numbers = "{}" if recording is None else recording.as_json()
        return io.NodeOutput(image, latent, numbers, ui=ui.PreviewImage(image, cls=cls))
