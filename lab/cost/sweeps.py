"""How many pictures an hour nagpag sweep draws on one server, on two, and on Ray; writes the table in docs/sweep.md.

Each ComfyUI has one thread, so that two of them share nothing but the machine. Counted is from when every one has drawn
its first picture, which loads the models, to the last picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import host
from ..make.markdown import table
from ..server import furnish, running_server

PAGE = host.REPO / "docs" / "sweep.md"
BEGIN, END = "<!-- speed -->\n", "<!-- end of speed -->\n"
GPUS, ON_GPU = 8, 20.0  # of the calculation: how many, and the seconds of a picture there
SWEEP = """prompts = ["a red ring top left, on grey"]
seeds = {seeds}
numbers = false
[settings]
width = 256
height = 256
t5xxl = "clip_l_small.safetensors"
clip_type = "sd3"
vae = "taef1"
"""


@dataclass(frozen=True)
class Speed:
    """What a sweep did. an_hour: pictures; seconds: of a picture's run; between: from it to the next on one ComfyUI."""

    pictures: int
    an_hour: float
    seconds: float
    between: float


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it into the page. The number of pictures may be named."""
    count = int(arguments[0]) if arguments else 24
    os.environ["OMP_NUM_THREADS"] = "1"
    load = os.getloadavg()[0]
    found = {}
    with running_server() as one, running_server() as two:
        found["one server"] = speed(count, "--server", one.url)
        found["two servers"] = speed(count, "--server", one.url, "--server", two.url)
    found["Ray, two workers"] = speed(count, "--ray", "local", python=host.cluster_python())
    text = words(found, load)
    print(text)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}")
    return 0


def speed(count: int, *words: str, python: Path | str = sys.executable) -> Speed:
    """Draw so many pictures and look at when each was there."""
    with sweep_file(count) as file:
        command = [str(python), "-m", "nagpag", "sweep", str(file), "--json", *words]
        subprocess.run(command, cwd=host.REPO, check=True, stdout=subprocess.DEVNULL)
        kept = sorted((file.with_suffix("") / "pictures").glob("[!.]*.json"), key=lambda path: path.stat().st_mtime)
        return of(
            [path.stat().st_mtime for path in kept],
            [json.loads(path.read_text())["worker"] for path in kept],
            [json.loads(path.read_text())["seconds"] for path in kept],
        )


def of(times: list[float], workers: list[str], seconds: list[float]) -> Speed:
    """The speed by when each picture was there, who drew it and what its run took, in that order."""
    firsts = {workers.index(worker) for worker in set(workers)}
    begin = max(firsts)
    counted = [number for number in range(begin + 1, len(times)) if number not in firsts]
    if not counted:
        raise host.HostError(f"{len(times)} pictures are too few for {len(firsts)} to draw: name more")
    took = times[-1] - times[begin]
    own = statistics.fmean(seconds[number] for number in counted)
    return Speed(len(counted), 3600 * len(counted) / took, own, took * len(firsts) / len(counted) - own)


@contextlib.contextmanager
def sweep_file(count: int) -> Iterator[Path]:
    """The sweep, in a folder that goes with it; a Ray worker finds the small models there."""
    with tempfile.TemporaryDirectory(prefix="nag-pag-flux-speed-") as folder:
        base, found = Path(folder) / "base", host.find_host()
        base.mkdir()
        furnish(base, found.path)
        options = ["--cpu", "--disable-api-nodes", "--base-directory", str(base)]
        cluster = f"comfyui = '{found.path}'\npython = '{found.python}'\nworkers = 2\ngpus = 0\noptions = {options}\n"
        file = Path(folder) / "speed.toml"
        file.write_text(f"{SWEEP.format(seeds=list(range(count)))}[cluster]\n{cluster}")
        yield file


def words(found: dict[str, Speed], load: float) -> str:
    """The table, and what it would be on GPUs. load: the machine's, without this."""
    rows = [
        (name, f"{one.pictures}", f"{one.an_hour:,.0f}", f"{one.seconds:.2f}", f"{one.between:.2f}")
        for name, one in found.items()
    ]
    head = ("drawn on", "pictures counted", "pictures an hour", "seconds of a run", "between two runs")
    one, two = found["one server"], found["two servers"]
    return f"""{table(head, rows)}

On {os.cpu_count()} cores two servers drew {two.an_hour / one.an_hour:.2f} times as much as one; {_beside(load)}

On {GPUS} GPUs nothing was measured; this is a calculation. A picture waits for no other, so {GPUS} GPUs draw
{GPUS} × 3600 / (run + between) an hour: where a run takes {ON_GPU:g} s, and between two passes what it took here on one
server, {GPUS * 3600 / (ON_GPU + one.between):,.0f}. It leaves out the loading of the models, once on each server, the
way of the pictures over a network, and the end, when some are done and others still draw: one picture's time at most.
"""


def _beside(load: float) -> str:
    if load < 1:
        return f"hardly anything ran beside it (a load of {load:.1f} before it began)."
    return f"""other work ran beside it, a load of {load:.1f} before it began. On so busy a machine a second
process gets a second share of the time, too, so this is neither the speed nor the gain of two free cores."""
