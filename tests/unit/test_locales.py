"""The translations name exactly the node's inputs, and English says what the table says."""

import json

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.lab.make import locales
from nag_pag_flux.nagpag import config

LANGUAGES = sorted(path.name for path in (host.REPO / "locales").iterdir())


def test_english_is_the_table():
    assert locales.PATH.read_text() == locales.english(), "python3 lab/host.py run -- lab/run.py make_locales"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language):
    node = json.loads((host.REPO / "locales" / language / "nodeDefs.json").read_text())[config.NODE_ID]
    assert node.keys() == {"display_name", "description", "inputs", "outputs"}
    assert list(node["inputs"]) == ["model", *(item.name for item in config.INPUTS), config.CURVE]
    assert all(text["name"] and len(text["tooltip"]) > 10 for text in node["inputs"].values())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("other", config.OTHER_NODES, ids=lambda other: other.id)
def test_every_language_has_the_other_nodes(language, other):
    node = json.loads((host.REPO / "locales" / language / "nodeDefs.json").read_text())[other.id]
    english = json.loads(locales.english())[other.id]
    assert list(node["inputs"]) == list(other.inputs) and list(node["outputs"]) == list(english["outputs"])
    texts = [node, *node["inputs"].values(), *node["outputs"].values()]
    assert all(len(text.get("tooltip", text.get("description"))) > 8 for text in texts)
    if language != "en":
        assert node["description"] != english["description"]
