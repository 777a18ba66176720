"""API graphs that were saved before still run as they did.

Before NAG-PAG Guidance had a sister: the sister takes the node's place. The host's own node replacement acts only on
classes that are gone, and NAGPAGGuidance is not. Before Calibrate knew of a negative prompt: it searches without one.
Graphs that are opened in the browser are mended there (web/saved_workflows.js).
"""

from __future__ import annotations

import sys
from typing import Any

from ..nagpag.inputs.calibration import CALIBRATE
from ..nagpag.inputs.guidance import ADVANCED, GUIDANCE, NEGATIVE_PROMPT, OFF

_SIMPLE = {item.name for item in GUIDANCE.inputs}
_ALL = {item.name for item in ADVANCED.inputs}
_CALIBRATE_HAD = CALIBRATE.defaults.keys() - {NEGATIVE_PROMPT.name}


def replace_in_prompts() -> None:
    """Have every prompt that the running ComfyUI is sent looked through; without a server do nothing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.add_on_prompt_handler(replaced)


def replaced(request: Any) -> Any:
    """A request to /prompt in which a NAGPAGGuidance with inputs that only its sister has is that sister.

    It is of a time when the branch carried no negative prompt, if it does not name one. So is a NAGPAGCalibrate that
    names all its other inputs, as the host writes them down.
    """
    graph = request.get("prompt") if isinstance(request, dict) else None
    for node in graph.values() if isinstance(graph, dict) else ():
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict):
            _mend(node, node["inputs"])
    return request


def _mend(node: dict, inputs: dict) -> None:
    kind = node.get("class_type")
    if kind == GUIDANCE.id and (_ALL - _SIMPLE) & inputs.keys():
        node["class_type"] = ADVANCED.id
        inputs.setdefault(NEGATIVE_PROMPT.name, OFF)
    if kind == CALIBRATE.id and inputs.keys() >= _CALIBRATE_HAD:
        inputs.setdefault(NEGATIVE_PROMPT.name, OFF)
