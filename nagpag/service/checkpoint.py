"""What a checkpoint is, from its header alone: no tensor is read, and torch is not needed.

A safetensors file begins with the header's length (8 bytes, little endian) and the header, a JSON object of tensor
names with their dtype and shape.
"""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from ..blocks import auto_blocks

MOST_HEADER = 100 * 2**20  # the format's own limit
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Summary:
    """What `inspect` tells. family: None where the file is none that we know. blocks: 0 where it has none."""

    family: str | None
    double_blocks: int
    single_blocks: int
    hidden_size: int | None
    parameters: int
    dtypes: tuple[str, ...]
    auto: tuple[int, ...]
    guided: bool  # whether NAG-PAG guidance takes it


def read_header(path: Path) -> dict[str, dict]:
    """Tensor name → {"dtype", "shape"}. Raises ValueError, in words, where the file is no safetensors file."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= MOST_HEADER:
            raise ValueError(f"{path.name} is not a safetensors file: it has no header")
        text = file.read(size)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        for entry in header.values():
            entry["dtype"], math.prod(entry["shape"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not a safetensors file: its header is not readable") from error
    return header


def inspect(path: Path) -> Summary:
    """Family, blocks and sizes of a diffusion model's file; what `auto` means on it.

    Raises ValueError where the file is no safetensors file, OSError where it can't be read.
    """
    header = read_header(path)
    shapes = _bare({name: tuple(entry["shape"]) for name, entry in header.items()})
    double, single = _count(shapes, _DOUBLE), _count(shapes, _SINGLE)
    family = _family(shapes)
    guided = bool(double) and family in _GUIDED
    return Summary(
        family,
        double,
        single,
        next((shapes[name][0] for name in ("img_in.weight", "x_embedder.weight") if name in shapes), None),
        sum(math.prod(shape) for shape in shapes.values()),
        tuple(sorted({entry["dtype"] for entry in header.values()})),
        auto_blocks(double) if guided else (),
        guided,
    )


def kind_of(path: Path | None) -> str | None:
    """A short name of what the file is, "other" for what we don't know, None where there is no header to read."""
    if path is None or path.suffix.lower() not in (".safetensors", ".sft") or not path.is_file():
        return None
    found = path.stat()
    return _kind(path, found.st_mtime_ns, found.st_size)


def depth_of(path: Path | None) -> tuple[int, int] | None:
    """The double and single blocks of a file that guidance takes; None where there is no header that says so."""
    if kind_of(path) not in _GUIDED or path is None:
        return None
    found = path.stat()
    return _depth(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=64)
def _depth(path: Path, changed: int, size: int) -> tuple[int, int]:
    found = inspect(path)
    return found.double_blocks, found.single_blocks


@functools.lru_cache(maxsize=1024)
def _kind(path: Path, changed: int, size: int) -> str | None:
    try:
        header = read_header(path)
    except (ValueError, OSError):
        return None
    return _family(_bare({name: tuple(entry["shape"]) for name, entry in header.items()})) or "other"


# --- families ---

_DOUBLE = re.compile(r"(?:double_blocks|transformer_blocks)\.(\d+)\.")
_SINGLE = re.compile(r"(?:single_blocks|single_transformer_blocks)\.(\d+)\.")
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")
_IN = ("img_in.weight", "x_embedder.weight")
# What the picture's input is wide, of FLUX.1's variants: 16 channels of 2×2 pixels, and what is given beside them.
_WIDTHS = {64: "FLUX.1", 128: "FLUX.1 Canny or Depth", 384: "FLUX.1 Fill"}
_GUIDED = ("FLUX.1 [dev]", "FLUX.1 [schnell]", "FLUX.1 Canny or Depth", "FLUX.1 Fill", "FLUX.2", "Chroma")


def _bare(shapes: Shapes) -> Shapes:
    """Names without the prefix that some files put before all of the model's."""
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) and _DOUBLE.match(name[len(prefix) :]) for name in shapes):
            return {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}
    return shapes


def _count(shapes: Shapes, pattern: re.Pattern) -> int:
    numbers = {int(match[1]) for name in shapes if (match := pattern.match(name)) and len(match[1]) <= 6}
    return len(numbers)


def _family(shapes: Shapes) -> str | None:
    if _count(shapes, _DOUBLE) and any(name in shapes for name in _IN):
        return _transformer(shapes)
    if shapes.get("text_model.embeddings.position_embedding.weight") == (77, 768):
        return "CLIP-L"
    if (
        shapes.get("shared.weight", (0, 0))[1:] == (4096,)
        and "encoder.block.23.layer.0.SelfAttention.q.weight" in shapes
    ):
        return "T5-XXL"
    if len(channels := shapes.get("decoder.conv_in.weight", ())) == 4:
        return f"autoencoder, {channels[1]} channels"
    return None


def _transformer(shapes: Shapes) -> str | None:
    if any(name.startswith("distilled_guidance_layer.") for name in shapes):
        return "Chroma"
    if any(name.startswith(("double_stream_modulation_img.", "double_stream_modulation.")) for name in shapes):
        return "FLUX.2"
    if not any(name.startswith(("vector_in.", "time_text_embed.text_embedder.")) for name in shapes):
        return None
    width = next(shapes[name][-1] for name in _IN if name in shapes)
    if _WIDTHS.get(width) != "FLUX.1":
        return _WIDTHS.get(width)
    distilled = any(name.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for name in shapes)
    return "FLUX.1 [dev]" if distilled else "FLUX.1 [schnell]"
