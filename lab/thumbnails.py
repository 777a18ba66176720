"""Make the workflows' thumbnails (left half plain, right half guided) and the README's picture from the demo's."""

from __future__ import annotations

from PIL import Image

from . import demo, graphs, host

README_PICTURE = host.REPO / "docs" / "demo.jpg"


def main(arguments: list[str]) -> int:
    """Write workflows/*.jpg and docs/demo.jpg from what `make demo` left."""
    for name in graphs.NAMES:
        off, on = (
            Image.open(demo.OUTPUT / f"{name}_guidance_{guidance}.png").convert("RGB") for guidance in ("off", "on")
        )
        off.paste(on.crop((on.width // 2, 0, on.width, on.height)), (on.width // 2, 0))
        off.resize((400, 400), Image.Resampling.LANCZOS).save(host.REPO / "workflows" / f"{name}.jpg", quality=88)
    sheet = Image.open(demo.OUTPUT / "contact_sheet.png").convert("RGB")
    sheet.resize((1024, sheet.height * 1024 // sheet.width), Image.Resampling.LANCZOS).save(README_PICTURE, quality=88)
    return 0
