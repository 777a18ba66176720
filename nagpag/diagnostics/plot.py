"""A recording, or a calibration, as one picture.

The only module of the pack that imports matplotlib, by its object-oriented side, without pyplot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..measure import Measured
from .record import Recording, Row, by_block

WIDTH, HEIGHT, DPI = 1280, 960, 100
# Of Okabe and Ito's palette for every kind of colour vision; the maps' colours rise evenly in lightness.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666"
STEPS_MAP, PICTURE_MAP = "viridis", "magma"
FONT_SIZE = 13
MOST_LABELS = 20


def draw(recording: Recording | None, matched: bool = True) -> np.ndarray:
    """The picture of a recording, (height, width, 3) in [0, 1]; None: nothing was sampled.

    matched: whether it is the run that made the latent at hand; if not, the picture says so.
    """
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    if recording is None:
        _say(figure, ["nothing has been sampled with this record's model: put the sampler after NAG-PAG Record"])
    elif not recording.rows:
        _say(figure, recording.problems() or ["nothing was recorded"])
    else:
        _whole(figure, recording, matched)
    return _pixels(figure)


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255


def draw_measured(measured: Mapping[str, Measured], chosen: str | None) -> np.ndarray:
    """What a calibration found, best first, with two errors to each side; the picture, (height, width, 3) in [0, 1].

    chosen: which of them was; None: none is above zero.
    """
    height = 150 + 34 * len(measured)
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for place, (name, found) in enumerate(measured.items()):
        color = ORANGE if found.harms else BLUE if name == chosen else GREY
        spread = 2 * np.nan_to_num(found.error)
        axes.errorbar(
            found.value, place, xerr=spread, fmt="o", color=color, capsize=4, markersize=8 if name == chosen else 6
        )
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(
        range(len(measured)), [textwrap.shorten(name, 44, placeholder="…") for name in measured], fontsize=FONT_SIZE
    )
    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("change in how surely the model finds the prompts again (two standard errors)", fontsize=FONT_SIZE)
    title = textwrap.fill(f"NAG-PAG Calibrate: {_best(measured, chosen)}", 90)
    axes.set_title(title, loc="left", fontsize=14, weight="bold")
    return _pixels(figure)


def _best(measured: Mapping[str, Measured], chosen: str | None) -> str:
    if chosen is None:
        return "no candidate does better than no guidance"
    return f"{chosen} is best" + ("" if measured[chosen].helps else ", within two errors of no guidance")


def _say(figure: Figure, reasons: list[str]) -> None:
    figure.text(0.5, 0.66, "NAG-PAG guided nothing here", ha="center", fontsize=30, weight="bold", color="#222222")
    text = "\n\n".join(textwrap.fill(_sentence(reason.removeprefix("guided nothing: ")), 64) for reason in reasons)
    figure.text(0.5, 0.56, text, ha="center", va="top", fontsize=19, color="#333333", linespacing=1.5)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _whole(figure: Figure, recording: Recording, matched: bool) -> None:
    top = _title(figure, recording, matched)
    grid = GridSpec(
        3,
        2,
        figure,
        left=0.105,
        right=0.975,
        bottom=0.065,
        top=top - 0.045,
        width_ratios=(1.5, 1),
        height_ratios=(1.5, 1, 1),
        hspace=0.36,
        wspace=0.2,
    )
    _steps_by_blocks(figure, figure.add_subplot(grid[0, 0]), recording)
    with_room_for_its_scale = grid[0, 1].subgridspec(1, 2, width_ratios=(6, 1))[0]
    _over_the_picture(figure, figure.add_subplot(with_room_for_its_scale), recording)
    _strength(figure.add_subplot(grid[1, 0]), recording)
    _clamped(figure.add_subplot(grid[2, 0]), recording)
    _cosine(figure.add_subplot(grid[1, 1]), recording)
    _norms(figure.add_subplot(grid[2, 1]), recording)


def _title(figure: Figure, recording: Recording, matched: bool) -> float:
    """Write the settings and what went wrong; the height that is left, from 0 to 1."""
    several = len(recording.guidances) > 1
    lines = [f"{i + 1}: {g.summary}" if several else g.summary for i, g in enumerate(recording.guidances)]
    said = recording.problems()
    if not matched:
        said = ["this is the record's last run; the latent at hand comes from elsewhere or was changed since", *said]
    steps = "1 step" if recording.steps == 1 else f"{recording.steps} steps"
    figure.text(0.02, 0.985, f"NAG-PAG: what guidance did in {steps}", va="top", fontsize=20, weight="bold")
    key = "line: mean over the blocks    band: their range    grey: not guided"
    figure.text(0.975, 0.98, key, va="top", ha="right", color=GREY, fontsize=12)
    y = 0.945
    for text, color in [*((line, "#333333") for line in lines), *((_sentence(line), ORANGE) for line in said)]:
        wrapped = textwrap.wrap(text, 125)[:3]
        figure.text(0.02, y, "\n".join(wrapped), va="top", color=color, linespacing=1.25, fontsize=FONT_SIZE)
        y -= 0.026 * len(wrapped)
    return y


def _steps_by_blocks(figure: Figure, axes: Axes, recording: Recording) -> None:
    blocks = [rows for _, rows in by_block(recording)]
    values = np.full((len(blocks), recording.steps), np.nan)
    for place, rows in zip(values, blocks, strict=True):
        for row in rows:
            place[row.step - 1] = 100 * row.change
    axes.set_facecolor("#e4e4e4")  # what was not guided
    extent = (0.5, recording.steps + 0.5, len(blocks) - 0.5, -0.5)
    image = axes.imshow(values, cmap=STEPS_MAP, aspect="auto", extent=extent, interpolation="nearest", vmin=0)
    every = -(-len(blocks) // MOST_LABELS)
    axes.set_yticks(range(0, len(blocks), every), _labels(recording)[::every], fontsize=11 if len(blocks) > 12 else 13)
    figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05).ax.tick_params(labelsize=11)
    axes.set_title("change of the guided features, %", loc="left", fontsize=FONT_SIZE)
    _step_axis(axes, recording)
    reused = [(row.step, i) for i, rows in enumerate(blocks) for row in rows if row.branch == "reused"]
    if reused:
        steps, places = zip(*reused, strict=True)
        axes.scatter(steps, places, s=16, color="white", edgecolors="black", linewidths=0.7)
        axes.set_title("change of the guided features, % (dot: branch reused)", loc="left", fontsize=FONT_SIZE)


def _labels(recording: Recording) -> list[str]:
    several = len(recording.guidances) > 1
    short = [(i, block.replace(" block", "")) for i, block in recording.blocks()]
    return [f"{i + 1}: {block}" if several else block for i, block in short]


def _over_the_picture(figure: Figure, axes: Axes, recording: Recording) -> None:
    """The mean over all merge points whose maps have the shape of the last one."""
    maps = [item.numpy() for item in recording.maps.values()]
    if not maps:
        axes.set_axis_off()
        return
    mean = 100 * np.mean([item for item in maps if item.shape == maps[-1].shape], axis=0)
    image = axes.imshow(mean, cmap=PICTURE_MAP, interpolation="nearest", vmin=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("NW")
    figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.045, 1)))
    last = max(row.step for row in recording.rows)
    axes.set_title(f"change over the picture, %, step {last}", loc="left", fontsize=FONT_SIZE)


def _step_axis(axes: Axes, recording: Recording, name: str = "") -> None:
    axes.set_xlim(0.5, recording.steps + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=11)
    axes.set_xlabel(name, fontsize=FONT_SIZE)


def _lines(axes: Axes, recording: Recording, name: str, color: str) -> None:
    """The mean over the blocks as a line, and their range as a band."""
    # A step without guidance stays a gap, no straight line across it.
    low, mean, high = np.full((3, recording.steps), np.nan)
    for step in {row.step for row in recording.rows}:
        if values := _finite([row for row in recording.rows if row.step == step], name):
            low[step - 1], mean[step - 1], high[step - 1] = min(values), np.mean(values), max(values)
    x = np.arange(1, recording.steps + 1)
    axes.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(x, mean, color=color, linewidth=2, marker="o", markersize=4 if recording.steps > 30 else 6)


def _panel(axes: Axes, recording: Recording, title: str, name: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=FONT_SIZE)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _step_axis(axes, recording, name)


def _strength(axes: Axes, recording: Recording) -> None:
    _lines(axes, recording, "strength", BLUE)
    axes.set_ylim(0, 1.15 * max(_finite(recording.rows, "strength"), default=0) or 1)
    _panel(axes, recording, "strength in force (scale)")


def _clamped(axes: Axes, recording: Recording) -> None:
    _lines(axes, recording, "clamped", ORANGE)
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _panel(axes, recording, "tokens at the limit", "step")


def _cosine(axes: Axes, recording: Recording) -> None:
    _lines(axes, recording, "cosine", GREEN)
    _panel(axes, recording, "cosine of Z⁺ and Z⁻")
    axes.set_ylim(min([-0.05, *_finite(recording.rows, "cosine")]), 1.05)


def _norms(axes: Axes, recording: Recording) -> None:
    _lines(axes, recording, "norm_ratio", PURPLE)
    _panel(axes, recording, "‖Z⁻‖ / ‖Z⁺‖", "step")
    axes.axhline(1, color=GREY, linewidth=1, linestyle="--")


def _finite(rows: list[Row], name: str) -> list[float]:
    return [value for row in rows if np.isfinite(value := getattr(row, name))]
