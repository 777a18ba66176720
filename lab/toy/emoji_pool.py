"""The pictures of emoji that a small FLUX learns from, made once and kept in the cache."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from .. import host
from . import digests, emoji, emoji_art, shapes, training

POOL, POOL_SEED = 32_768, 1_200
FILE = "pool.safetensors"


def digest() -> str:
    """Changes with whatever changes the pictures or their captions."""
    sources = digests.sources(emoji, emoji_art, Path(__file__))
    return digests.digest(
        [*sources, inspect.getsource(shapes.to_latent)], f"{shapes.GAIN} {emoji_art.PINS.read_text()}"
    )


def training_pool() -> dict[str, Tensor]:
    """latents (POOL, 16, 16, 16) and the captions' token ids (POOL + 1, 77); the last row's ids are of "".

    Of combinations that are not held out. What the first call fetches and raises: see `emoji_art.drawings`.
    """
    folder = host.cache_dir() / f"lab-pool-{digest()}"
    if not folder.exists():
        emoji.drawings()  # before the cache is locked, as these lock it themselves
        host.make_once(folder, _make_pool)
    return load_file(folder / FILE)


def _make_pool(folder: Path) -> None:
    scenes = emoji.random_scenes(POOL, torch.Generator().manual_seed(POOL_SEED))
    parts = [scenes[i : i + 64] for i in range(0, POOL, 64)]
    latents = [emoji.to_latent(emoji.render(part)).bfloat16() for part in tqdm(parts, desc="pictures")]
    ids = training.caption_ids([*(scene.caption for scene in scenes), ""])
    save_file({"latents": torch.cat(latents), "ids": ids}, str(folder / FILE))
