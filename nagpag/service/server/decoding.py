"""A picture's bytes as pixels: what Pillow decodes, as ComfyUI's own LoadImage shows it.

Hosts differ in what they make of 16 bits, of floats, of a palette's transparency, of an orientation in EXIF or XMP. So
the host is asked, with a file that we wrote: bytes of a stranger reach Pillow alone, which is told how large they may
be.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, ImageStat
from PIL.PngImagePlugin import PngInfo

from .fetch import Refused

MOST_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
NO_PICTURE = f"it is not a whole picture; taken are {', '.join(FORMATS)}"
# Writes a picture in a format, with options of Pillow's, and gives LoadImage's first picture of it, as RGB.
Look = Callable[..., Image.Image]
_PLAIN = ("RGB", "RGBA", "RGBX", "PA")  # colours of 8 bits: every host shows them as they are, without their alpha
_LOSSLESS = ("PNG", "GIF", "BMP")  # formats that are written again as they came: hosts treat each in its own way
_ORIENTATION, _XMP = 0x0112, 0x02BC  # tags of TIFF and EXIF
_XMP_TEXT, _EXIF_TEXT = "XML:com.adobe.xmp", "Raw profile type exif"  # texts of a PNG
_PROBE = Image.merge("RGB", [Image.linear_gradient("L").resize((48, 32)).rotate(turn) for turn in (0, 180, 0)])
_PROBE.paste("red", (0, 0, 12, 8))  # no two of the eight ways to turn it look the same


@dataclass(frozen=True)
class Decoded:
    """The first picture of a file, with its pixels, and its format.

    turned: options of Pillow's that write again what may tell how it is turned; {} where nothing does.
    """

    picture: Image.Image
    kind: str
    turned: dict[str, Any]

    @property
    def frames(self) -> int:
        """How many pictures the file has. Raises Refused."""
        with refusing(NO_PICTURE):
            # A photo with an inset is several JPEGs in one file, of which every reader shows the first.
            return 1 if self.kind == "JPEG" else getattr(self.picture, "n_frames", 1)


@contextlib.contextmanager
def refusing(words: str) -> Iterator[None]:
    """Whatever is raised inside is Refused with these words.

    Decoders raise of every kind on broken bytes, MemoryError among them for a size that the bytes make up.
    """
    try:
        yield
    except Refused:
        raise
    except Exception:
        raise Refused(words) from None


def decoded(file: io.BytesIO | io.BufferedReader) -> Decoded:
    """The first picture in it, read to its end. Its size is checked before its pixels are. Raises Refused."""
    with refusing(NO_PICTURE):
        try:
            picture = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError:
            raise _too_large() from None
        if picture.width * picture.height > MOST_PIXELS:
            raise _too_large()
        turned = _by_tags(picture) if picture.format == "TIFF" else None  # Pillow turns these itself, and forgets
        picture.load()
        turned = _by_info(picture) if turned is None else turned  # what follows the pixels has been read, too
    return Decoded(picture, "JPEG" if picture.format == "MPO" else str(picture.format), turned)


def _too_large() -> Refused:
    return Refused(f"it has more than {MOST_PIXELS // 1_000_000} megapixels")


def _by_tags(picture: Image.Image) -> dict[str, Any]:
    tags, exif = picture.tag_v2, Image.Exif()  # type: ignore[attr-defined]
    if tags.get(_ORIENTATION) in range(2, 9):
        exif[_ORIENTATION] = tags[_ORIENTATION]
    elif _XMP in tags and _ORIENTATION not in tags:
        exif[_XMP] = tags[_XMP]
    return {"exif": exif} if exif else {}


def _by_info(picture: Image.Image) -> dict[str, Any]:
    info = picture.info
    found = {name: info[name] for name in ("exif", "xmp") if info.get(name)}
    if picture.format != "PNG":
        return found
    xmp = found.pop("xmp", None)  # the same as in the texts, or what is no UTF-8
    texts = {_XMP_TEXT: info.get(_XMP_TEXT) or xmp, _EXIF_TEXT: info.get(_EXIF_TEXT)}
    written = PngInfo()
    for name, text in texts.items():
        if text:
            written.add_text(name, text)
    return {**found, "pnginfo": written} if any(texts.values()) else found


def shown(found: Decoded, look: Look) -> Image.Image:
    """The picture as LoadImage shows it: RGB of 8 bits, turned as the host turns it. Raises Refused."""
    with refusing("ComfyUI can't read it"):
        picture = found.picture
        picture = picture.convert("RGB") if picture.mode in _PLAIN else look(*_bare(found))
        way = _way_it_is_turned(found.kind, found.turned, look) if found.turned else None
        return picture if way is None else picture.transpose(way)


def _bare(found: Decoded) -> tuple[Image.Image, str]:
    """The pixels with nothing else but what is transparent, and a format that keeps them as they are."""
    bare = found.picture.copy()
    bare.info = {name: value for name, value in bare.info.items() if name == "transparency"}
    return bare, found.kind if found.kind in _LOSSLESS else "TIFF"


def _way_it_is_turned(kind: str, turned: dict[str, Any], look: Look) -> Image.Transpose | None:
    """How the host turns a picture of this format that carries this, found on a small one; None: not at all.

    Hosts turn some formats and not others, and some leave mirrored ones as they are.
    """
    try:
        file = io.BytesIO()
        _PROBE.save(file, kind, **turned)
        ours, theirs = Image.open(file, formats=[kind]).convert("RGB"), look(_PROBE, kind, **turned)
    except Exception:  # what a host can't read of it tells it nothing: the picture is taken unturned
        return None
    ways: list[Image.Transpose | None] = [None, *Image.Transpose]
    return min(ways, key=lambda way: _difference(ours if way is None else ours.transpose(way), theirs))


def _difference(one: Image.Image, other: Image.Image) -> float:
    if one.size != other.size:
        return float("inf")
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).sum)
