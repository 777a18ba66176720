"""What is compared: inputs of the guidance with several values each, written as text, and the grid that they span.

    axes = line { newline line }                    (blank lines don't count)
    line = name ":" value { ("," | ";") value }     (of blocks, whose specs have commas of their own: ";" alone)

    scale: 1, 3, 5
    blocks: auto; 9-18
    negative_prompt: off

The first line with several values is the columns, the second the rows; a line with one value holds for all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..blocks import check_spec
from ..inputs.comparison import AXES, MOST_PICTURES
from ..inputs.guidance import BLOCKS, INPUTS
from ..inputs.kinds import Flag, Number, plain, shortened
from ..inputs.presets import PRESET, PRESETS
from ..settings import Settings

OFF = "off"
MOST_AXES = 2
INPUT = {item.name: item for item in (*INPUTS, PRESET)}
Given = dict[str, Any]  # values of inputs, by name
Labels = tuple[str, ...]
Cells = tuple[tuple[Settings | None, ...], ...]


@dataclass(frozen=True)
class Axis:
    """An input and its values, each once, in the order in which they were written."""

    name: str
    values: tuple[Any, ...]

    def places(self) -> dict[str, Given]:
        """Each value under its label."""
        return {f"{self.name} {_said(value)}": {self.name: value} for value in self.values}


@dataclass(frozen=True)
class Grid:
    """Labelled columns and rows of settings, None where guidance is off; `same` says what holds for all of them.

    cells: [row][column]. A whole column or a whole row of them is off.
    """

    columns: Labels
    rows: Labels
    cells: Cells
    same: str

    @property
    def different(self) -> tuple[Settings | None, ...]:
        """All settings, each once, off first."""
        return tuple(dict.fromkeys((None, *itertools.chain(*self.cells))))


def read_axes(text: str) -> Grid:
    """The grid that a text spans. Raises ValueError that quotes what is wrong with it and says what is valid."""
    if problem := AXES.problem(text):
        raise _wrong(problem)
    axes = [_read_line(line.strip()) for line in text.splitlines() if line.strip()]
    _refuse_too_many(axes)
    several = [axis for axis in axes if len(axis.values) > 1]
    single = [axis for axis in axes if len(axis.values) == 1]
    columns, rows = ([axis.places() for axis in several] + [{"": {}}] * MOST_AXES)[:MOST_AXES]
    same = {axis.name: axis.values[0] for axis in single}
    cells = tuple(tuple(_settings({**same, **row, **column}) for column in columns.values()) for row in rows.values())
    said = ", ".join(label for axis in single for label in axis.places())
    return _with_off(tuple(columns) if several else ("guided",), tuple(rows), cells, said)


def _with_off(columns: Labels, rows: Labels, cells: Cells, same: str) -> Grid:
    """The grid with guidance off in it: a whole column or row that is off says so, or it gets a column of its own."""
    if not any(itertools.chain(*cells)):
        return Grid((OFF,), ("",), ((None,),), same)
    said = Grid(_off_said(columns, zip(*cells, strict=True)), _off_said(rows, cells), cells, same)
    if (said.columns, said.rows) != (columns, rows):
        return said
    return Grid((OFF, *columns), rows, tuple((None, *row) for row in cells), same)


def _off_said(labels: Labels, lines: Iterable[tuple[Settings | None, ...]]) -> Labels:
    return tuple(label if any(line) else f"{label} ({OFF})" for label, line in zip(labels, lines, strict=True))


def _settings(given: Given) -> Settings | None:
    """What a cell is drawn with. What is named wins over a preset, and what no one names is at its default."""
    named = {name: value for name, value in given.items() if name != PRESET.name}
    settings = Settings(**{**PRESETS[given.get(PRESET.name, PRESET.default)], **named})
    return None if settings.off else settings


# --- reading ---


def _read_line(line: str) -> Axis:
    name, colon, values = (part.strip() for part in line.partition(":"))
    if not colon:
        raise _wrong(f"{shortened(line)} has no colon; write an input, a colon and values, such as {AXES.default}")
    if name not in INPUT:
        raise _wrong(f"{shortened(name)} is no input to compare; valid are {', '.join(INPUT)}")
    between = ";" if name == BLOCKS.name else "[,;]"
    words = [word.strip() for word in re.split(between, values) if word.strip()]
    if not words:
        raise _wrong(f"{name} has no values; valid is {INPUT[name].rule()}, or several with commas")
    return Axis(name, tuple(dict.fromkeys(_read_value(name, word) for word in words)))


def _read_value(name: str, word: str) -> Any:
    """A word as the value that the input takes."""
    item = INPUT[name]
    value: Any = word
    if isinstance(item, Flag):
        value = {"true": True, "false": False}.get(word.lower(), word)
    elif isinstance(item, Number):
        with suppress(ValueError):  # it stays the word, which is then no number
            value = int(word) if item.whole else float(word)
    if problem := item.problem(value):
        raise _wrong(problem)
    if item is BLOCKS:
        _check_blocks(word)
    return value


def _check_blocks(spec: str) -> None:
    try:
        check_spec(spec)
    except ValueError as error:
        raise _wrong(f"{error} Several specs have semicolons between them, such as blocks: auto; 9-18") from None


def _refuse_too_many(axes: list[Axis]) -> None:
    names = [axis.name for axis in axes]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise _wrong(f"{', '.join(twice)}: named on several lines; write all values on one")
    lengths = {axis.name: len(axis.values) for axis in axes if len(axis.values) > 1}
    if len(lengths) > MOST_AXES:
        raise _wrong(f"{', '.join(lengths)} have several values each; at most {MOST_AXES} inputs may")
    number = 1
    for length in lengths.values():
        number *= length
    if number > MOST_PICTURES:
        product = " times ".join(f"{length} of {name}" for name, length in lengths.items())
        raise _wrong(f"{product} are {number} settings; at most {MOST_PICTURES} are compared")


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else plain(value)


def _wrong(what: str) -> ValueError:
    return ValueError(f"NAG-PAG Compare: axes: {what}")
