"""Pictures side by side, each with its label. Needs Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

LABEL = 32


def side_by_side(rows: Sequence[dict[str, bytes]]) -> Image.Image:
    """A row per entry; in it each picture (label → the bytes of its file) with the label beneath. All of one size."""
    pictures = [{label: Image.open(io.BytesIO(data)).convert("RGB") for label, data in row.items()} for row in rows]
    first = next(iter(pictures[0].values()))
    width, height = first.width, first.height + LABEL
    sheet = Image.new("RGB", (width * len(pictures[0]), height * len(pictures)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(pictures):
        for x, (label, picture) in enumerate(row.items()):
            sheet.paste(picture, (x * width, y * height))
            size = _size(draw, label, width - 8)
            draw.text((x * width + 4, y * height + first.height + (LABEL - size) / 2), label, "black", font_size=size)
    return sheet


def _size(draw: ImageDraw.ImageDraw, label: str, width: float) -> float:
    """The size at which the label fits, 18 at most."""
    return max(6.0, min(18.0, 18.0 * width / draw.textlength(label, font_size=18)))


def save(sheet: Image.Image, path: Path) -> Path:
    """Write a PNG; raises FileExistsError rather than overwrite one."""
    with path.open("xb") as file:
        sheet.save(file, "PNG")
    return path
