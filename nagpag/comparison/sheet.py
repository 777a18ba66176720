"""Pictures on one sheet: a title, a label over each column, a line over each row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MOST_PIXELS = 2**25  # of the pictures on it; more are scaled down
GAP = 4
SMALLEST, BIGGEST = 12, 40  # heights of letters


def draw_sheet(pictures: Tensor, title: str, columns: Sequence[str], rows: Sequence[tuple[str, list[int]]]) -> Tensor:
    """The sheet, (1, height, width, 3) in [0, 1].

    pictures: (n, height, width, 3) in [0, 1]. rows: the label of each and which pictures stand in it.
    """
    height, width = _cell(pictures, len(columns) * len(rows))
    font = _font(min(max(width // 20, SMALLEST), BIGGEST))
    line = int(font.size * 1.6)
    across = len(columns) * (width + GAP) - GAP
    lines = _wrapped(title, font, across)
    top = line * (len(lines) + 1)
    sheet = Image.new("RGB", (across, top + len(rows) * (line + height)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(lines):
        draw.text((GAP, line * i), text, "black", font)
    for x, label in enumerate(columns):
        draw.text((x * (width + GAP) + GAP, top - line), _cut(label, font, width - GAP), "black", font)
    for y, (label, places) in enumerate(rows):
        at = top + y * (line + height)
        draw.text((GAP, at + GAP), _cut(label, font, across - GAP), "#444444", font)
        for x, place in enumerate(places):
            sheet.paste(_picture(pictures[place], (width, height)), (x * (width + GAP), at + line))
    return torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255).unsqueeze(0)


def _cell(pictures: Tensor, number: int) -> tuple[int, int]:
    """Height and width of each picture on a sheet of so many."""
    height, width = pictures.shape[1:3]
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (number * height * width)))
    return max(1, int(height * shrink)), max(1, int(width * shrink))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # whenever a size is named
    return font


def _picture(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    """Rounded as the host saves it."""
    picture = Image.fromarray(np.clip(255.0 * pixels.cpu().numpy(), 0, 255).astype(np.uint8))
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text as fits, with dots where it does not."""
    if font.getlength(text) <= width:
        return text
    end = max((i for i in range(min(len(text), width)) if font.getlength(text[:i] + "…") <= width), default=0)
    return text[:end] + "…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in lines of whole words, at most three; what a line can't hold is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width - 2 * GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = [line for line in lines if line][:3]
    return [_cut(line, font, width - 2 * GAP) for line in kept]
