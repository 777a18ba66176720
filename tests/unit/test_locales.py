"""The translations name exactly what the nodes have, and English says what the table says."""

import json

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.lab.make import locales

LANGUAGES = sorted(path.name for path in (host.REPO / "locales").iterdir())


def translated(language):
    return json.loads((host.REPO / "locales" / language / "nodeDefs.json").read_text())


def test_english_is_the_table():
    assert locales.PATH.read_text() == locales.english(), "python3 lab/host.py run -- lab/run.py make_locales"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", locales.NODES, ids=lambda node: node.id)
def test_every_language_has_every_text(language, node):
    texts = translated(language)[node.id]
    english = json.loads(locales.english())[node.id]
    assert texts.keys() == {"display_name", "description", "inputs", "outputs"}
    assert list(texts["inputs"]) == [item.name for item in node.inputs]
    assert list(texts["outputs"]) == list(english["outputs"])
    assert all(text["name"] for text in texts["inputs"].values())
    for text in (texts, *texts["inputs"].values(), *texts["outputs"].values()):
        assert len(text.get("tooltip", text.get("description"))) > 8
    if language != "en":
        assert texts["description"] != english["description"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_two_guidance_nodes_say_the_same_of_the_same(language):
    simple, advanced = (translated(language)[node.id] for node in locales.NODES[:2])
    assert simple["outputs"] == advanced["outputs"]
    assert all(advanced["inputs"][name] == text for name, text in simple["inputs"].items())
    assert simple["display_name"] != advanced["display_name"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_of_a_node_that_is_gone(language):
    assert list(translated(language)) == [node.id for node in locales.NODES]
