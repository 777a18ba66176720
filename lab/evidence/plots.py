"""The plots of docs/evidence.md: gain against cost, the same prompts for all."""

from __future__ import annotations

import math
from typing import Any

from .. import host
from . import gains, runs
from .contenders import Contender, plain
from .domains import Domain
from .results import Results
from .runs import NOISES, REPORTING
from .subjects import Subject

FOLDER = host.REPO / "docs" / "evidence"


def draw(found: list[Results]) -> None:
    """In docs/evidence: gain against cost on each kind of model, and the same prompts for all."""
    FOLDER.mkdir(exist_ok=True)
    figures = {"pareto": _pareto(found)}
    for results in first_of_domain(found):
        contenders = [plain(), *results.contenders]
        figures[sheet_name(results.domain)] = _sheet(results.subjects[0], contenders)
    for name, figure in figures.items():
        figure.savefig(FOLDER / f"{name}.png", dpi=110 if name == "pareto" else 90)


def first_of_domain(found: list[Results]) -> list[Results]:
    """Of each kind of pictures the first group, whose first model shows them."""
    return list({results.domain: results for results in reversed(found)}.values())[::-1]


def sheet_name(domain: Domain) -> str:
    """What the file of a sheet of such pictures is called, without its ending."""
    return f"sheet_{domain.name.split()[-1]}"


def _pareto(found: list[Results]) -> Any:
    """A panel for each kind of model; what harms much lies below."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(found) / 2)
    figure = Figure(figsize=(11, 1 + 3.8 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharey=True, squeeze=False).flatten()
    for empty in panels[len(found) :]:
        empty.axis("off")
    panels = panels[: len(found)]
    order: dict[str, int] = {}
    for ax, results in zip(panels, found, strict=True):
        for contender in results.contenders:
            i = order.setdefault(contender.name, len(order))  # the same look in every panel
            gain = gains.gain(results.subjects, contender, REPORTING, results.count(contender))
            style = {"fmt": "os^D"[i % 4], "color": f"C{i % 10}", "capsize": 3, "label": contender.name}
            ax.errorbar(contender.passes, gain.value, 2 * gain.error, **style)
        ax.axhline(0, color="grey", linewidth=0.8)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_title(results.group.title, fontsize=9)
        ax.set_xlabel("model passes a step, at FLUX.1's proportions")
    figure.supylabel("change in objects right, models not chosen on (two errors)", fontsize=10)
    named = {name: line for ax in panels for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _sheet(subject: Subject, contenders: list[Contender], columns: int = 8) -> Any:
    from matplotlib.figure import Figure

    height = len(contenders) * 1.35  # inches, as is what the first title takes
    figure = Figure(figsize=(columns * 1.1, height))
    grid = figure.subplots(len(contenders), columns, squeeze=False)
    # By hand: a layout engine would make room for the long names beside the pictures.
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.005, top=1 - 0.25 / height, wspace=0.06, hspace=0.3)
    for line, contender in zip(grid, contenders, strict=True):
        (part, *_) = runs.parts([subject], [contender], REPORTING, runs.PART_SIZE)
        line[0].set_title(contender.name, loc="left", fontsize=8)
        for axes, picture in zip(line, runs.pictures_of(part)[::NOISES], strict=False):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            axes.axis("off")
    return figure
