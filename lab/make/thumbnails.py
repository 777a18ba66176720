"""Make the workflows' thumbnails (above plain, below guided) and the README's picture from the demo's."""

from __future__ import annotations

import io

from PIL import Image

from .. import demo, graphs, host
from ..server import run_graph, running_server

README_PICTURE = host.REPO / "docs" / "demo.jpg"
SIDE, GAP = 400, 4


def main(arguments: list[str]) -> int:
    """Write workflows/*.jpg and docs/demo.jpg from what `make demo` left."""
    for name in graphs.PICTURES:
        _thumbnail(name).save(host.REPO / "workflows" / f"{name}.jpg", quality=88)
    Image.open(demo.OUTPUT / "contact_sheet.png").convert("RGB").save(README_PICTURE, quality=88)
    _diagnostics()
    return 0


def _thumbnail(name: str) -> Image.Image:
    """The first two seeds of the demo, side by side: guidance off above, on below."""
    cell = (SIDE - GAP) // 2
    thumbnail = Image.new("RGB", (SIDE, SIDE), "white")
    for y, guidance in enumerate(demo.SETTINGS):
        for x, seed in enumerate(demo.SEEDS[:2]):
            picture = Image.open(demo.OUTPUT / demo.file_name(name, seed, guidance)).convert("RGB")
            picture = picture.resize((cell, cell), Image.Resampling.LANCZOS)
            thumbnail.paste(picture, (x * (cell + GAP), y * (cell + GAP)))
    return thumbnail


def _diagnostics() -> None:
    """The plot that the diagnostics graph makes on the small trained FLUX."""
    prompt = demo.PROMPTS["flux_dev_text_to_image"]
    graph = graphs.for_trained_model(graphs.load_graph(graphs.DIAGNOSTICS), prompt)
    with running_server() as server:
        (plot,) = run_graph(server, graphs.with_plot_saved(graph))
    picture = Image.open(io.BytesIO(plot)).convert("RGB").resize((SIDE, SIDE * 3 // 4), Image.Resampling.LANCZOS)
    thumbnail = Image.new("RGB", (SIDE, SIDE), "white")
    thumbnail.paste(picture, (0, SIDE // 8))
    thumbnail.save(host.REPO / "workflows" / f"{graphs.DIAGNOSTICS}.jpg", quality=88)
