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
    for y, row in enumerate(pictures):
        for x, (label, picture) in enumerate(row.items()):
            sheet.paste(picture, (x * width, y * height))
            sheet.paste(caption(label, width), (x * width, y * height + first.height))
    return sheet


def caption(text: str, width: int) -> Image.Image:
    """The text on white, 18 high or as small as it has to be; beneath a very small picture its end is cut off."""
    label = Image.new("RGB", (width, LABEL), "white")
    draw = ImageDraw.Draw(label)
    size = max(8.0, min(18.0, 18.0 * (width - 8) / draw.textlength(text, font_size=18)))
    draw.text((4, (LABEL - size) / 2), text, "black", font_size=size)
    label.paste("white", (width - 4, 0, width, LABEL))
    return label


def save(sheet: Image.Image, path: Path) -> Path:
    """Write a PNG; raises FileExistsError rather than overwrite one."""
    with path.open("xb") as file:
        sheet.save(file, "PNG")
    return path
