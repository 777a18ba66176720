"""README, help page and translations say what the table says that the node is made from."""

import json
import re
import tomllib

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.lab.evidence import report
from nag_pag_flux.lab.evidence.contenders import DOUBLES
from nag_pag_flux.lab.make.locales import NODES
from nag_pag_flux.nagpag import blocks
from nag_pag_flux.nagpag.inputs import guidance, presets
from nag_pag_flux.nagpag.inputs.kinds import Choice, Flag, Number, Socket, plain
from nag_pag_flux.nagpag.settings import Settings

INPUTS = "docs/inputs.md"
HELP = "web/docs/NAGPAGGuidanceAdvanced.md"
SIMPLE_HELP = "web/docs/NAGPAGGuidance.md"


def row(item):
    if isinstance(item, Number):
        values = f"{item.minimum:g} to {item.maximum:g}"
    elif isinstance(item, Flag):
        values = "true, false"
    else:
        values = ", ".join(item.options) if isinstance(item, Choice) else "block spec"
    advanced = "" if item in guidance.GUIDANCE.inputs else " *(Advanced)*"
    return f"| {item.name}{advanced} | {item.default} | {values} | {item.does} |"


def test_every_input_has_its_row():
    text = (host.REPO / INPUTS).read_text()
    for item in guidance.INPUTS:
        assert row(item) in text, item.name
    rows = [row[0].removesuffix(" *(Advanced)*") for row in cells(INPUTS) if len(row) == 4]
    assert [name for name in rows if name not in ("input", "---")][: len(guidance.ADVANCED.inputs) - 1] == [
        item.name for item in guidance.ADVANCED.inputs if item is not guidance.MODEL
    ]
    for item in (guidance.CURVE, guidance.NEGATIVE_CONDITIONING):
        assert f"| {item.name} *(Advanced)* | none | {item.kind} | {item.does} |" in text


def cells(page):
    """The rows of a page's tables, as lists of cells."""
    return cells_of((host.REPO / page).read_text())


def cells_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def shown(item):
    """An input's default, as people are told."""
    if isinstance(item, Flag):
        return "on" if item.default else "off"
    if isinstance(item, Number):
        return plain(item.default)
    return item.default or ("none" if isinstance(item, Socket) else "empty")


def told(page):
    """The inputs that a help page lists: name → what stands behind it in brackets."""
    return dict(re.findall(r"^- \*\*(\w+)\*\*(?: \((.*?)\))?: ", (host.REPO / page).read_text(), re.MULTILINE))


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.id)
def test_the_help_page_has_every_input_in_its_order_with_its_default(node):
    said = told(f"web/docs/{node.id}.md")
    inputs = [item for item in node.inputs if item is not guidance.MODEL and item.name in said]
    assert [name for name in said if name in [item.name for item in inputs]] == [item.name for item in inputs]
    for item in node.widgets:
        default, _, rule = said[item.name].partition("; ")
        assert default == shown(item), item.name
        assert not rule[:1].isdigit() or f"number from {rule.removesuffix('; advanced')}" in item.rule(), item.name
    if node in (guidance.GUIDANCE, guidance.ADVANCED):
        assert len(inputs) == len(node.inputs) - 1


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.id)
def test_help_is_not_cut_off_at_the_panels_width(node):
    """It is 272 pixels wide: tables and drawings are cut off there, lists and paragraphs are not."""
    text = (host.REPO / f"web/docs/{node.id}.md").read_text()
    assert not re.search(r"^\s*(\||```)", text, re.MULTILINE)
    assert f"# {node.title}\n" in text


STRENGTH = (guidance.SCALE, guidance.TAU, guidance.ALPHA, guidance.PERTURBATION)
WHEN = (guidance.START_PERCENT, guidance.END_PERCENT, guidance.RENEW_EVERY)
OURS = (guidance.REACH, *WHEN, guidance.BLOCKS, *STRENGTH)


def documented():
    """The settings that the page of inputs and the help name, name → values in the order of OURS; both say the same."""
    table = {row[0]: row[1:10] for row in cells(INPUTS) if len(row) == 11 and row[0] not in ("", "---")}
    assert [*table] == [name for name in presets.PRESETS if name not in ("gentle", "strong")]
    for name, values in table.items():
        words = ", ".join(f"{item.name} {value}" for item, value in zip(OURS, values, strict=True))
        said = f"- **{name}**: {words}. ".replace(f"blocks {values[4]}, scale", f"blocks `{values[4]}`, scale")
        assert said in (host.REPO / HELP).read_text()
    return table


def test_the_documented_settings_are_those_that_run():
    for name, said in documented().items():
        values = {**guidance.ADVANCED.defaults, **presets.PRESETS[name]}
        assert said == [str(values[item.name]) for item in OURS]


def test_what_is_published_is_what_the_evidence_measured():
    published = {**report.AS_PUBLISHED, "blocks": ", ".join(map(str, blocks.PUBLISHED))}
    assert Settings(**published) == Settings(**presets.PRESETS["as published"])
    assert list(blocks.published_blocks(DOUBLES)) == [
        block.index for block in blocks.parse_blocks(report.AS_PUBLISHED["blocks"], DOUBLES)
    ]


def words_of(values):
    """What a preset sets, as people are told."""
    return ", ".join(
        f"{name} {plain(value) if isinstance(value, (int, float)) else value}" for name, value in values.items()
    )


def test_what_each_preset_sets_is_said():
    compare = (host.REPO / "web/docs/NAGPAGCompare.md").read_text()
    for name, values in presets.PRESETS.items():
        assert f"- `{name}`: {words_of(values) or 'nothing beside the defaults'}." in compare
    gentle, strong = (words_of(presets.PRESETS[name]) for name in ("gentle", "strong"))
    for page in (INPUTS, HELP):
        assert f"**gentle** is the default with {gentle}, **strong** with {strong}: " in (host.REPO / page).read_text()


def span(depth):
    """`auto` on that many double blocks, as a range."""
    return f"{blocks.auto_blocks(depth)[0]}-{blocks.auto_blocks(depth)[-1]}"


def test_what_auto_means_is_said_everywhere():
    for page in (INPUTS, HELP, SIMPLE_HELP, "CHANGELOG.md"):
        text = (host.REPO / page).read_text()
        assert f"{span(19)} of " in text and f"{span(8)} of 8" in text, page
    for path in (host.REPO / "locales").glob("*/nodeDefs.json"):
        tooltip = json.loads(path.read_text())[guidance.ADVANCED.id]["inputs"]["blocks"]["tooltip"]
        assert span(19) in tooltip and "8, 12, 16" not in tooltip, path


def in_hundred(change):
    """A change in a share, as so many of a hundred: "+0.080 ± 0.014" → "+8.0 ± 1.4"."""
    value, error = change.split(" ± ")
    return f"{100 * float(value):+.1f} ± {100 * float(error):.1f}"


def test_the_measured_table_is_that_of_the_evidence():
    """At most six rows: what a step costs, and what either judge says of plain and of distilled models."""
    text = (host.REPO / "docs/evidence.md").read_text()
    parts = (text.split(f"\n## {group.title}\n")[1].split("\n## ")[0] for group in report.GROUPS[:2])
    measured = [{row[0]: row for row in cells_of(part) if len(row) in (12, 13)} for part in parts]
    shown = [row for row in cells("README.md") if "±" in row[-1]]
    assert 3 < len(shown) <= 6
    for name, cost, *gains in shown:
        assert cost == f"+{100 * float(measured[0][name][1]) - 100:.0f} %", name
        assert gains == [", ".join(map(in_hundred, models[name][3:5])) for models in measured], name


def test_the_readme_is_short_and_begins_with_what_the_registry_shows():
    text = (host.REPO / "README.md").read_text()
    project = tomllib.loads((host.REPO / "pyproject.toml").read_text())["project"]
    assert text.startswith(f"# NAG-PAG for FLUX\n\n{project['description']}\n\n![")
    assert re.findall("^## (.*)", text, re.MULTILINE)[:2] == ["Install", "Three steps"]
    assert len(text.split()) <= 1300
    assert len(re.findall(r"^\d\. ", text.split("## Three steps")[1].split("\n## ")[0], re.MULTILINE)) == 3


def test_nobody_is_promised_what_only_the_published_form_keeps():
    """Without a second pass it goes with reach attention alone; by default some steps take one."""
    pages = ["README.md", "pyproject.toml", *sorted(str(page) for page in (host.REPO / "web/docs").glob("*.md"))]
    for page in pages:
        text = " ".join((host.REPO / page).read_text().split())
        for place in re.finditer(r"no second pass", text):
            assert "`attention`" in text[max(0, place.start() - 200) : place.start()], page


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/api.md",
    "docs/beside.md",
    "docs/calibration.md",
    "docs/cost.md",
    "docs/cost_families.md",
    "docs/evidence.md",
    "docs/inputs.md",
    "docs/which-setting.md",
    "docs/evidence/one_head.md",
    "docs/families.md",
    "docs/sweep.md",
]


@pytest.mark.parametrize("page", [*PAGES, "lab/trained/MODEL_CARD.md"])
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(
        r"(?<![\w/.])(?:lab|nagpag|nodes|web|tests|workflows|docs)/[\w./-]*\.\w+", (host.REPO / page).read_text()
    )
    # Only who has a GPU makes that one.
    assert [name for name in named if not (host.REPO / name).exists()] in ([], ["docs/cost_gpu.md"])
