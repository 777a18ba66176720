"""The translations name exactly the node's inputs, and English says what the table says."""

import json

import pytest
from nag_pag_flux.lab import host, make_locales
from nag_pag_flux.nagpag import config

LANGUAGES = sorted(path.name for path in (host.REPO / "locales").iterdir())


def test_english_is_the_table():
    assert make_locales.PATH.read_text() == make_locales.english(), "python3 lab/host.py run -- lab/run.py make_locales"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language):
    node = json.loads((host.REPO / "locales" / language / "nodeDefs.json").read_text())[config.NODE_ID]
    assert node.keys() == {"display_name", "description", "inputs", "outputs"}
    assert list(node["inputs"]) == ["model", *(item.name for item in config.INPUTS), config.CURVE]
    assert all(text["name"] and len(text["tooltip"]) > 10 for text in node["inputs"].values())
