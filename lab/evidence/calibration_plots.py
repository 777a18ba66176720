"""The plots of docs/calibration.md: the judges' gain against what the model itself says."""

from __future__ import annotations

from pathlib import Path

from .. import host
from .alignment import SIGNALS, STRENGTHS, Model
from .recovery import Found

ALIGNMENT, RECOVERY = host.REPO / "docs" / "calibration.png", host.REPO / "docs" / "recovery.png"


def draw_alignment(models: list[Model], path: Path) -> None:
    """Gain against each signal, a panel a signal, a colour a model, a marker a reach."""
    from matplotlib.figure import Figure

    rows = -(-len(SIGNALS) // 3)
    figure = Figure(figsize=(11, 0.5 + 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, sharey=True, squeeze=False)
    for axis, (name, words) in zip(axes.flat, SIGNALS.items(), strict=False):
        for (i, model), (reach, marker) in (
            (m, r) for m in enumerate(models) for r in zip(STRENGTHS, "os", strict=True)
        ):
            points = [(model.numbers[s][name], model.gains[s]) for s in model.judged(reach)]
            x, y = ([point[k].value for point in points] for k in (0, 1))
            axis.errorbar(
                *(x, y),
                xerr=[point[0].error for point in points],
                yerr=[point[1].error for point in points],
                fmt=marker,
                color=f"C{i}",
                ecolor=(f"C{i}", 0.25),
                markersize=5,
                markerfacecolor=f"C{i}" if marker == "o" else "white",
                label=f"{model.name}, {reach}",
            )
        axis.axhline(0, color="0.8", zorder=0)
        axis.axvline(0, color="0.8", zorder=0)
        axis.set_xlabel(words, fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("judges' gain in objects right", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    for axis in axes.flat[len(SIGNALS) :]:
        axis.axis("off")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)


def draw_recovery(found: list[Found], path: Path) -> None:
    """Gain against recovery, a panel a model."""
    from matplotlib.figure import Figure

    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, one in zip(axes.flat, found, strict=False):
        pairs = [(one.changes[contender], gain) for contender, gain in one.gains.items()]
        x, y = ([pair[k].value for pair in pairs] for k in (0, 1))
        errors = {"xerr": [pair[0].error for pair in pairs], "yerr": [pair[1].error for pair in pairs]}
        ax.errorbar(x, y, **errors, fmt="o", markersize=4, ecolor=("C0", 0.3))
        ax.axhline(0, color="0.8", zorder=0)
        ax.axvline(0, color="0.8", zorder=0)
        ax.set_title(one.name, fontsize=10)
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    figure.supxlabel("change of recovery (one standard error)", fontsize=10)
    figure.supylabel("judges' gain in objects right", fontsize=10)
    figure.savefig(path, dpi=110)
