"""Write the English locale from the table of inputs; translations follow its keys by hand."""

from __future__ import annotations

import json

from ...nagpag import config
from .. import host

PATH = host.REPO / "locales" / "en" / "nodeDefs.json"


def english() -> str:
    """The text of locales/en/nodeDefs.json."""
    inputs = {"model": {"name": "model", "tooltip": config.MODEL_TOOLTIP}}
    inputs |= {item.name: {"name": item.name, "tooltip": item.tooltip} for item in config.INPUTS}
    inputs[config.CURVE] = {"name": config.CURVE, "tooltip": config.CURVE_TOOLTIP}
    node = {
        "display_name": config.DISPLAY_NAME,
        "description": config.DESCRIPTION,
        "inputs": inputs,
        "outputs": {"0": {"name": "MODEL", "tooltip": config.OUTPUT_TOOLTIP}},
    }
    nodes = {config.NODE_ID: node, **{other.id: _texts(other) for other in config.OTHER_NODES}}
    return json.dumps(nodes, indent=2, ensure_ascii=False) + "\n"


def _texts(node: config.NodeTexts) -> dict:
    """A node's entry; the host counts outputs instead of naming them."""
    inputs = {name: {"name": name, "tooltip": tooltip} for name, tooltip in node.inputs.items()}
    named = ({"name": name, "tooltip": tooltip} for name, tooltip in node.outputs.items())
    outputs = {str(i): output for i, output in enumerate(named)}
    return {
        "display_name": node.display_name,
        "description": node.description,
        "inputs": inputs,
        "outputs": outputs,
    }


def main(arguments: list[str]) -> int:
    """Write it."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(english())
    return 0
