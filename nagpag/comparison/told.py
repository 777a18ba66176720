"""What a comparison shows, in words and as JSON: which picture stands where, of which seed and settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from ..inputs.guidance import INPUTS
from ..settings import Settings
from .axes import Grid
from .drawing import Sampling, Shot

Row = tuple[str, list[int]]


def rows_of(grid: Grid, wanted: Sequence[Shot], batch: int) -> list[Row]:
    """The sheet's rows: a label and the places of its pictures among all. Seed by seed, then picture by picture."""
    place = {shot: i * batch for i, shot in enumerate(wanted)}
    return [
        (_label(seed, number, batch, label), [place[Shot(cell, seed)] + number for cell in cells])
        for seed in dict.fromkeys(shot.seed for shot in wanted)
        for number in range(batch)
        for label, cells in zip(grid.rows, grid.cells, strict=True)
    ]


def _label(seed: int, number: int, batch: int, label: str) -> str:
    return ", ".join(filter(None, (f"seed {seed}", f"picture {number + 1}" if batch > 1 else "", label)))


def title(grid: Grid, sampling: Sampling) -> str:
    """What all pictures have in common."""
    how = f"{sampling.sampler_name}, {sampling.scheduler}, {sampling.steps} steps, cfg {sampling.cfg:g}"
    part = "" if sampling.denoise == 1 else f"denoise {sampling.denoise:g}"
    return ", ".join(filter(None, ("NAG-PAG Compare: " + how, part, grid.same)))


def as_json(grid: Grid, wanted: Sequence[Shot], rows: Sequence[Row], sampling: Sampling, batch: int) -> str:
    """Of each picture of the batch what it is, and where the sheet has it; settings are null where guidance is off."""
    pictures = [
        {"picture": i * batch + number, "seed": shot.seed, "of_batch": number, "settings": _named(shot.settings)}
        for i, shot in enumerate(wanted)
        for number in range(batch)
    ]
    sheet = {"columns": grid.columns, "rows": [{"label": label, "pictures": places} for label, places in rows]}
    told = {"same": grid.same, "sampling": dataclasses.asdict(sampling), "pictures": pictures, "sheet": sheet}
    return json.dumps(told, indent=2)


def _named(settings: Settings | None) -> dict | None:
    """The inputs of NAG-PAG Guidance (Advanced) by name."""
    return None if settings is None else {item.name: getattr(settings, item.name) for item in INPUTS}
