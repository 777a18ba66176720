"""All pictures of a sweep on one sheet: a row for each prompt and seed, a column for each point of the axes.

Needs Pillow.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..compare import LABEL, caption
from .kept import PICTURES, Folder, rows_of_sheet, write_whole
from .plan import Job, Plan

MOST_SIDE, LEAST_SIDE, MOST_PIXELS = 512, 64, 100_000_000


class TooMany(Exception):
    """The sheet would be too large."""


def draw(plan: Plan, folder: Folder) -> Image.Image:
    """The sheet; what is missing is grey. Of a batch the first picture is shown. Raises TooMany."""
    rows = rows_of_sheet(plan)
    columns = max(len(jobs) for _, jobs in rows)
    begins = [number == 0 or rows[number - 1][0] != prompt for number, (prompt, _) in enumerate(rows)]
    side = _side(len(rows), columns, sum(begins))
    sheet = Image.new("RGB", (side * columns, len(rows) * (side + LABEL) + sum(begins) * LABEL), "white")
    y = 0
    for (prompt, jobs), first in zip(rows, begins, strict=True):
        if first:
            sheet.paste(caption(textwrap.shorten(prompt, 200, placeholder=" …"), side * columns), (0, y))
            y += LABEL
        row = _row(jobs, folder, side, columns)
        sheet.paste(row, (0, y))
        y += row.height
    return sheet if y == sheet.height else sheet.crop((0, 0, sheet.width, y))


def _side(rows: int, columns: int, prompts: int) -> int:
    """The longer side of a picture in pixels, so that all of them with their labels are MOST_PIXELS at most."""
    # columns × side × (rows × (side + LABEL) + prompts × LABEL) = MOST_PIXELS
    labels = LABEL * (rows + prompts) / 2
    side = int((math.sqrt(labels**2 + rows * MOST_PIXELS / columns) - labels) / rows)
    if side < LEAST_SIDE:
        raise TooMany(f"{rows * columns} pictures do not fit on one")
    return min(MOST_SIDE, side)


def _row(jobs: Sequence[Job], folder: Folder, side: int, columns: int) -> Image.Image:
    pictures = [_picture(job, folder, side) for job in jobs]
    height = max(picture.height for picture in pictures)
    row = Image.new("RGB", (side * columns, height + LABEL), "white")
    for x, (job, picture) in enumerate(zip(jobs, pictures, strict=True)):
        words = [f"seed {job.seed}", *(_said(name, value) for name, value in job.varied.items())]
        row.paste(picture, (x * side + (side - picture.width) // 2, height - picture.height))
        row.paste(caption(", ".join(words), side), (x * side, height))
    return row


def _said(name: str, value: object) -> str:
    shown = f"{value:g}" if isinstance(value, float) else value
    return f"{name.removeprefix('nag_pag_')} {shown}"


def _picture(job: Job, folder: Folder, side: int) -> Image.Image:
    told = folder.of(job)
    try:
        with Image.open(folder.path / PICTURES / told["pictures"][0] if told else "") as picture:
            scale = side / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            small = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
            return picture.convert("RGB").resize(size, small)
    except OSError:  # not drawn, or no picture
        grey = Image.new("RGB", (side, side), "#dddddd")
        ImageDraw.Draw(grey).text((4, 4), "missing", "black")
        return grey


def write(plan: Plan, folder: Folder) -> Path:
    """Write sheet.png. Raises TooMany."""
    file = io.BytesIO()
    draw(plan, folder).save(file, "PNG")
    write_whole(folder.path / "sheet.png", file.getvalue())
    return folder.path / "sheet.png"
