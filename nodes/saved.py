"""API graphs that were saved before NAG-PAG Guidance had a sister still run: the sister takes the node's place.

The host's own node replacement acts only on classes that are gone, and NAGPAGGuidance is not. Graphs that are opened in
the browser are replaced there (web/saved_workflows.js).
"""

from __future__ import annotations

import sys
from typing import Any

from ..nagpag.inputs.guidance import ADVANCED, GUIDANCE, NEGATIVE_PROMPT, OFF

_SIMPLE = {item.name for item in GUIDANCE.inputs}
_ALL = {item.name for item in ADVANCED.inputs}


def replace_in_prompts() -> None:
    """Have every prompt that the running ComfyUI is sent looked through; without a server do nothing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.add_on_prompt_handler(replaced)


def replaced(request: Any) -> Any:
    """A request to /prompt in which a NAGPAGGuidance with inputs that only its sister has is that sister.

    It is of a time when the branch carried no negative prompt, if it does not name one.
    """
    graph = request.get("prompt") if isinstance(request, dict) else None
    for node in graph.values() if isinstance(graph, dict) else ():
        if isinstance(node, dict) and node.get("class_type") == GUIDANCE.id and _has_more(node.get("inputs")):
            node["class_type"] = ADVANCED.id
            node["inputs"].setdefault(NEGATIVE_PROMPT.name, OFF)
    return request


def _has_more(inputs: Any) -> bool:
    return isinstance(inputs, dict) and bool((_ALL - _SIMPLE) & inputs.keys())
