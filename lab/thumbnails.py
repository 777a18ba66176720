"""Make the workflows' thumbnails (left half plain, right half guided) and the README's picture from the demo's."""

from __future__ import annotations

import io

from PIL import Image

from . import demo, graphs, host
from .server import run_graph, running_server

README_PICTURE = host.REPO / "docs" / "demo.jpg"


def main(arguments: list[str]) -> int:
    """Write workflows/*.jpg and docs/demo.jpg from what `make demo` left."""
    for name in graphs.PICTURES:
        off, on = (
            Image.open(demo.OUTPUT / f"{name}_guidance_{guidance}.png").convert("RGB") for guidance in ("off", "on")
        )
        off.paste(on.crop((on.width // 2, 0, on.width, on.height)), (on.width // 2, 0))
        off.resize((400, 400), Image.Resampling.LANCZOS).save(host.REPO / "workflows" / f"{name}.jpg", quality=88)
    sheet = Image.open(demo.OUTPUT / "contact_sheet.png").convert("RGB")
    sheet.resize((1024, sheet.height * 1024 // sheet.width), Image.Resampling.LANCZOS).save(README_PICTURE, quality=88)
    _diagnostics()
    return 0


def _diagnostics() -> None:
    """The plot that the diagnostics graph makes on the small models."""
    graph = graphs.for_small_models(graphs.load_graph(graphs.DIAGNOSTICS), demo.SIZE, demo.SIZE)
    with running_server() as server:
        (plot,) = run_graph(server, graphs.with_plot_saved(graph))
    picture = Image.open(io.BytesIO(plot)).convert("RGB").resize((400, 300), Image.Resampling.LANCZOS)
    thumbnail = Image.new("RGB", (400, 400), "white")
    thumbnail.paste(picture, (0, 50))
    thumbnail.save(host.REPO / "workflows" / f"{graphs.DIAGNOSTICS}.jpg", quality=88)
