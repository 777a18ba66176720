"""The picture that image-to-image starts from: where it comes from, and that it is one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import os
import re
import struct
import tempfile
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps

from .fetch import MOST_BYTES, Fence, Refused, fetch

MOST_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
FOLDER = "nag-pag"  # in the input folder: pictures that came as URL or data: URI
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_ANNOTATED = re.compile(r"\[\w*\]\s*$")  # LoadImage reads "x.png [output]" from another folder
# What Pillow's decoders raise on bytes that are no whole picture of the format they begin as.
_NO_PICTURE = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, AttributeError, NotImplementedError,
    OverflowError, ZeroDivisionError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_at_once = asyncio.Semaphore(2)  # pictures that are decoded; each may take some hundred MB
T = TypeVar("T")


async def take(image_url: str, folder: Path, fence: Fence | None = None) -> tuple[str, tuple[int, int]]:
    """The picture's name for LoadImage, in `folder` (the input folder), and its (width, height).

    Raises Refused that says why not. Reading and decoding happen in a thread.
    """
    scheme = _SCHEME.match(image_url)
    if not scheme:
        return await _in_thread(lambda: _in_folder(image_url, folder))
    kind = scheme[1].lower()
    if kind == "data":
        return await _in_thread(lambda: _store(_data(image_url), folder))
    if kind in ("http", "https"):
        data = await fetch(image_url, fence)
        return await _in_thread(lambda: _store(data, folder))
    raise Refused(
        f'"{kind[:20]}:" is not taken: only http, https and data: URIs, or the name of a file in the input folder'
    )


async def _in_thread(work: Callable[[], T]) -> T:
    async with _at_once:
        return await asyncio.to_thread(work)


# --- a file in the input folder ---


def _in_folder(name: str, folder: Path) -> tuple[str, tuple[int, int]]:
    """What lies outside of the folder reads the same as what is not there."""
    missing = Refused("there is no such picture in the input folder")
    if _ANNOTATED.search(name) or "\0" in name or "\\" in name:
        raise missing
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        inside = path.is_relative_to(root) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, or links in a circle
        inside = False
    if not inside or Path(name).is_absolute() or ".." in Path(name).parts:
        raise missing
    with path.open("rb") as file:
        picture = _decoded(file)
        if (frames := _frames(picture)) > 1:
            raise Refused(f"it is an animation of {frames} pictures; give one picture")
    return name, picture.size


def _frames(picture: Image.Image) -> int:
    try:
        return getattr(picture, "n_frames", 1)
    except _NO_PICTURE:
        raise Refused("it is not a whole picture") from None


# --- bytes from elsewhere ---


def _data(uri: str) -> bytes:
    """The bytes of a data: URI (RFC 2397)."""
    head, comma, body = uri[len("data:") :].partition(",")
    if not comma:
        raise Refused("the data: URI has no comma before its data")
    if len(body) > 3 * MOST_BYTES:  # every byte as %xx
        raise Refused(f"it is larger than {MOST_BYTES // 2**20} MiB")
    if head.lower().endswith(";base64"):
        try:
            data = base64.b64decode(urllib.parse.unquote(body, errors="replace"), validate=True)
        except (binascii.Error, ValueError):
            raise Refused("the data: URI's data is not valid base64") from None
    else:
        data = urllib.parse.unquote_to_bytes(body)
    if len(data) > MOST_BYTES:
        raise Refused(f"it is larger than {MOST_BYTES // 2**20} MiB")
    return data


def _store(data: bytes, folder: Path) -> tuple[str, tuple[int, int]]:
    """Keep the picture in the input folder, named by its content, as an upright RGB PNG of one frame."""
    picture = ImageOps.exif_transpose(_decoded(io.BytesIO(data))).convert("RGB")
    name = f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:32]}.png"
    if not (folder / name).is_file():
        (folder / FOLDER).mkdir(exist_ok=True)
        _write(picture, folder / name)
    return name, picture.size


def _write(picture: Image.Image, path: Path) -> None:
    """All of it or nothing, as others may look while we write."""
    number, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(number, "wb") as file:
            picture.save(file, "PNG", compress_level=1)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _decoded(file: io.BytesIO | io.BufferedReader) -> Image.Image:
    """The first picture in it, read to its end. Its size is checked before its pixels are."""
    try:
        picture = Image.open(file, formats=FORMATS)
        size = picture.width * picture.height
        if size <= MOST_PIXELS:
            picture.load()
    except Image.DecompressionBombError:
        size = MOST_PIXELS + 1
    except _NO_PICTURE:
        raise Refused(f"it is not a whole picture; taken are {', '.join(FORMATS)}") from None
    if size > MOST_PIXELS:
        raise Refused(f"it has more than {MOST_PIXELS // 1_000_000} megapixels")
    return picture


# --- what the graph makes of it ---


def fit(size: tuple[int, int], to: tuple[int, int]) -> dict:
    """The centre that ImageScale keeps of a picture of this (width, height), and what it is scaled to.

    The host's own rounding. Raises Refused where nothing is left.
    """
    (width, height), (new_width, new_height) = size, to
    aspect, new_aspect = width / height, new_width / new_height
    x = round((width - width * (new_aspect / aspect)) / 2) if aspect > new_aspect else 0
    y = round((height - height * (aspect / new_aspect)) / 2) if aspect < new_aspect else 0
    kept = (width - 2 * x, height - 2 * y)
    if min(kept) < 1:
        raise Refused(f"it is {width} × {height}, too narrow to be fitted to {new_width} × {new_height}")
    return {"size": size, "kept": kept, "to": to, "method": "scale and centre crop"}
