"""The nodes that show: NAG-PAG Inspect Model, NAG-PAG Record, NAG-PAG Plot."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from comfy_api.latest import io, ui

from ..nagpag.inputs.diagnostics import INSPECT, PLOT, RECORD
from ..nagpag.inputs.kinds import Node
from .schema import schema_of


def what_plotting_lacks(node: Node) -> str | None:
    """That matplotlib is not installed, and how to mend it."""
    if importlib.util.find_spec("matplotlib"):
        return None
    how = f'"{sys.executable}" -m pip install matplotlib'
    return f"{node.title} needs matplotlib, which is not installed: {how}"


class NAGPAGInspect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema_of(INSPECT, is_output_node=True)

    @classmethod
    def execute(cls, model: io.Model.Type, **inputs: Any) -> io.NodeOutput:
        from ..nagpag.diagnostics.inspect import inspect_model

        text = inspect_model(model, {**INSPECT.defaults, **inputs}["blocks"])
        return io.NodeOutput(model, text, ui=ui.PreviewText(text))


class NAGPAGRecord(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        # Two of these on one model are two records: the host may not take one's outputs for the other's.
        return schema_of(RECORD, not_idempotent=True)

    @classmethod
    def execute(cls, model: io.Model.Type) -> io.NodeOutput:
        from ..nagpag.diagnostics.record import Record
        from ..nagpag.diagnostics.recording import record_model

        record = Record()
        return io.NodeOutput(record_model(model, record), record)


class NAGPAGPlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema_of(PLOT, is_output_node=True)

    @classmethod
    def validate_inputs(cls, latent: None = None) -> bool | str:
        """Say before any work that the plotting library is missing; the other nodes do without it.

        latent: not looked at; the host shows a message only on an input that is named here.
        """
        return what_plotting_lacks(PLOT) or True

    @classmethod
    def execute(cls, record, latent: io.Latent.Type) -> io.NodeOutput:
        import torch

        from ..nagpag.diagnostics.plot import draw

        recording, matched = record.of(latent["samples"])
        image = torch.from_numpy(draw(recording, matched)).unsqueeze(0)
        numbers = "{}" if recording is None else recording.as_json()
        return io.NodeOutput(image, latent, numbers, ui=ui.PreviewImage(image, cls=cls))
