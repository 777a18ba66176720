"""Sample the trained models through the host's own sampler, many prompts in a batch."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..in_host import enter_host
from ..toy import shapes, training

STEPS, BATCH = 12, 64
LATENT = (16, 16, 16)  # channels, height, width of a latent of 128×128 pixels


@cache
def load(path: Path, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A trained model as the stock UNETLoader gives it with the weight_dtype for this type."""
    enter_host()
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype})


def conditioning(captions: list[str]) -> list:
    """A CONDITIONING of one prompt for each row of a batch, as CLIPTextEncode and FluxGuidance give it."""
    return conditioning_of(_features(tuple(captions)))


def conditioning_of(features: Tensor, guidance: float = 3.5) -> list:
    """A CONDITIONING of a text encoder's features (prompts, 77, 768), a prompt for each row of a batch."""
    # The host's text path pads CLIP-L's 768 features to T5's 4096.
    context = pad(features, (0, 4096 - 768)).bfloat16()
    return [[context, {"pooled_output": torch.zeros(1, 768), "guidance": guidance}]]


@lru_cache(8)
def _features(captions: tuple[str, ...]) -> Tensor:
    # One contender after the other asks for the same prompts, and each time the whole encoder would be read.
    return training.embed(training.caption_ids(list(captions)))


def sample(
    model: Any, positive: list, negative: list, seeds: list[int], cfg: float = 1.0, steps: int = STEPS
) -> Tensor:
    """The small pictures of `shapes.from_latent`, (seeds, 3, 32, 32), of one batch; Euler on the simple schedule.

    positive, negative: a CONDITIONING of a prompt for each row, or of one for all. seeds: of each row's noise, so that
    a picture does not depend on what it shares a batch with.
    """
    import comfy.sample

    noise = torch.stack([torch.randn(LATENT, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    empty = torch.zeros(len(seeds), *LATENT)
    latents = comfy.sample.sample(
        model, noise, steps, cfg, "euler", "simple", positive, negative, empty, disable_pbar=True, seed=seeds[0]
    )
    return shapes.from_latent(model.model.latent_format.process_in(latents.float()))
