"""The ComfyUI nodes: thin faces of the library in `nagpag`. They read inputs, call it, and shape the answer."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from . import saved
from .calibration import NAGPAGCalibrate
from .comparison import NAGPAGCompare
from .diagnostics import NAGPAGInspect, NAGPAGPlot, NAGPAGRecord
from .guidance import NAGPAGGuidance, NAGPAGGuidanceAdvanced


class NagPagExtension(ComfyExtension):
    @override
    async def on_load(self) -> None:
        saved.replace_in_prompts()

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            *(NAGPAGGuidance, NAGPAGGuidanceAdvanced),
            *(NAGPAGCompare, NAGPAGInspect, NAGPAGRecord, NAGPAGPlot, NAGPAGCalibrate),
        ]
