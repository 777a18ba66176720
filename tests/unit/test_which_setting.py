"""docs/which-setting.md names settings that exist, numbers that were measured, and costs that come out when counted."""

import math
import re
from fractions import Fraction

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.nagpag.comparison.axes import read_axes
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED, GUIDANCE, START_PERCENT
from nag_pag_flux.nagpag.inputs.kinds import Number

PAGE = (host.REPO / "docs/which-setting.md").read_text()
WORDS = re.findall(r"`(.+?)`", PAGE)
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
TABLE = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("words", sorted({words for words in WORDS if ":" not in words}))
def test_every_setting_is_one_that_the_node_takes(words):
    name, _, value = words.partition(" ")
    item = ADVANCED.input(name)
    if not value:
        return
    whole = isinstance(item, Number) and item.whole
    assert item.problem(int(value) if whole else float(value) if isinstance(item, Number) else value) is None


def test_what_the_simple_node_lacks_is_said_to_be_on_the_advanced_one():
    known = {item.name for item in GUIDANCE.inputs}
    for line in PAGE.split("\n\n"):
        for words in re.findall(r"`(.+?)`", line):
            name, _, value = words.partition(" ")
            if value and ":" not in words and name not in known:
                assert "(Advanced)" in line or str(ADVANCED.input(name).default) == value, words


@pytest.mark.parametrize("title", [title for title, text in SECTIONS.items() if "Compare" in text])
def test_the_lines_for_compare_are_read_by_it(title):
    """And hold the setting that the section begins with, so that it is among what is looked at."""
    lines = re.findall(r"`(.+?)`", SECTIONS[title].split("\nCompare")[1])
    grid = read_axes("\n".join(lines))
    assert len(grid.different) > 2
    first = {name: value for name, value in map(str.split, re.findall(r"`(\w+ [\d.]+)`", SECTIONS[title])[:2])}
    for line in lines:
        name, _, values = line.partition(": ")
        assert first.get(name, values.split(", ")[0]) in values.split(", "), line


def test_every_row_leads_to_a_section_and_has_its_first_setting():
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"): title for title in SECTIONS}
    rows = [row for row in TABLE[2:] if "](#" in row[0]]
    assert len(rows) == 7 and len(rows) == len(SECTIONS) - 1
    for first, settings, _, sure in rows:
        title = anchors[re.search(r"\(#(.+?)\)", first)[1]]
        for words in re.findall(r"`(.+?)`", settings):
            assert f"`{words}`" in SECTIONS[title], (title, words)
        assert ("guess" in sure) == (title not in ("A negative prompt", "Few steps")), title
    assert re.findall(r"`(.+?)`", TABLE[2][1]) == [f"scale {GUIDANCE.defaults['scale']:g}", "start_percent 0.45"]


def test_every_measured_number_stands_in_the_evidence():
    evidence = (host.REPO / "docs/evidence.md").read_text()
    measured = re.findall(r"[-+]\d\.\d+ ± \d\.\d+", PAGE)
    assert len(measured) > 10
    assert [number for number in measured if number not in evidence] == []
    for text in SECTIONS.values():
        assert re.search(r"\*\*(Measured|Not measured)\*\*", text) or "±" in text
    assert "**Nothing was measured on FLUX.1's own weights**" in PAGE.split("\n## ")[0]


def passes(steps, start=START_PERCENT.default, denoise=1.0, every=0):
    """Of a branch through the whole model, on a sampling that begins where denoise says."""
    every = every or max(1, math.floor(Fraction(3, 10) * steps))
    guided = sum(1 - denoise + denoise * step / steps >= start - 1e-9 for step in range(steps))
    return f"{1 + math.ceil(guided / every) / steps:.2f} passes"


def two_nodes(steps, every=0):
    """The first computes its branch once."""
    return f"{float(passes(steps, every=every).split()[0]) + 1 / steps + 1e-9:.2f} passes"


def test_the_costs_are_those_that_come_out_when_counted():
    counted = {
        "A negative prompt": (
            passes(20, start=0.2),
            "2.00 passes",
            *(two_nodes(20), two_nodes(20, every=20), two_nodes(8), two_nodes(4)),
        ),
        "A portrait with broken hands": (passes(20, start=0.2, every=3),),
        "Few steps": (passes(8), passes(4)),
        "Image to image, and upscaling": (passes(20, denoise=0.5), passes(20, start=0.6, denoise=0.5)),
        "Tiles": (passes(20, every=1), passes(20, start=0.7, every=1)),
    }
    assert {title: tuple(re.findall(r"\d\.\d\d passes", text)) for title, text in SECTIONS.items()} == {
        **{title: () for title in SECTIONS},
        **counted,
    }
