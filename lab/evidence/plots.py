"""The plots of docs/evidence.md: gain against cost, the same prompts for all, and a plot for some of the rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...nagpag.measure import Measured
from .. import host
from ..in_host import enter_host
from . import gains, rounds, runs, sampling
from .contenders import DOUBLES, Contender, plain
from .results import Results
from .rounds import COUNT, ROUNDS
from .runs import CHOOSING, NOISES, REPORTING, Subject

FOLDER = host.REPO / "docs" / "evidence"


def draw(results: Results) -> None:
    """In docs/evidence: gain against cost, the same prompts for all; on the choosing set gain by block, strength, reach
    and part of the sampling."""
    FOLDER.mkdir(exist_ok=True)
    figures = {
        "pareto": _pareto(results),
        "sheet": _sheet(results.held_out[0], [plain(), *results.contenders]),
        **{name: draw_round() for name, (_, draw_round) in ROUND_PLOTS.items() if ROUNDS[name].made()},
    }
    for name, figure in figures.items():
        figure.savefig(FOLDER / f"{name}.png", dpi=90 if name == "sheet" else 110)


def _pareto(results: Results) -> Any:
    """Above near zero, below all of it: what harms lies far down."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    near, whole = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for i, contender in enumerate(results.contenders):
        gain = gains.gain(results.held_out, contender, REPORTING, results.count(contender))
        style = {"fmt": "os^D"[i % 4], "color": f"C{i % 10}", "capsize": 3}
        for ax in (near, whole):
            ax.errorbar(contender.passes, gain.value, 2 * gain.error, **style, label=contender.name)
    for ax in (near, whole):
        ax.axhline(0, color="grey", linewidth=0.8)
    near.set_ylim(-0.06, None)
    whole.set_xlabel("model passes a step, at FLUX.1's proportions")
    figure.supylabel("change in objects right, models not chosen on (two errors)", fontsize=10)
    figure.legend(*near.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _by_block() -> Any:
    figure, axes = _figure("double block", 2)
    contenders, subjects = rounds.blocks_round(), ROUNDS["blocks"].subjects
    halves = (contenders[:DOUBLES], contenders[DOUBLES:])
    for ax, half, title in zip(axes, halves, ("attention", "output, renewed every 4th step"), strict=True):
        for subject in subjects:
            _line(ax, list(range(len(half))), half, [subject], str(subject))
        ax.set_title(f"one block, reach {title}", fontsize=9)
    axes[0].legend(fontsize=8)
    return figure


def _by_strength() -> Any:
    """Gain, and the share of tokens at the limit, by alpha and by scale."""
    figure, axes = _figure("alpha", 2)
    contenders, subjects = rounds.strength_round(), ROUNDS["strength"].subjects
    number = len(rounds.ALPHAS)
    for ax, some, name in zip(axes, (contenders[:number], contenders[number:]), ("alpha", "scale"), strict=True):
        values = [contender.settings[name] for contender in some]
        _line(ax, values, some, subjects, "gain")
        limited = ax.twinx()
        limited.plot(values, [clamped_share(subjects[0], contender) for contender in some], "s:", color="tab:orange")
        limited.set_ylim(0, 1.05)
        ax.set_xlabel(name)
        ax.set_xscale("log")
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()
        ax.set_title({"alpha": "at scale 3", "scale": "at alpha 0.15"}[name], fontsize=9)
    limited.set_ylabel(f"tokens at the limit, {subjects[0]} (dotted)", fontsize=8)
    return figure


def clamped_share(subject: Subject, contender: Contender, pictures: int = 8) -> float:
    """The share of guided tokens at the limit tau, over blocks and steps, in a few pictures of the choosing set."""
    enter_host()
    from ...nagpag.diagnostics.record import Record
    from ...nagpag.diagnostics.recording import record_model

    record = Record()
    model = record_model(contender.patch(sampling.load(subject.file)), record)
    scenes, seeds = CHOOSING.rows(0)
    sampling.sample(model, scenes[:pictures], seeds[:pictures], contender.cfg)
    rows = record.recordings[-1].rows
    return sum(row.clamped for row in rows) / len(rows)


def _by_reach() -> Any:
    figure, (axes,) = _figure("model passes a step", 1)
    attention, *branches = rounds.reach_round()
    subjects, each = ROUNDS["reach"].subjects, len(rounds.RENEWALS)
    for contenders, label in (
        ([attention], "attention"),
        (branches[:each], "double blocks"),
        (branches[each:], "output"),
    ):
        _line(axes, [contender.passes for contender in contenders], contenders, subjects, f"reach {label}")
    for contender in branches:
        gain = _gain(subjects, contender)
        axes.annotate(f" {contender.settings['renew_every']}", (contender.passes, gain.value), fontsize=8)
    axes.set_title("numbers: renewed every so many steps", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def _by_steps() -> Any:
    figure, (axes,) = _figure("part of the sampling", 1)
    contenders, subjects = rounds.steps_round(), ROUNDS["steps"].subjects
    number = len(rounds.PERCENTS)
    for some, label, name in (
        (contenders[:number], "from 0 to here", "end_percent"),
        (contenders[number:], "from here to 1", "start_percent"),
    ):
        _line(axes, [contender.settings[name] for contender in some], some, subjects, label)
    axes.set_title("the defaults in a part of the sampling", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def _figure(x: str, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 + 2.5 * columns, 3.5), layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for ax in axes:
        ax.axhline(0, color="grey", linewidth=0.8)
        ax.set_xlabel(x)
    figure.supylabel("change in objects right (two errors)", fontsize=9)
    return figure, axes


def _line(axes: Any, x: list, contenders: list[Contender], subjects: list[Subject], label: str) -> None:
    found = [_gain(subjects, contender) for contender in contenders]
    axes.errorbar(
        x, [gain.value for gain in found], [2 * gain.error for gain in found], fmt="o-", capsize=3, label=label
    )


def _gain(subjects: list[Subject], contender: Contender) -> Measured:
    return gains.gain(subjects, contender, CHOOSING, COUNT)


ROUND_PLOTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "blocks": ("Gain by block", _by_block),
    "reach": ("Gain by reach and renewal", _by_reach),
    "strength": ("Gain and share of tokens at the limit, by strength", _by_strength),
    "steps": ("Gain by part of the sampling", _by_steps),
}


def _sheet(subject: Subject, contenders: list[Contender], columns: int = 8) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * 1.1, len(contenders) * 1.35))
    grid = figure.subplots(len(contenders), columns, squeeze=False)
    # By hand: a layout engine would make room for the long names beside the pictures.
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.005, top=0.985, wspace=0.06, hspace=0.3)
    for line, contender in zip(grid, contenders, strict=True):
        (part, *_) = runs.parts([subject], [contender], REPORTING, runs.PART_SIZE)
        line[0].set_title(contender.name, loc="left", fontsize=8)
        for axes, picture in zip(line, runs.pictures_of(part)[::NOISES], strict=False):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            axes.axis("off")
    return figure
