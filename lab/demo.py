"""The demo: a real ComfyUI server runs the shipped graphs on the small trained FLUX, with and without guidance."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm import tqdm

from . import graphs, host
from .server import Server, ServerError, run_graph, running_server, upload_image
from .toy import shapes

OUTPUT = host.REPO / "demo_output"
PROMPTS = {
    "flux_dev_text_to_image": "a red ring top left, a blue cross bottom right, on grey",
    "flux_dev_image_to_image": "a yellow frame top left, a green triangle bottom right, on black",
}
START = shapes.Scene(  # what image to image starts from: its places, in other shapes and colours
    shapes.BACKGROUND_NAMES.index("black"),
    (
        shapes.Thing(shapes.SHAPES.index("disc"), shapes.COLOR_NAMES.index("purple"), 0, 32, 32, 23),
        shapes.Thing(shapes.SHAPES.index("square"), shapes.COLOR_NAMES.index("cyan"), 3, 96, 96, 23),
    ),
)
SEEDS = (42, 43, 44, 45)
SETTINGS: dict[str, dict] = {"off": {"scale": 0.0}, "on": {}}  # inputs of the node beside the shipped graph's own
CELL, LABEL = 2 * shapes.SIZE, 26  # pixels of the contact sheet


@dataclass(frozen=True)
class Result:
    """One finished picture."""

    graph: str
    guidance: str
    seed: int
    seconds: float
    file: Path


def main(arguments: list[str]) -> int:
    """Run the demo; the exit status."""
    folder = Path(arguments[0]) if arguments else OUTPUT
    try:
        show(run_demo(folder), folder)
    except (ServerError, host.HostError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; the server was stopped, too", file=sys.stderr)
        return 130
    return 0


def run_demo(folder: Path) -> list[Result]:
    """Make all pictures and the contact sheet in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    print("starting ComfyUI …", flush=True)
    with running_server() as server:
        try:
            image = upload_image(server, _starting_picture(folder))
            results = [
                _run(server, name, guidance, seed, image, folder)
                for name in graphs.PICTURES
                for guidance in SETTINGS
                for seed in SEEDS
            ]
            _check_that_guidance_showed(results)
        except ServerError as error:
            raise ServerError(f"{error}\n--- the end of the server's log ---\n{server.log_tail()}") from error
    contact_sheet(results).save(folder / "contact_sheet.png")
    return results


def _run(server: Server, name: str, guidance: str, seed: int, image: str, folder: Path) -> Result:
    graph = graphs.for_trained_model(graphs.load_graph(name), PROMPTS[name], image=image, seed=seed)
    graph = graphs.with_guidance(graph, **SETTINGS[guidance])
    start = time.monotonic()
    with tqdm(desc=f"{name}, seed {seed}, guidance {guidance}", unit="step", leave=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        (picture,) = run_graph(server, graph, progress)
    file = folder / file_name(name, seed, guidance)
    file.write_bytes(picture)
    return Result(name, guidance, seed, time.monotonic() - start, file)


def file_name(graph: str, seed: int, guidance: str) -> str:
    return f"{graph}_seed{seed}_guidance_{guidance}.png"


def _starting_picture(folder: Path) -> Path:
    pixels = shapes.render([START])[0].movedim(0, -1)
    path = folder / "starting_picture.png"
    Image.fromarray((255 * pixels).round().byte().numpy()).save(path)
    return path


def _check_that_guidance_showed(results: list[Result]) -> None:
    by_picture: dict[tuple[str, int], set[bytes]] = {}
    for result in results:
        pixels = Image.open(result.file).convert("RGB").tobytes()
        by_picture.setdefault((result.graph, result.seed), set()).add(pixels)
    for (name, seed), pictures in by_picture.items():
        if len(pictures) != len(SETTINGS):
            raise ServerError(
                f"{name}, seed {seed}: the picture is the same with and without guidance, so guidance did nothing"
            )


def contact_sheet(results: list[Result]) -> Image.Image:
    """Two rows per graph, guidance off and on, a column per seed, enlarged; above each row what it shows."""
    rows = [results[i : i + len(SEEDS)] for i in range(0, len(results), len(SEEDS))]
    sheet = Image.new("RGB", (len(SEEDS) * CELL, len(rows) * (CELL + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        name, top = row[0].graph, y * (CELL + LABEL)
        what = name.removeprefix("flux_dev_").replace("_", " ")
        draw.text((6, top + 4), f'{what}, guidance {row[0].guidance}: "{PROMPTS[name]}"', "black", font_size=16)
        for x, result in enumerate(row):
            picture = Image.open(result.file).convert("RGB").resize((CELL - 4, CELL - 4), Image.Resampling.LANCZOS)
            sheet.paste(picture, (x * CELL + 2, top + LABEL))
    return sheet


def show(results: list[Result], folder: Path) -> None:
    """The table at the end."""
    width = max(len(result.graph) for result in results)
    print(f"\n{'graph':{width}}  seed  guidance  seconds  file")
    for result in results:
        line = f"{result.graph:{width}}  {result.seed:4}  {result.guidance:8}  {result.seconds:7.1f}"
        print(f"{line}  {result.file.name}")
    print(f"\nPictures and contact_sheet.png are in {folder}")
