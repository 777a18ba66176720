"""The files that FLUX.1 needs: what they are called, where they belong, and which of those installed are such files.

Standard library only. Links and folders are those of ComfyUI's own FLUX.1 [dev] template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import checkpoint

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class File:
    """An official file: its request field, its name, where to get it, its folder in ComfyUI's models."""

    field: str
    name: str
    url: str
    folder: str


FLUX = File(
    "diffusion_model",
    "flux1-dev.safetensors",
    f"{HUB}/Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors",
    "diffusion_models",
)
CLIP_L = File(
    "clip_l",
    "clip_l.safetensors",
    f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
    "text_encoders",
)
T5XXL = File(
    "t5xxl",
    "t5xxl_fp16.safetensors",
    f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp16.safetensors",
    "text_encoders",
)
VAE = File(
    "vae",
    "ae.safetensors",
    f"{HUB}/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors",
    "vae",
)
FILES = (FLUX, CLIP_L, T5XXL, VAE)

# Variants of FLUX.1 that draw another way than [dev], by a word of their names. They are taken after it.
_VARIANTS = ("krea", "kontext", "schnell", "fill", "canny", "depth", "turbo", "lite")


def pick(file: File, installed: Iterable[str], path_of: Callable[[str], Path | None]) -> str | None:
    """The best of the `installed` names for this kind of file, or None.

    The official name comes first, then files whose header says that they are of this kind (FLUX.1 [dev] first, then
    others of the family), then, where there is no header to read, files whose name says so. Deterministic.
    """
    ranked = [(rank, name) for name in installed if (rank := _RANKS[file.field](name, path_of)) is not None]
    return min(ranked)[1] if ranked else None


def _flux_rank(name: str, path_of: Callable[[str], Path | None]) -> int | None:
    word = _plain(name)
    kind = checkpoint.kind_of(path_of(name))
    if kind not in ("FLUX.1 [dev]", "FLUX.1 [schnell]") and not (kind is None and "flux" in word):
        return None
    if _is(name, FLUX):
        return 0
    variant = any(variant in word for variant in _VARIANTS)
    dev = kind == "FLUX.1 [dev]" or (kind is None and "dev" in word)
    return (2 if "dev" not in word else 1) + (2 if variant else 0) + (0 if dev else 4) + (8 if kind is None else 0)


def _clip_rank(name: str, path_of: Callable[[str], Path | None]) -> int | None:
    if _is(name, CLIP_L):
        return 0
    kind = checkpoint.kind_of(path_of(name))
    if kind == "CLIP-L":
        return 1 if "clip_l" in _plain(name) else 2
    return 3 if kind is None and "clip_l" in _plain(name) else None


def _t5_rank(name: str, path_of: Callable[[str], Path | None]) -> int | None:
    order = ("t5xxl_fp16", "t5xxl_fp8_e4m3fn_scaled", "t5xxl_fp8_e4m3fn")
    stem = PurePosixPath(name.replace("\\", "/")).stem
    if stem in order:
        return order.index(stem)
    kind = checkpoint.kind_of(path_of(name))
    if kind == "T5-XXL":
        return 3
    return 4 if kind is None and "t5xxl" in _plain(name) else None


def _vae_rank(name: str, path_of: Callable[[str], Path | None]) -> int | None:
    """SD3's autoencoder has the same shapes as FLUX's, so here the name has to say it."""
    if _is(name, VAE):
        return 0
    word = _plain(name)
    if checkpoint.kind_of(path_of(name)) not in ("autoencoder, 16 channels", None) or "flux2" in word:
        return None
    return 1 if PurePosixPath(word).stem == "ae" else 2 if "flux" in word else None


_RANKS = {"diffusion_model": _flux_rank, "clip_l": _clip_rank, "t5xxl": _t5_rank, "vae": _vae_rank}


def _plain(name: str) -> str:
    return name.replace("\\", "/").lower()


def _is(name: str, file: File) -> bool:
    return PurePosixPath(_plain(name)).name == file.name
