"""Make the workflows' thumbnails (above plain, below guided) and the README's picture from the demo's."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from .. import demo, graphs, host
from ..server import Server, run_graph, running_server

README_PICTURE = host.REPO / "docs" / "demo.jpg"
SIDE, GAP = 400, 4


def main(arguments: list[str]) -> int:
    """Write workflows/*.jpg and docs/demo.jpg from what `make demo` left."""
    for name in graphs.PICTURES:
        _thumbnail(name).save(host.REPO / "workflows" / f"{name}.jpg", quality=88)
    Image.open(demo.OUTPUT / "contact_sheet.png").convert("RGB").save(README_PICTURE, quality=88)
    with running_server() as server:
        _negative_prompt(server).save(host.REPO / "workflows" / f"{graphs.WITH_NEGATIVE}.jpg", quality=88)
        _diagnostics(server).save(host.REPO / "workflows" / f"{graphs.DIAGNOSTICS}.jpg", quality=88)
        _compare(server).save(host.REPO / "workflows" / f"{graphs.COMPARE}.jpg", quality=88)
    return 0


def _thumbnail(name: str) -> Image.Image:
    """The first two seeds of the demo, side by side: guidance off above, on below."""
    files = [[demo.file_name(name, seed, guidance) for seed in demo.SEEDS[:2]] for guidance in demo.SETTINGS]
    return _sheet([[Image.open(demo.OUTPUT / file) for file in row] for row in files])


def _sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Two rows of two pictures."""
    cell = (SIDE - GAP) // 2
    thumbnail = Image.new("RGB", (SIDE, SIDE), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            small = picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
            thumbnail.paste(small, (x * (cell + GAP), y * (cell + GAP)))
    return thumbnail


def _negative_prompt(server: Server) -> Image.Image:
    """The shipped graph on the small trained FLUX with an empty negative prompt, two seeds: off above, on below."""
    prompt = demo.PROMPTS["flux_dev_text_to_image"]

    def drawn(seed: int, **inputs: float) -> Image.Image:
        graph = graphs.for_trained_model(graphs.load_graph(graphs.WITH_NEGATIVE), prompt, seed=seed)
        (picture,) = run_graph(server, graphs.with_guidance(graph, **inputs))
        return Image.open(io.BytesIO(picture))

    return _sheet([[drawn(seed, **inputs) for seed in demo.SEEDS[:2]] for inputs in demo.SETTINGS.values()])


def _diagnostics(server: Server) -> Image.Image:
    """The plot that the diagnostics graph makes on the small trained FLUX."""
    prompt = demo.PROMPTS["flux_dev_text_to_image"]
    graph = graphs.for_trained_model(graphs.load_graph(graphs.DIAGNOSTICS), prompt)
    (plot,) = run_graph(server, graphs.with_plot_saved(graph))
    picture = Image.open(io.BytesIO(plot)).convert("RGB").resize((SIDE, SIDE * 3 // 4), Image.Resampling.LANCZOS)
    thumbnail = Image.new("RGB", (SIDE, SIDE), "white")
    thumbnail.paste(picture, (0, SIDE // 8))
    return thumbnail


def _compare(server: Server) -> Image.Image:
    """The top of the sheet that the compare graph draws on the small trained FLUX: off and four settings."""
    prompt = demo.PROMPTS["flux_dev_text_to_image"]
    graph = graphs.for_trained_model(
        graphs.load_graph(graphs.COMPARE), prompt, seeds=1, axes="scale: 3, 9\nalpha: 0.3, 0.6"
    )
    (sheet,) = run_graph(server, graph)
    return ImageOps.pad(Image.open(io.BytesIO(sheet)).convert("RGB"), (SIDE, SIDE), color="white")
