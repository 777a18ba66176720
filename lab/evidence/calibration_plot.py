"""The plot of docs/calibration.md: the judges' gain against what the model itself says."""

from __future__ import annotations

from pathlib import Path

from .recovery import Found


def draw(found: list[Found], path: Path) -> None:
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
