"""Make the workflows' thumbnails from the demo's pictures: left half plain, right half guided."""

from __future__ import annotations

from PIL import Image

from . import demo, graphs, host


def main(arguments: list[str]) -> int:
    """Write workflows/*.jpg from what `make demo` left."""
    for name in graphs.NAMES:
        off, on = (
            Image.open(demo.OUTPUT / f"{name}_guidance_{guidance}.png").convert("RGB") for guidance in ("off", "on")
        )
        off.paste(on.crop((on.width // 2, 0, on.width, on.height)), (on.width // 2, 0))
        off.resize((400, 400), Image.Resampling.LANCZOS).save(host.REPO / "workflows" / f"{name}.jpg", quality=88)
    return 0
