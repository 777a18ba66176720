"""Write the English locale from the table of inputs; translations follow its keys by hand."""

from __future__ import annotations

import json

from ...nagpag.inputs import calibration, comparison, diagnostics, guidance, presets
from ...nagpag.inputs.kinds import Input, Node
from .. import host

PATH = host.REPO / "locales" / "en" / "nodeDefs.json"
OTHER_WORDS = PATH.with_name("main.json")  # of what is no node's input
NODES = (
    *(guidance.GUIDANCE, guidance.ADVANCED, comparison.COMPARE),
    *(diagnostics.INSPECT, diagnostics.RECORD, diagnostics.PLOT, calibration.CALIBRATE),
)


def english() -> str:
    """The text of locales/en/nodeDefs.json."""
    return _json({node.id: _texts(node) for node in NODES})


def other_english() -> str:
    """The text of locales/en/main.json: web/presets.js shows it."""
    return _json({"nagPag": {"preset": {**_text(presets.PRESET), "own": presets.OWN}}})


def _json(texts: dict) -> str:
    return json.dumps(texts, indent=2, ensure_ascii=False) + "\n"


def _texts(node: Node) -> dict:
    """A node's entry; the host counts outputs instead of naming them."""
    return {
        "display_name": node.title,
        "description": node.description,
        "inputs": {item.name: _text(item) for item in node.inputs},
        "outputs": {str(i): _text(item) for i, item in enumerate(node.outputs)},
    }


def _text(item: Input) -> dict[str, str]:
    return {"name": item.name, "tooltip": item.does}


def main(arguments: list[str]) -> int:
    """Write it."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(english())
    OTHER_WORDS.write_text(other_english())
    return 0
