"""Emoji as four vendors draw them: fetched from the package registries, rasterised once, kept in the cache.

Nothing of it is committed. Each set of drawings has its own licence (`SETS`); pictures that show OpenMoji's are to be
shared under its terms, and Twemoji's and OpenMoji's want their authors named: `attribution` says so in words.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import host
from . import digests

SIDE = 96  # pixels of a drawing
SIDE_OF_LOOK = 256  # at which it is looked at for where it begins and ends
PINS = host.PINS / "resvg.txt"  # the rasteriser, with its checksums


@dataclass(frozen=True)
class Set:
    """A vendor's drawings, as a package of the npm registry holds them: SVG by name in one JSON file.

    integrity: the package's sha512 in base64, as npm writes it. author, licence, source: for who shows the drawings.
    """

    package: str
    version: str
    integrity: str
    author: str
    licence: str
    source: str


SETS = {
    "noto": Set(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Google (Noto Emoji)",
        "Apache-2.0",
        "github.com/googlefonts/noto-emoji",
    ),
    "twemoji": Set(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "Twitter, Inc and other contributors (Twemoji)",
        "CC-BY-4.0",
        "github.com/jdecked/twemoji",
    ),
    "openmoji": Set(
        "@iconify-json/openmoji",
        "1.2.29",
        "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        "OpenMoji",
        "CC-BY-SA-4.0",
        "github.com/hfg-gmuend/openmoji",
    ),
    "fluent": Set(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "Microsoft Corporation (Fluent Emoji)",
        "MIT",
        "github.com/microsoft/fluentui-emoji",
    ),
}
VENDORS = tuple(SETS)

ToPng = Callable[[str, int], bytes]  # an SVG, and how many pixels on a side; a PNG
_BOX = re.compile(r'viewBox="([^"]*)"')


def attribution() -> str:
    """Whose drawings they are and under which licences, for every page that shows some."""
    named = (f"{one.author}, {one.licence}, {one.source}" for one in SETS.values())
    return f"Emoji drawings, made smaller and put on grounds of one colour: {'; '.join(named)}."


# --- what is kept ---


def drawings(names: tuple[str, ...]) -> Tensor:
    """Each emoji of these names by each vendor, (names, VENDORS, 4, SIDE, SIDE) bytes: RGBA, not premultiplied.

    Each fills its square on its longer side. Fetched where the cache has none: 7 MB of drawings from the npm registry
    and the rasteriser, 1.4 MB, through pip. Raises host.HostError where that fails or gives another file than pinned.
    """
    return _kept(names)["drawings"]


@cache
def _kept(names: tuple[str, ...]) -> dict[str, Tensor]:
    folder = host.cache_dir() / f"emoji-{recipe_digest(names)}"
    host.make_once(folder, lambda made: _make(names, made))
    return load_file(folder / "drawings.safetensors")


def recipe_digest(names: tuple[str, ...]) -> str:
    """Changes with whatever changes the drawings."""
    return digests.digest(digests.sources(Path(__file__)), f"{names} {PINS.read_text()}")


def _make(names: tuple[str, ...], folder: Path) -> None:
    host.say("fetching emoji")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as work:
        packages = fetch_sets(Path(work))
        to_png = fetch_rasteriser(Path(work))
        rows = [rasterise(svg_files(packages[vendor], names), to_png) for vendor in VENDORS]
    save_file({"drawings": torch.stack(rows, 1).contiguous()}, str(folder / "drawings.safetensors"))


# --- the registries ---


def fetch_sets(folder: Path) -> dict[str, Path]:
    """The packages of all SETS, through npm, which knows this machine's registry; vendor → archive."""
    return {vendor: _fetch(one, folder / vendor) for vendor, one in SETS.items()}


def _fetch(one: Set, folder: Path) -> Path:
    folder.mkdir()
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{one.package}@{one.version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise host.HostError("the emoji come from the npm registry: install npm, then run this again") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise host.HostError(
            f"npm brought no {one.package} {one.version}:\n{tail}\nNothing was kept. Check the network and npm's "
            "registry, then run this again"
        )
    check(archives[0], one)
    return archives[0]


def check(archive: Path, one: Set) -> None:
    """Raise host.HostError unless the archive is the pinned one, to the byte."""
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != one.integrity:
        raise host.HostError(
            f"{one.package} {one.version} has sha512 {found}, not the pinned {one.integrity}: the registry or "
            "something on the way to it gave another file. Nothing was kept; ask your registry's keeper"
        )


def fetch_rasteriser(folder: Path) -> ToPng:
    """resvg, which makes pixels of SVG, in a folder of its own: no host's environment needs to have it."""
    target = folder / "resvg"
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(target)]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *options, "-r", str(PINS)], capture_output=True)
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-800:]
        raise host.HostError(f"pip brought no rasteriser for the emoji:\n{tail}\nNothing was kept; run this again")
    sys.path.insert(0, str(target))
    try:
        resvg = importlib.import_module("resvg_py")
    finally:
        sys.path.remove(str(target))

    def to_png(svg: str, side: int) -> bytes:
        return bytes(resvg.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True))

    return to_png


# --- from packages to pixels ---


def svg_files(archive: Path, names: Iterable[str]) -> list[str]:
    """The drawings of these names in a package, as SVG. Raises ValueError naming those that it lacks."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        assert member  # what is pinned has it
        found = json.load(member)
    if missing := [name for name in names if name not in found["icons"]]:
        raise ValueError(f"{archive.name} has no {', '.join(missing)}")
    return [_svg(found["icons"][name], found) for name in names]


def _svg(icon: dict, defaults: dict) -> str:
    left, top, width, height = (
        icon.get(key, defaults.get(key, usual))
        for key, usual in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'


def rasterise(files: list[str], to_png: ToPng) -> Tensor:
    """SVG as pixels, (files, 4, SIDE, SIDE) bytes, each as large as its square allows."""
    return torch.stack([_fitted(svg, to_png) for svg in files])


def _fitted(svg: str, to_png: ToPng) -> Tensor:
    """Drawn twice: once to see where in its box it lies, and then that part alone, so that nothing is resampled."""
    box = _BOX.search(svg)
    assert box  # `_svg` wrote it
    left, top, width, height = (float(number) for number in box[1].split())
    seen = _pixels(to_png(svg, SIDE_OF_LOOK))[3] > 8
    columns, rows = (torch.nonzero(seen.any(axis))[:, 0] for axis in (0, 1))
    if not len(columns):
        raise ValueError(f"an emoji without a pixel: {svg[:200]}")
    # The box is fitted into the square by its longer side and stands in the middle of it.
    unit = max(width, height) / SIDE_OF_LOOK
    x, y = left + width / 2 - max(width, height) / 2, top + height / 2 - max(width, height) / 2
    (x0, x1), (y0, y1) = ((float(line[0]), float(line[-1]) + 1) for line in (columns, rows))
    side = max(x1 - x0, y1 - y0)
    middle = (x + unit * (x0 + x1) / 2, y + unit * (y0 + y1) / 2)
    part = f"{middle[0] - unit * side / 2} {middle[1] - unit * side / 2} {unit * side} {unit * side}"
    return _pixels(to_png(_BOX.sub(f'viewBox="{part}"', svg, count=1), SIDE))


def _pixels(png: bytes) -> Tensor:
    """RGBA, (4, height, width) bytes."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 4).permute(2, 0, 1).contiguous()
