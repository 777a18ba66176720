"""Do the judges of emoji agree with an eye? Held-out renders, as they are and spoilt, each with what the judges say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..toy import emoji
from . import emoji_judges
from .emoji_lessons import BROKEN, SIDE, Lessons, blurred, layers_of, on_grounds

COUNT, SEED = 512, 2_500  # of scenes that nothing was trained on or calibrated with
SHOWN = 12  # of each kind on the sheet
ZOOM = 3

Scenes = list[emoji.Scene]


def scenes(count: int = COUNT) -> Scenes:
    """Scenes of held-out combinations whose captions tell all."""
    return emoji.random_scenes(count, torch.Generator().manual_seed(SEED), new=True, left_out=0)


def spoilt(asked: Scenes) -> dict[str, Tensor]:
    """Small pictures of these scenes, (scenes, 3, SIDE, SIDE): how they were spoilt → what came of it."""
    pictures = emoji_judges.real_pictures(asked)
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(pictures.shape, generator=generator)
    other = emoji_judges.real_pictures(with_another(asked, "concept"))
    other_vendor = emoji_judges.real_pictures(with_another(asked, "vendor"))
    bent = {f"bent by {pixels} small pixels": _bent(asked, pixels) for pixels in (0.3, 1.0, 2.0)}
    left = torch.tensor([scene.x for scene in asked])[:, None, None, None] / 4 > torch.arange(SIDE)
    nothing = pictures.flatten(2).mode(2).values[:, :, None, None].expand_as(pictures)
    return {
        "as it is": pictures,
        **{f"noise of {strength}": pictures + strength * noise for strength in (0.02, 0.06, 0.15, 0.4)},
        "a slight blur": (pictures + blurred(pictures)) / 2,
        "means of 3 × 3": blurred(pictures),
        "means of 5 × 5, twice": blurred(blurred(pictures, 5), 5),
        **bent,
        "paler by a half": (pictures + nothing) / 2,
        "30 % of another concept": 0.7 * pictures + 0.3 * other,
        "50 % of another concept": 0.5 * pictures + 0.5 * other,
        "half another concept": torch.where(left, pictures, other),
        "half missing": torch.where(left, pictures, nothing),
        "another concept": other,
        "another vendor": other_vendor,
        "50 % of another vendor": 0.5 * pictures + 0.5 * other_vendor,
        "nothing": nothing,
    }


def with_another(asked: Scenes, part: str) -> Scenes:
    """The scenes with another concept or vendor, all else as it is."""
    many = len(emoji.PARTS[part])
    return [
        replace(scene, **{part: (getattr(scene, part) + 1 + row % (many - 1)) % many})
        for row, scene in enumerate(asked)
    ]


def _bent(asked: Scenes, pixels: float) -> Tensor:
    layers = layers_of(asked).float()
    bend = Lessons(layers, {}, [], torch.Generator().manual_seed(SEED)).bend
    grounds = torch.tensor([emoji.GROUNDS[emoji.GROUND_NAMES[scene.ground]] for scene in asked])
    return on_grounds(bend(layers, torch.full((len(asked),), pixels)), grounds)


def shares(found: dict[str, Tensor], asked: Scenes) -> list[str]:
    """A table: of each kind of picture, how many each judge finds right."""
    lines = [f"{'':26}  CNN  fit"]
    for name, pictures in found.items():
        scores = emoji_judges.score(pictures, asked)
        right = (float(part.double().mean()) for part in (scores.cnn_right, scores.template_right))
        lines.append(f"{name:26} " + " ".join(f"{share:.2f}" for share in right))
    return lines


def sheet(found: dict[str, Tensor], asked: Scenes, says: Callable[[Tensor], list[str]]) -> Image.Image:
    """A row for each kind: SHOWN pictures, beneath each what the judges say."""
    side = SIDE * ZOOM
    image = Image.new("RGB", (SHOWN * (side + 8), len(found) * (side + 40)), "white")
    draw = ImageDraw.Draw(image)
    for row, (name, pictures) in enumerate(found.items()):
        top = row * (side + 40)
        draw.text((2, top), name, fill="black", font_size=11)
        for column, words in enumerate(says(pictures[:SHOWN])):
            draw_at = (column * (side + 8), top + 13)
            image.paste(_image(pictures[column]), draw_at)
            draw.multiline_text((draw_at[0], top + 13 + side), words, fill="black", font_size=9, spacing=1)
    return image


def _image(picture: Tensor) -> Image.Image:
    values = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values).resize((SIDE * ZOOM, SIDE * ZOOM), Image.Resampling.NEAREST)


def in_words(pictures: Tensor) -> list[str]:
    """What the CNN, and beneath it the fit, sees in each: concept and vendor, or that it is broken."""
    seen = emoji_judges.read(pictures).values()
    each = [zip(one["concept"].tolist(), one["vendor"].tolist(), strict=True) for one in seen]
    return ["\n".join(_words(*pair) for pair in pairs) for pairs in zip(*each, strict=True)]


def _words(concept: int, vendor: int) -> str:
    return "broken" if concept == BROKEN else f"{emoji.CONCEPTS[concept]}, {emoji.VENDORS[vendor]}"


def main(arguments: list[str]) -> int:
    """Print how right the judges are, and write a sheet to look at: lab/run.py emoji_check sheet.png."""
    asked = scenes()
    found = spoilt(asked)
    print(f"the CNN finds all of {emoji_judges.held_out_accuracy():.2%} of 4,096 held-out renders")
    print("\n".join(shares(found, asked)))
    if arguments:
        sheet(found, asked, in_words).save(Path(arguments[0]))
    return 0
