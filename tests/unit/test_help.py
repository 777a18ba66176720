"""The help in other languages: there for every node, with the names that it has there, and the English numbers."""

import json
import re

import pytest
from nag_pag_flux.lab import graphs, host
from nag_pag_flux.lab.make.locales import NODES
from nag_pag_flux.nagpag.inputs import guidance

HELP = host.REPO / "web" / "docs"
LANGUAGES = sorted({path.name for path in (host.REPO / "locales").iterdir()} - {"en"})
RIGHT_TO_LEFT = ("ar", "fa", "he")
ISOLATES = "\u2066\u2069"
WORDS_OF_COMBOS = {word for node in NODES for item in node.widgets for word in getattr(item, "options", ())}
WORDS = ("none", "empty", "off")  # of a default, which are translated: the others are typed
of_each_page = pytest.mark.parametrize(
    "node, language",
    [(node, language) for node in NODES for language in LANGUAGES],
    ids=lambda item: item if isinstance(item, str) else item.id,
)


def english(node):
    return (HELP / f"{node.id}.md").read_text()


def page(node, language):
    return (HELP / node.id / f"{language}.md").read_text()


def bare(text):
    """Without the marks that keep what runs from the left together, within what runs from the right."""
    return text.translate(dict.fromkeys(map(ord, ISOLATES)))


def texts_of(node, language):
    return json.loads((host.REPO / "locales" / language / "nodeDefs.json").read_text())[node.id]


def strings(texts):
    """Every string in a part of a locale."""
    return [texts] if isinstance(texts, str) else [text for part in texts.values() for text in strings(part)]


def numbers(text):
    """`8:1.5` has 8 and 1.5, and `24,576` is one number."""
    return set(re.findall(r"\d+(?:,\d{3})+|\d+(?:\.\d+)?", text))


def listed(node):
    """The inputs that the English help lists, with the default and the range behind each."""
    found = re.findall(r"^- \*\*(\w+)\*\*(?: \((.*?)\))?: ", english(node), re.MULTILINE)
    items = {item.name: item for item in node.inputs}
    return [(items[name], told) for name, told in found if name in items]


def brackets(told):
    """What has to stand behind a name: the default, unless it is a word, and the range."""
    default, _, rule = told.partition("; ")
    bounds = re.match(r"([\d.]+) to ([\d.]+)", rule)
    return default, f"; {bounds[1]}–{bounds[2]}" if bounds else ""


def test_every_page_is_there_and_no_other():
    pages = {path.relative_to(HELP).as_posix() for path in HELP.rglob("*.md")}
    assert pages == {f"{node.id}.md" for node in NODES} | {
        f"{node.id}/{language}.md" for node in NODES for language in LANGUAGES
    }


@of_each_page
def test_the_title_is_the_nodes_and_the_page_runs_as_its_language_does(node, language):
    text, title = page(node, language), f"# {texts_of(node, language)['display_name']}\n"
    if language in RIGHT_TO_LEFT:  # the frontend's panel runs from the left in every language
        assert text.startswith(f'<div dir="rtl">\n\n{title}') and text.endswith("\n\n</div>\n")
    else:
        assert text.startswith(title) and "<div" not in text
    assert not re.search(r"^\s*(\||```)", text, re.MULTILINE)  # cut off at the panel's width
    assert not re.search(r"[)）:：]\*+\w", text)  # which Markdown does not take for the end of emphasis
    assert "{" not in text


@pytest.mark.parametrize("language", RIGHT_TO_LEFT)
@pytest.mark.parametrize("node", NODES, ids=lambda node: node.id)
def test_what_runs_from_the_left_is_kept_together(node, language):
    """Else `8-12` is shown as 12-8 behind an Arabic letter. The marks stand around code, so that none is copied."""
    for text in (page(node, language), *strings(texts_of(node, language))):
        outside = re.sub("\u2066[^\u2066\u2069]*\u2069", "", text)
        assert not re.search(r"[`‖]|\d[-–:]\d|\d ?[×−] ?\w|[\u2066\u2069]", outside), outside


@of_each_page
def test_the_inputs_are_called_as_on_the_node_and_do_what_it_says(node, language):
    texts = texts_of(node, language)["inputs"]
    lines = [bare(line) for line in page(node, language).splitlines() if line.startswith("- **")]
    for (item, told), line in zip(listed(node), lines, strict=False):
        name, tooltip = texts[item.name]["name"], bare(texts[item.name]["tooltip"])
        default, rule = brackets(told)
        behind = r"\w+" if default in WORDS and default not in getattr(item, "options", ()) else re.escape(default)
        behind = rf" \({behind}{re.escape(rule)}\)" if told else ""
        assert re.fullmatch(rf"- \*\*{re.escape(name)}\*\*{behind}: {re.escape(tooltip)}", line), item.name
    assert len(lines) >= len(listed(node))


@of_each_page
def test_the_numbers_are_those_of_the_english(node, language):
    """All of them but those of what it says on inputs in other words, and none that neither it nor the node has."""
    said = numbers(page(node, language))
    running = re.sub(r"^(- \*\*\w+\*\* \(.*?\): ).*", r"\1", english(node), flags=re.MULTILINE)
    assert numbers(running) - said == set()
    assert said - numbers(english(node)) - numbers(" ".join(strings(texts_of(node, language)))) == set()


@of_each_page
def test_what_is_typed_is_as_in_the_english(node, language):
    """Settings, block specs, words of a combo, files."""
    said, typed = ({*re.findall(r"`(.+?)`", text)} for text in (page(node, language), english(node)))
    assert said - typed - WORDS_OF_COMBOS == set()
    # The list says them without quotes, and names of inputs are translated.
    named = {item.name for one in NODES for item in one.inputs}
    assert {word for word in typed - said if word not in named and word not in page(node, language)} == set()


@of_each_page
def test_other_nodes_are_called_as_they_are_there(node, language):
    text = page(node, language)
    running = re.sub(r"^- \*\*\w+\*\*.*", "", english(node), flags=re.MULTILINE)  # without the list of inputs
    for other in NODES:
        if f"*{other.title}*" in running:
            assert texts_of(other, language)["display_name"] in text, other.id


@of_each_page
def test_templates_are_called_by_their_titles(node, language):
    titles = {title for title in graphs.TITLES.values() if f"*{title}*" in english(node)}
    assert {title for title in titles if f"*{title}*" not in page(node, language)} == set()
    assert "flux_dev" not in page(node, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_newcomer_is_told_what_to_set(language):
    for node in (guidance.GUIDANCE, guidance.ADVANCED):
        text = page(node, language)
        assert "1.0" in text and re.search(r"KSampler\D+8(?!\d)|8\D+KSampler", text)
    simple = page(guidance.GUIDANCE, language)
    assert f"`{guidance.SAMPLERS}`" in simple and graphs.TITLES[graphs.WITH_NEGATIVE] in simple
    assert "docs/which-setting.md" in simple


# --- the tests above would see it ---


def test_a_changed_number_is_seen():
    assert numbers("8:1.5, 7-18 of 19; 24,576") == {"8", "1.5", "7", "18", "19", "24,576"}
    assert brackets("128; 2 to 1024") == ("128", "; 2–1024") and brackets("output; as there") == ("output", "")
