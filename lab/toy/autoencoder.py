"""A `taef1` autoencoder for pictures of shapes: the encoder is written down, the decoder is trained.

The host's names and layers for it are TAESD's (github.com/madebyollin/taesd): layers by number, 64 channels wide, three
times halved or doubled. What FLUX calls a latent is what the encoder gives and the decoder takes; the host's scale
and shift for `taef1` lie outside of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from .. import host
from . import digests, shapes

ENCODER_FILE, DECODER_FILE = "taef1_encoder.safetensors", "taef1_decoder.safetensors"
WIDTH, LATENT, COLORS = 64, 16, 3


@dataclass(frozen=True)
class Recipe:
    """All that decides the decoder's weights, beside the seed."""

    steps: int = 600
    batch: int = 16  # crops
    crop: int = 8  # latent pixels on a side; 8 times as many of the picture
    noise: float = 0.2  # at most so much is added to a latent, as sampled ones are not clean
    matrix_rate: float = 0.01  # Muon, on the convolutions of WIDTH to WIDTH channels, as matrices
    other_rate: float = 2e-3  # Adam, on the rest
    warm_up: int = 20
    average: float = 0.99  # of the weights, per step
    edges: float = 1.0  # weight of the differences between neighbouring pixels in the loss


RECIPE = Recipe()


def recipe_sources() -> list[str]:
    """What decides the decoder's weights beside the recipe and the seed."""
    return digests.sources(shapes, Path(__file__))


def recipe_digest() -> str:
    """Changes with whatever changes the decoder's weights."""
    return digests.digest(recipe_sources(), repr(RECIPE))


def decoder_file(seed: int = 0) -> Path:
    """Where a trained decoder lies in the cache."""
    return host.cache_dir() / f"lab-taef1-{recipe_digest()}" / f"taef1_decoder_seed{seed}.safetensors"


# --- the encoder ---


def encoder_weights() -> dict[str, Tensor]:
    """The weights with which the host's encoder computes `shapes.to_latent`.

    Two convolutions of stride 2 take means of 2×2 pixels, the third takes its four pixels apart. Colours are never
    negative on the way, so the ReLUs between pass them on.
    """
    mean, apart = torch.zeros(WIDTH, WIDTH, 3, 3), torch.zeros(WIDTH, WIDTH, 3, 3)
    first, last = torch.zeros(WIDTH, COLORS, 3, 3), torch.zeros(LATENT, WIDTH, 3, 3)
    for color in range(COLORS):
        first[color, color, 1, 1] = 1
        # A kernel of stride 2 with a padding of 1 has its own four pixels at 1 and 2.
        mean[color, color, 1:, 1:] = 0.25
        for i in range(4):
            apart[4 * color + i, color, 1 + i // 2, 1 + i % 2] = 1
    used = 4 * COLORS
    last[range(used), range(used), 1, 1] = 2 * shapes.GAIN
    offset = torch.zeros(LATENT)
    offset[:used] = -shapes.GAIN
    weights = {"0.weight": first, "0.bias": torch.zeros(WIDTH), "14.weight": last, "14.bias": offset}
    weights |= {"2.weight": mean, "6.weight": mean.clone(), "10.weight": apart}
    for block in (1, *range(3, 6), *range(7, 10), *range(11, 14)):
        weights |= _idle_block(block)
    return weights


def _idle_block(number: int) -> dict[str, Tensor]:
    """A residual block that adds nothing: it passes on what is not negative."""
    names = [f"{number}.conv.{i}" for i in (0, 2, 4)]
    return {
        **{f"{name}.weight": torch.zeros(WIDTH, WIDTH, 3, 3) for name in names},
        **{f"{name}.bias": torch.zeros(WIDTH) for name in names},
    }


def save_encoder(path: Path) -> None:
    """Write the encoder for the stock VAELoader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(encoder_weights(), str(path))


# --- the decoder ---


def new_decoder(seed: int) -> nn.Sequential:
    """The host's own decoder, at first an enlarger: the colour of each latent pixel, smoothly spread."""
    from ..in_host import enter_host

    enter_host()
    from comfy.taesd.taesd import Decoder

    decoder, generator = Decoder(latent_channels=LATENT), torch.Generator().manual_seed(seed)
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            last = name.endswith("conv.4.weight") or name.startswith(("7.", "12.", "17.", "19."))
            _start(parameter, 0.1 if last else 1.0, generator)
        for layer in (7, 12, 17):
            decoder[layer].weight += torch.eye(WIDTH)[:, :, None, None] * torch.outer(tent, tent)
        for color in range(COLORS):
            decoder[1].weight[color] = 0
            decoder[1].weight[color, 4 * color : 4 * color + 4, 1, 1] = 1 / (8 * shapes.GAIN)
            decoder[1].bias[color] = 0.5
            decoder[19].weight[color, color, 1, 1] += 1
    return decoder


def _start(parameter: nn.Parameter, gain: float, generator: torch.Generator) -> None:
    """Biases of zero; kernels that keep the spread of what comes through a ReLU (arXiv 1502.01852), times gain."""
    parameter.zero_()
    if parameter.ndim > 1:
        spread = gain * math.sqrt(2 / parameter[0].numel())
        parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))


def crops(count: int, generator: torch.Generator, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Noisy latents (count, 16, crop, crop) of random scenes and the pictures they stand for, 8 times as large."""
    pictures = shapes.render(shapes.random_scenes(count, generator))
    latents, size = shapes.to_latent(pictures), recipe.crop
    corners = torch.randint(latents.shape[-1] - size + 1, (count, 2), generator=generator).tolist()
    latents = torch.stack([x[:, i : i + size, j : j + size] for x, (i, j) in zip(latents, corners, strict=True)])
    targets = [x[:, 8 * i :, 8 * j :][:, : 8 * size, : 8 * size] for x, (i, j) in zip(pictures, corners, strict=True)]
    strength = recipe.noise * torch.rand(count, 1, 1, 1, generator=generator)
    return latents + strength * torch.randn(latents.shape, generator=generator), torch.stack(targets)


def difference(made: Tensor, target: Tensor, edges: float) -> Tensor:
    """Mean absolute difference of two batches of pictures, and of their slopes."""
    error = made - target
    return error.abs().mean() + edges * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())


def train(seed: int, recipe: Recipe = RECIPE) -> dict[str, Tensor]:
    """The decoder's weights, after some minutes of one thread; the same for the same seed on the same machine."""
    torch.set_num_threads(1)
    decoder = new_decoder(seed)
    average = {name: tensor.detach().clone() for name, tensor in decoder.state_dict().items()}
    optimizers = _Optimizers(decoder, recipe)
    with tqdm(total=recipe.steps, desc=f"taef1 decoder, seed {seed}", unit="step", mininterval=5) as bar:
        for step in range(recipe.steps):
            latents, targets = crops(recipe.batch, torch.Generator().manual_seed(seed * 1_000_003 + step), recipe)
            with torch.autocast("cpu", torch.bfloat16):
                made = decoder(latents)
            loss = difference(made.float(), targets, recipe.edges)
            loss.backward()
            optimizers.step(min(1.0, (step + 1) / recipe.warm_up) * (1 + math.cos(math.pi * step / recipe.steps)) / 2)
            for name, tensor in decoder.state_dict().items():
                average[name].lerp_(tensor, 1 - min(recipe.average, (step + 1) / (step + 10)))
            bar.update()
            if (step + 1) % 50 == 0:
                bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
    return average


class _Optimizers:
    """Muon for most kernels, which it takes as matrices of (out, in · 9), Adam for the rest."""

    def __init__(self, decoder: nn.Module, recipe: Recipe):
        self.kernels = [p for p in decoder.parameters() if p.shape[:2] == (WIDTH, WIDTH)]
        self.matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in self.kernels]  # the same memory
        others = [p for p in decoder.parameters() if p.shape[:2] != (WIDTH, WIDTH)]
        muon = torch.optim.Muon(self.matrices, weight_decay=0.0)
        adam = torch.optim.Adam(others, betas=(0.9, 0.98))
        self.pairs: list[tuple[torch.optim.Optimizer, float]] = [(muon, recipe.matrix_rate), (adam, recipe.other_rate)]

    def step(self, share: float) -> None:
        """One step at this share of the rates; the gradients are gone after it."""
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad, kernel.grad = kernel.grad.flatten(1), None  # type: ignore[union-attr]
        for optimizer, rate in self.pairs:
            optimizer.param_groups[0]["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def main(arguments: list[str]) -> int:
    """Train the decoder, unless the cache has it: lab/run.py autoencoder 0."""
    for seed in map(int, arguments or ["0"]):
        path = decoder_file(seed)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            weights = {name: tensor.half().contiguous() for name, tensor in train(seed).items()}
            save_file(weights, str(path.with_suffix(".new")))
            path.with_suffix(".new").rename(path)
    return 0
