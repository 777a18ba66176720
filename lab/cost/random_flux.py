"""A FLUX of any size with random weights, made on the device itself, and its sampling step by step, timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """hidden: a multiple of 128, the size of a head. text: tokens of the prompt. latent: its height and width."""

    hidden: int
    doubles: int
    singles: int
    context: int
    pooled: int
    text: int
    latent: int

    @property
    def picture(self) -> int:
        """The picture's tokens."""
        return (self.latent // 2) ** 2


FULL = Sizes(hidden=3072, doubles=19, singles=38, context=4096, pooled=768, text=512, latent=128)  # at 1024×1024


def random_flux(sizes: Sizes, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A ComfyUI MODEL of FLUX.1 [dev]'s kind that lies on the device from the start and stays there."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.Flux(_unet_config(sizes))
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=device)
    _fill(model.diffusion_model, device)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def _unet_config(sizes: Sizes) -> dict[str, Any]:
    """What the host's loader reads from a FLUX.1 [dev] checkpoint of these sizes."""
    return dict(
        image_model="flux",
        guidance_embed=True,
        in_channels=16,
        out_channels=16,
        patch_size=2,
        hidden_size=sizes.hidden,
        num_heads=sizes.hidden // 128,
        axes_dim=[16, 56, 56],
        theta=10000,
        mlp_ratio=4.0,
        qkv_bias=True,
        depth=sizes.doubles,
        depth_single_blocks=sizes.singles,
        context_in_dim=sizes.context,
        vec_in_dim=sizes.pooled,
        txt_ids_dims=[],
    )


def _fill(flux: torch.nn.Module, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in flux.named_parameters():
        if "norm" in name:
            weight.data.fill_(1.0)
        else:
            std = 0.5 / weight.shape[1] ** 0.5 if weight.ndim == 2 else 0.02
            weight.data.normal_(std=std, generator=generator)


def step_seconds(model: Any, sizes: Sizes, steps: int, cfg: float = 1.0) -> list[float]:
    """Sample by Euler's method through the host's guider; what each step took, in seconds."""
    latent = torch.zeros(1, 16, sizes.latent, sizes.latent)
    return sampled_seconds(model, latent, (_prompt(sizes, 1), _prompt(sizes, 2)), steps, cfg)


def sampled_seconds(
    model: Any, latent: Tensor, prompts: tuple[list, list], steps: int, cfg: float = 1.0
) -> list[float]:
    """The same of any MODEL that predicts a flow. prompts: the prompt and the negative one."""
    import comfy.sample
    import comfy.samplers

    seconds: list[float] = []
    sampler = comfy.samplers.KSAMPLER(_timed_euler(seconds, model.load_device))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    what = (comfy.sample.prepare_noise(latent, 0), cfg, sampler, sigmas, *prompts, latent)
    samples = comfy.sample.sample_custom(model, *what, disable_pbar=True, seed=0)
    if not all(torch.isfinite(sample).all() for sample in samples.unbind()):
        raise FloatingPointError("the random model's sampling is not finite: its time would tell nothing")
    return seconds


def _prompt(sizes: Sizes, seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, sizes.text, sizes.context, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, sizes.pooled, generator=generator), "guidance": 3.5}]]


def _timed_euler(seconds: list[float], device: torch.device) -> Callable:
    @torch.no_grad()  # as the host's own samplers are
    def sampler(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Any, disable: bool) -> Tensor:
        for sigma, following in itertools.pairwise(sigmas.tolist()):
            start = now(device)
            velocity = (x - model(x, x.new_full((x.shape[0],), sigma), **extra_args)) / sigma
            x = x + velocity * (following - sigma)
            seconds.append(now(device) - start)
        return x

    return sampler


def now(device: torch.device) -> float:
    """The time when the device has done all it was given, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
