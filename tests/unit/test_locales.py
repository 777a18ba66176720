"""The translations name exactly what the nodes have, and English says what the table says."""

import json
import re

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.lab.make import locales
from nag_pag_flux.nagpag.inputs import guidance
from nag_pag_flux.nagpag.inputs.presets import PRESETS

LANGUAGES = sorted(path.name for path in (host.REPO / "locales").iterdir())
# Those of the frontend's setting Comfy.Locale; tests/browser holds the list to it.
FRONTENDS = ("en", "zh", "zh-TW", "ru", "ja", "ko", "fr", "es", "ar", "tr", "pt-BR", "fa", "he")


def translated(language, file="nodeDefs.json"):
    return json.loads((host.REPO / "locales" / language / file).read_text())


def own_words(language):
    return translated(language, "main.json")["nagPag"]


def test_english_is_the_table():
    made = {locales.PATH: locales.english(), locales.OTHER_WORDS: locales.other_english()}
    for path, text in made.items():
        assert path.read_text() == text, "python3 lab/host.py run -- lab/run.py make_locales"


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


def test_every_language_of_the_frontend_is_here():
    assert set(FRONTENDS) <= set(LANGUAGES)


def test_no_two_languages_say_the_same():
    """A file that was copied and not translated would."""
    said = [json.dumps(translated(language), sort_keys=True) for language in LANGUAGES]
    tooltips = [{tooltip for _, tooltip in tooltips_of(translated(language))} for language in LANGUAGES]
    assert len(set(said)) == len(said)
    for i, one in enumerate(tooltips):
        assert all(not one & other for other in tooltips[i + 1 :]), LANGUAGES[i]


def test_the_presets_words_are_there_in_every_language():
    """A preset's own name is typed into NAG-PAG Compare's axes, and is the same in all."""
    words = [own_words(language)["preset"] for language in LANGUAGES]
    assert all(one.keys() == {"name", "tooltip", "own"} for one in words)
    for kind in ("tooltip", "own"):
        assert len({one[kind] for one in words}) == len(LANGUAGES)
    assert all(
        one["name"] and one["own"] not in PRESETS and not re.search(r"[{}@|]", str([*one.values()])) for one in words
    )


# A word that means itself: French for attention.
SAME = {("fr", "attention")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_but_english_says_what_the_words_of_choices_mean(language):
    if language == "en":
        assert "choices" not in own_words(language)
        return
    said = own_words(language)["choices"]
    assert {name: tuple(meanings) for name, meanings in said.items()} == {
        name: item.options for name, item in locales.CHOICES.items()
    }
    for meanings in said.values():
        assert {(language, word) for word, meaning in meanings.items() if word == meaning} <= SAME
        assert len(set(meanings.values())) == len(meanings)
        assert not [meaning for meaning in meanings.values() if not meaning or re.search(r"[{}@|()（）]", meaning)]


def test_the_combos_of_the_nodes_are_all_told():
    assert {"reach", "negative_prompt", "negative", "schedule", "preset"} == locales.CHOICES.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_help_quotes_what_stands_on_an_input_that_does_nothing(language):
    """web/idle_inputs.js shows it in brackets behind the input's name."""
    pages = host.REPO / "web" / "docs"
    page = pages / (f"{guidance.ADVANCED.id}.md" if language == "en" else f"{guidance.ADVANCED.id}/{language}.md")
    assert f"*({own_words(language)['idle']})*" in page.read_text()
    assert [one for one in LANGUAGES if own_words(one)["idle"] == own_words(language)["idle"]] == [language]


def tooltips_of(texts):
    """Every description and tooltip of a locale with its place."""
    for node, entry in texts.items():
        yield node, entry["description"]
        for kind in ("inputs", "outputs"):
            yield from ((f"{node} {kind} {name}", text["tooltip"]) for name, text in entry[kind].items())


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_typed_is_not_translated(language):
    """Words of a combo, block specs, ranges and papers stand as they are; none is there that English has not."""
    texts, english = dict(tooltips_of(translated(language))), dict(tooltips_of(translated("en")))
    for place, text in texts.items():
        typed = r"arXiv \d+\.\d+|\d+[-:.]\d+|[a-z]+_[a-z_]+(?:\.[a-z\d]+)*"
        assert set(re.findall(typed, text)) <= set(re.findall(typed, english[place])), place
        # They mean something to the frontend's translation.
        assert not re.search(r"[{}@|]", text), place
    for item in (guidance.REACH, guidance.NEGATIVE_PROMPT, guidance.NEGATIVE):
        said = texts[f"{guidance.ADVANCED.id} inputs {item.name}"]
        assert [option for option in item.options if option not in said] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_two_guidance_nodes_say_the_same_of_the_same(language):
    simple, advanced = (translated(language)[node.id] for node in locales.NODES[:2])
    assert simple["outputs"] == advanced["outputs"]
    assert all(advanced["inputs"][name] == text for name, text in simple["inputs"].items())
    assert simple["display_name"] != advanced["display_name"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_of_a_node_that_is_gone(language):
    assert list(translated(language)) == [node.id for node in locales.NODES]
