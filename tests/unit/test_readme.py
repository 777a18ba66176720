"""README, help page and translations say what the table says that the node is made from."""

import json
import re

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.lab.evidence import report
from nag_pag_flux.lab.evidence.contenders import DOUBLES
from nag_pag_flux.nagpag import blocks
from nag_pag_flux.nagpag.inputs import guidance
from nag_pag_flux.nagpag.inputs.kinds import Choice, Flag, Number

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
    text = (host.REPO / "README.md").read_text()
    for item in guidance.INPUTS:
        assert row(item) in text, item.name
    rows = [row[0].removesuffix(" *(Advanced)*") for row in cells("README.md") if len(row) == 4]
    assert [name for name in rows if name not in ("input", "---")][: len(guidance.ADVANCED.inputs) - 1] == [
        item.name for item in guidance.ADVANCED.inputs if item is not guidance.MODEL
    ]
    for item in (guidance.CURVE, guidance.NEGATIVE_CONDITIONING):
        assert f"| {item.name} *(Advanced)* | none | {item.kind} | {item.does} |" in text


def cells(page):
    """The rows of a page's tables, as lists of cells."""
    lines = (host.REPO / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@pytest.mark.parametrize("page, node", [(SIMPLE_HELP, guidance.GUIDANCE), (HELP, guidance.ADVANCED)])
def test_the_help_page_has_every_input_in_its_order_and_every_numbers_default(page, node):
    said = {}
    for names, defaults, *_ in (row for row in cells(page) if len(row) == 3):
        if names != "input" and not names.startswith("-"):
            said |= dict(zip(names.split(", "), defaults.split(", "), strict=True))
    assert list(said) == [item.name for item in node.inputs if item is not guidance.MODEL]
    numbers = {item.name: item.default for item in node.widgets if isinstance(item, Number)}
    assert {name: float(said[name]) for name in numbers} == numbers


@pytest.mark.parametrize("page", ["README.md", HELP])
def test_the_documented_settings_are_those_that_run(page):
    settings = {row[0]: row[1:8] for row in cells(page) if len(row) == 9}
    strength = (guidance.SCALE, guidance.TAU, guidance.ALPHA, guidance.PERTURBATION)
    ours = (guidance.REACH, guidance.RENEW_EVERY, guidance.BLOCKS, *strength)
    assert settings["default"] == [str(item.default) for item in ours]
    published = {**report.AS_PUBLISHED, "blocks": ", ".join(map(str, blocks.PUBLISHED))}
    assert settings["as published"] == [str(published[item.name]) for item in ours]
    assert list(blocks.published_blocks(DOUBLES)) == [
        block.index for block in blocks.parse_blocks(report.AS_PUBLISHED["blocks"], DOUBLES)
    ]


def span(depth):
    """`auto` on that many double blocks, as a range."""
    return f"{blocks.auto_blocks(depth)[0]}-{blocks.auto_blocks(depth)[-1]}"


def test_what_auto_means_is_said_everywhere():
    for page in ("README.md", HELP, SIMPLE_HELP, "CHANGELOG.md"):
        text = (host.REPO / page).read_text()
        assert f"{span(19)} of " in text and f"{span(8)} of 8" in text, page
    for path in (host.REPO / "locales").glob("*/nodeDefs.json"):
        tooltip = json.loads(path.read_text())[guidance.ADVANCED.id]["inputs"]["blocks"]["tooltip"]
        assert span(19) in tooltip and "8, 12, 16" not in tooltip, path


def test_the_measured_table_is_that_of_the_evidence():
    """Rows of the README are the first columns of rows that `make evidence` writes."""
    pages = ("docs/evidence.md", "docs/evidence/one_head.md")
    measured = [row for page in pages for row in cells(page) if len(row) in (12, 13)]
    shown = [row for row in cells("README.md") if len(row) == 8 and "±" in row[3]]
    assert len(shown) > 8 and [row for row in shown if row not in [one[:8] for one in measured]] == []


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/api.md",
    "docs/beside.md",
    "docs/calibration.md",
    "docs/cost.md",
    "docs/evidence.md",
    "docs/evidence/one_head.md",
    "docs/sweep.md",
]


@pytest.mark.parametrize("page", [*PAGES, "lab/trained/MODEL_CARD.md"])
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(
        r"(?<![\w/.])(?:lab|nagpag|nodes|web|tests|workflows|docs)/[\w./-]*\.\w+", (host.REPO / page).read_text()
    )
    # Only who has a GPU makes that one.
    assert [name for name in named if not (host.REPO / name).exists()] in ([], ["docs/cost_gpu.md"])
