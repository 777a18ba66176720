"""Write the English locale from the table of inputs; translations follow its keys by hand."""

from __future__ import annotations

import json

from ...nagpag.inputs import calibration, comparison, diagnostics, guidance, presets
from ...nagpag.inputs.kinds import Choice, Input, Node
from .. import host

PATH = host.REPO / "locales" / "en" / "nodeDefs.json"
OTHER_WORDS = PATH.with_name("main.json")  # of what is no node's input
IDLE = "no effect"  # behind the name of an input that does nothing beside the other settings
NODES = (
    *(guidance.GUIDANCE, guidance.ADVANCED, comparison.COMPARE),
    *(diagnostics.INSPECT, diagnostics.RECORD, diagnostics.PLOT, calibration.CALIBRATE),
)
# The words of each are typed and saved as they are; other languages show what they mean behind them (web/choices.js).
CHOICES: dict[str, Choice] = {
    item.name: item
    for item in (*(one for node in NODES for one in node.widgets), presets.PRESET)
    if isinstance(item, Choice)
}


def english() -> str:
    """The text of locales/en/nodeDefs.json."""
    return _json({node.id: _texts(node) for node in NODES})


def other_english() -> str:
    """The text of locales/en/main.json, which web/words.js reads; the words of choices mean what they say here."""
    return _json({"nagPag": {"preset": {**_text(presets.PRESET), "own": presets.OWN}, "idle": IDLE}})


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
