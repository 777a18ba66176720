"""Write the English locale from the table of inputs; translations follow its keys by hand."""

from __future__ import annotations

import json

from ..nagpag import config
from . import host

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
    return json.dumps({config.NODE_ID: node}, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write it."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(english())
    return 0
