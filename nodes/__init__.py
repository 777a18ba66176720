"""The ComfyUI nodes: thin faces of the library in `nagpag`."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from .calibration import NAGPAGCalibrate
from .diagnostics import NAGPAGInspect, NAGPAGPlot, NAGPAGRecord
from .guidance import NAGPAGGuidance


class NagPagExtension(ComfyExtension):
    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [NAGPAGGuidance, NAGPAGInspect, NAGPAGRecord, NAGPAGPlot, NAGPAGCalibrate]
