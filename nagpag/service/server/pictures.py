"""The picture that image-to-image starts from: where it comes from, and what of it is kept for the job."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .decoding import decoded, refusing, shown
from .fetch import MOST_BYTES, Fence, Refused, fetch
from .held import Share
from .store import SOFTWARE, Store

Size = tuple[int, int]  # width, height
Load = Callable[[str], Any]  # host.load_image
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_ANNOTATED = re.compile(r"\[\w*\]\s*$")  # LoadImage reads "x.png [output]" from another folder
_at_once = asyncio.Semaphore(1)  # pictures that are decoded; a large one may take two GB, in the host's own floats
T = TypeVar("T")


async def take(
    image_url: str, to: Size, store: Store, load: Load, share: Share | None = None, fence: Fence | None = None
) -> dict:
    """What is made of the picture in a job of this size, as schema.Fit: `file` is its name for LoadImage.

    The store is told that the file is in use: whoever takes it releases it when the job is no longer known. Reading and
    decoding happen in a thread. share: holds the bytes that are fetched. Raises Refused that says why not, Busy.
    """
    scheme = _SCHEME.match(image_url)
    if not scheme:
        return await _in_thread(lambda: _in_folder(image_url, to, store, load))
    kind = scheme[1].lower()
    if kind == "data":
        return await _in_thread(lambda: _stored(_data(image_url), to, store, load))
    if kind in ("http", "https"):
        data = await fetch(image_url, fence, share)
        return await _in_thread(lambda: _stored(data, to, store, load))
    raise Refused(
        f'"{kind[:20]}:" is not taken: only http, https and data: URIs, or the name of a file in the input folder'
    )


async def _in_thread(work: Callable[[], T]) -> T:
    async with _at_once:
        return await asyncio.to_thread(work)


# --- a file in the input folder ---


def _in_folder(name: str, to: Size, store: Store, load: Load) -> dict:
    """What lies outside of the folder reads the same as what is not there."""
    missing = Refused("there is no such picture in the input folder")
    if _ANNOTATED.search(name) or "\0" in name or "\\" in name:
        raise missing
    name = Path(name).as_posix()
    with store.using(name):
        root = store.input_folder.resolve()
        try:
            path = (root / name).resolve()
            inside = path.is_relative_to(root) and path.is_file()
        except (OSError, RuntimeError, ValueError):  # too long, or links in a circle
            inside = False
        if not inside or Path(name).is_absolute() or ".." in Path(name).parts:
            raise missing
        with path.open("rb") as file:
            frames = decoded(file).frames
        if frames == 1:
            with refusing("ComfyUI can't read it"):
                frames, height, width, _ = load(name).shape
        if frames > 1:
            raise Refused(f"it is an animation of {frames} pictures; give one picture")
        return _fit(name, (width, height), to)


# --- bytes from elsewhere ---

_PIECE = 2**20  # characters that are read at once: other threads have their turn in between
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _data(uri: str) -> bytes:
    """The bytes of a data: URI (RFC 2397)."""
    comma = uri.find(",")
    if comma < 0:
        raise Refused("the data: URI has no comma before its data")
    if len(uri) - comma > 3 * MOST_BYTES:  # every byte as %xx
        raise Refused(f"it is larger than {MOST_BYTES // 2**20} MiB")
    data = b"".join(map(_unescaped, _pieces(uri, comma + 1)))
    if uri[:comma].lower().endswith(";base64"):
        data = _unbased(data)
    if len(data) > MOST_BYTES:
        raise Refused(f"it is larger than {MOST_BYTES // 2**20} MiB")
    return data


def _pieces(uri: str, start: int) -> Iterator[str]:
    """The text from there on in pieces that cut no escape in two."""
    while start < len(uri):
        end = start + _PIECE
        cut = uri.rfind("%", end - 2, end)
        end = cut if cut > start else end
        yield uri[start:end]
        start = end


def _unescaped(text: str) -> bytes:
    """The bytes that a text with %xx stands for.

    By way of quoted-printable, which is the same but for its sign: urllib makes an object of every escape.
    """
    data = text.encode("utf-8", "replace")
    if b"%" not in data:
        return data
    if _NO_ESCAPE.search(data):
        raise Refused("the data: URI has a % that no two hexadecimal digits follow")
    return binascii.a2b_qp(data.replace(b"=", b"=3D").replace(b"%", b"="))


def _unbased(data: bytes) -> bytes:
    """What this base64 stands for; strict, and in pieces, too."""
    try:
        if b"=" in data[:-2]:
            raise ValueError
        pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
        return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
    except ValueError:
        raise Refused("the data: URI's data is not valid base64") from None


def _stored(data: bytes, to: Size, store: Store, load: Load) -> dict:
    """Keep the picture as LoadImage shows it, no larger than the job needs; named by its content and that size."""
    digest = hashlib.sha256(b"%d %d " % to)
    digest.update(data)
    name = store.name(digest.hexdigest())
    with store.using(name):
        picture = shown(decoded(io.BytesIO(data)), lambda *file, **options: _look(store, load, *file, **options))
        found, path = _fit(name, picture.size, to), store.input_folder / name
        if not path.is_file():
            with refusing("the server can't write it to its input folder"):
                _write(_reduced(picture, to), store, path)
        return found


def _look(store: Store, load: Load, picture: Image.Image, kind: str, **options: Any) -> Image.Image:
    """LoadImage's first picture of this one, in 8 bits as the host's own scaling makes them: cut off, not rounded."""
    with store.part(f".{kind.lower()}") as path:
        picture.save(path, kind, compress_level=0, **options)
        pixels = load(path.relative_to(store.input_folder).as_posix())[0]
    pixels *= 255.0
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype("uint8"))


def _write(picture: Image.Image, store: Store, path: Path) -> None:
    """All of it or nothing, as others may look while we write."""
    ours = PngInfo()
    ours.add_text(*SOFTWARE)
    with store.part(".png") as part:
        picture.save(part, "PNG", compress_level=1, pnginfo=ours)
        part.chmod(0o644)
        with contextlib.suppress(FileExistsError):
            part.replace(path)


# --- what the graph makes of it ---


def kept(size: Size, to: Size) -> Size:
    """The centre that ImageScale keeps of a picture of this size, to scale it to that one.

    The host's own rounding. Raises Refused where nothing is left.
    """
    (width, height), (new_width, new_height) = size, to
    aspect, new_aspect = width / height, new_width / new_height
    x = round((width - width * (new_aspect / aspect)) / 2) if aspect > new_aspect else 0
    y = round((height - height * (aspect / new_aspect)) / 2) if aspect < new_aspect else 0
    left = (width - 2 * x, height - 2 * y)
    if min(left) < 1:
        raise Refused(f"it is {width} × {height}, too narrow to be fitted to {new_width} × {new_height}")
    return left


def _fit(name: str, size: Size, to: Size) -> dict:
    return {"file": name, "size": size, "kept": kept(size, to), "to": to, "method": "scale and centre crop"}


def _reduced(picture: Image.Image, to: Size) -> Image.Image:
    """A picture that has more pixels than the job needs as ImageScale makes it, which then finds nothing to do."""
    if picture.width * picture.height <= to[0] * to[1]:
        return picture
    width, height = kept(picture.size, to)
    x, y = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((x, y, x + width, y + height)).resize(to, Image.Resampling.LANCZOS)
