"""The demo: a real ComfyUI server runs the shipped graphs on a small FLUX, with and without guidance."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw
from tqdm import tqdm

from . import graphs, host
from .server import Server, ServerError, run_graph, running_server, upload_image

OUTPUT = host.REPO / "demo_output"
SIZE, LABEL = 512, 26
STRENGTHS = {"off": 0.0, "on": 3.0}


@dataclass(frozen=True)
class Result:
    """One finished picture."""

    graph: str
    guidance: str
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
            results = [_run(server, name, guidance, folder) for name in graphs.PICTURES for guidance in STRENGTHS]
            _check_that_guidance_showed(results)
        except ServerError as error:
            raise ServerError(f"{error}\n--- the end of the server's log ---\n{server.log_tail()}") from error
    contact_sheet(results).save(folder / "contact_sheet.png")
    return results


def _run(server: Server, name: str, guidance: str, folder: Path) -> Result:
    image = upload_image(server, _starting_picture(folder))
    graph = graphs.for_small_models(graphs.load_graph(name), SIZE, SIZE, image=image)
    graph = graphs.with_guidance(graph, scale=STRENGTHS[guidance])
    start = time.monotonic()
    with tqdm(desc=f"{name}, guidance {guidance}", unit="step", leave=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        (picture,) = run_graph(server, graph, progress)
    file = folder / f"{name}_guidance_{guidance}.png"
    file.write_bytes(picture)
    return Result(name, guidance, time.monotonic() - start, file)


def _starting_picture(folder: Path) -> Path:
    """What image to image starts from."""
    picture = Image.new("RGB", (SIZE, SIZE), (120, 125, 130))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((80, 80, 240, 240), outline=(210, 40, 40), width=28)
    draw.rectangle((300, 300, 440, 440), fill=(40, 70, 200))
    path = folder / "starting_picture.png"
    picture.save(path)
    return path


def _check_that_guidance_showed(results: list[Result]) -> None:
    by_graph: dict[str, set[bytes]] = {}
    for result in results:
        by_graph.setdefault(result.graph, set()).add(Image.open(result.file).convert("RGB").tobytes())
    for name, pictures in by_graph.items():
        if len(pictures) != len(STRENGTHS):
            raise ServerError(f"{name}: the picture is the same with and without guidance, so guidance did nothing")


def contact_sheet(results: list[Result]) -> Image.Image:
    """A row per graph: guidance off, guidance on, and what it changed, four times as strong; each with its label."""
    rows = [results[i : i + len(STRENGTHS)] for i in range(0, len(results), len(STRENGTHS))]
    sheet = Image.new("RGB", (3 * SIZE, len(rows) * (SIZE + LABEL)), "white")
    for y, row in enumerate(rows):
        off, on = (Image.open(result.file).convert("RGB") for result in row)
        what = row[0].graph.removeprefix("flux_dev_").replace("_", " ")
        change = ImageChops.difference(on, off).point(lambda value: min(255, 4 * value))
        cells = {f"{what}, guidance off": off, f"{what}, guidance on": on, "difference, four times": change}
        for x, (text, picture) in enumerate(cells.items()):
            sheet.paste(picture, (x * SIZE, y * (SIZE + LABEL)))
            ImageDraw.Draw(sheet).text((x * SIZE + 6, y * (SIZE + LABEL) + SIZE + 4), text, "black", font_size=16)
    return sheet


def show(results: list[Result], folder: Path) -> None:
    """The table at the end."""
    width = max(len(result.graph) for result in results)
    print(f"\n{'graph':{width}}  guidance  seconds  file")
    for result in results:
        print(f"{result.graph:{width}}  {result.guidance:8}  {result.seconds:7.1f}  {result.file.name}")
    print(f"\nPictures and contact_sheet.png are in {folder}")
