"""Make the workflows' thumbnails (above plain, below guided) and the README's pictures from the demo's."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageOps

from .. import demo, graphs, host
from ..server import Server, run_graph, running_server

README_PICTURE, README_PLOT = host.REPO / "docs" / "demo.jpg", host.REPO / "docs" / "plot.jpg"
SIDE, GAP = 400, 4
LABELS = {"off": "off", "on": "NAG-PAG"}  # of demo.SETTINGS
# Of families that have no trained model here: a card, as a picture would be of noise.
CARDS = {graphs.QWEN_IMAGE: ("Qwen-Image", "text to image"), graphs.WAN: ("Wan", "text to video")}
PROMPTS = (
    demo.PROMPTS[graphs.PICTURES[0]],
    "a green disc top right, on white",
    "a yellow triangle bottom left, a purple square top right, on black",
    "a cyan cross top left, on white",
)


def main(arguments: list[str]) -> int:
    """Write workflows/*.jpg, docs/demo.jpg and docs/plot.jpg from what `make demo` left."""
    Image.open(demo.OUTPUT / "contact_sheet.png").convert("RGB").save(README_PICTURE, quality=88)
    for name, lines in CARDS.items():
        _save(name, _card(*lines))
    for name in graphs.PICTURES:
        _save(name, _demos(name))
    with running_server() as server:
        _save(graphs.WITH_NEGATIVE, _negative_prompt(server))
        plot = _diagnostics(server)
        plot.resize((800, 600), Image.Resampling.LANCZOS).save(README_PLOT, quality=88)
        _save(graphs.DIAGNOSTICS, _square(plot))
        _save(graphs.COMPARE, _square(_compare(server)))
        _save(graphs.CALIBRATE, _square(_calibrate(server)))
    return 0


def _save(name: str, thumbnail: Image.Image) -> None:
    thumbnail.save(graphs.template(name, "jpg"), quality=88)


def _demos(name: str) -> Image.Image:
    """The first two seeds of the demo, side by side: guidance off above, on below."""
    files = {guidance: [demo.file_name(name, seed, guidance) for seed in demo.SEEDS[:2]] for guidance in demo.SETTINGS}
    return _sheet({guidance: [Image.open(demo.OUTPUT / file) for file in row] for guidance, row in files.items()})


def _sheet(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Two rows of two pictures, each row with its label."""
    cell = (SIDE - GAP) // 2
    thumbnail = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(thumbnail)
    for y, (guidance, row) in enumerate(rows.items()):
        for x, picture in enumerate(row):
            small = picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
            thumbnail.paste(small, (x * (cell + GAP), y * (cell + GAP)))
        place = (10, y * (cell + GAP) + cell - 38)
        draw.text(place, LABELS[guidance], "white", font_size=26, stroke_width=3, stroke_fill="black")
    return thumbnail


def _card(family: str, what: str) -> Image.Image:
    """The family's name, what the graph makes, and ours."""
    dark, orange = "#1b1d2a", "#f4a63a"  # of the icon
    card = Image.new("RGB", (SIDE, SIDE), dark)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, SIDE - 90, SIDE, SIDE), fill=orange)
    lines = ((family, 130, 58, "white"), (what, 200, 34, "white"), (LABELS["on"], SIDE - 45, 40, dark))
    for text, y, size, color in lines:
        draw.text((SIDE / 2, y), text, color, font_size=size, anchor="mm")
    return card


def _square(picture: Image.Image) -> Image.Image:
    return ImageOps.pad(picture, (SIDE, SIDE), color="white")


def _drawn(server: Server, graph: graphs.Graph) -> Image.Image:
    (picture,) = run_graph(server, graph)
    return Image.open(io.BytesIO(picture)).convert("RGB")


def _negative_prompt(server: Server) -> Image.Image:
    """The shipped graph on the small trained FLUX with an empty negative prompt, two seeds: off above, on below."""

    def drawn(seed: int, **inputs: float) -> Image.Image:
        graph = graphs.for_trained_model(graphs.load_graph(graphs.WITH_NEGATIVE), PROMPTS[0], seed=seed)
        return _drawn(server, graphs.with_guidance(graph, **inputs))

    settings = demo.SETTINGS.items()
    return _sheet({guidance: [drawn(seed, **inputs) for seed in demo.SEEDS[:2]] for guidance, inputs in settings})


def _diagnostics(server: Server) -> Image.Image:
    """The plot that the diagnostics graph makes on the small trained FLUX."""
    graph = graphs.for_trained_model(graphs.load_graph(graphs.DIAGNOSTICS), PROMPTS[0])
    return _drawn(server, graphs.with_plot_saved(graph))


def _compare(server: Server) -> Image.Image:
    """The sheet that the compare graph draws on the small trained FLUX: off and four settings."""
    axes = "scale: 3, 9\nalpha: 0.3, 0.6"
    graph = graphs.for_trained_model(graphs.load_graph(graphs.COMPARE), PROMPTS[0], seeds=1, axes=axes)
    return _drawn(server, graph)


def _calibrate(server: Server) -> Image.Image:
    """The sheet that the calibrate graph draws on the small trained FLUX: four prompts, off above, guided below."""
    graph = graphs.for_trained_model(
        graphs.load_graph(graphs.CALIBRATE), "", candidates="auto", alphas="0.5", pictures=len(PROMPTS), batch_size=1
    )
    texts = [node for node in graph.values() if node["class_type"] == "CLIPTextEncode"]
    for node, prompt in zip((one for one in texts if one["_meta"]["title"] != "Empty prompt"), PROMPTS, strict=True):
        node["inputs"]["text"] = prompt
    saver = next(node for node in graph.values() if node["class_type"] == "SaveImage")
    node_id = next(key for key, node in graph.items() if node["class_type"] == "NAGPAGCalibrate")
    saver["inputs"]["images"] = [node_id, 4]
    return _drawn(server, graph)
