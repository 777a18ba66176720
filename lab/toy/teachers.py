"""Train small FLUX models in FLUX.1's proportions on any set of pictures: one recipe, deterministic for each seed.

First a narrow model on pictures of half the size, whose composition costs less than half to learn from, then on whole
ones; then as one of twice the width (`growth`), which goes on from what that had learned. One thread a model; several
run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from .. import host
from . import digests, flux, growth, pictures, proportioned
from .flux import Sizes
from .pictures import Pictures, Table, words_of
from .proportioned import SIZES, ProportionedFlux


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights of one width, beside the pictures, the seed and the weights that it begins with."""

    sizes: Sizes = SIZES
    steps: int = 1_000
    half_steps: int = 0  # the first of them, on pictures of half the size
    batch: int = 32
    half_batch: int = 64
    matrix_rate: float = 0.015  # Muon, on the blocks' matrices
    other_rate: float = 2e-3  # AdamW, on the rest
    warm_up: int = 50
    fall: float = 0.8  # the last part of the steps, in which the rates fall to zero
    average: float = 0.99  # of the weights, per step
    noisier: float = 0.5  # mean of the noise level's logit
    no_prompt: float = 0.1  # share of pictures shown with an empty prompt, for classifier-free guidance

    def rate(self, step: int) -> float:
        """What multiplies the rates at this step."""
        falling = (1 - step / self.steps) / self.fall if self.fall else 1.0
        return min(1.0, (step + 1) / self.warm_up, falling)


@dataclass(frozen=True)
class Growth:
    """A training: at half of the width, then at the whole one."""

    narrow: Recipe = Recipe(replace(SIZES, hidden=SIZES.hidden // 2), steps=3_900, half_steps=900, fall=0.0)
    wide: Recipe = Recipe()


GROWTH = Growth()


def recipe_sources() -> list[str]:
    """What decides the weights beside the recipes, the pictures and the seed."""
    return digests.sources(flux, proportioned, growth, pictures, Path(__file__))


def recipe_digest(recipes: Growth = GROWTH) -> str:
    """Changes with whatever changes the weights."""
    return digests.digest(recipe_sources(), repr(recipes))


def checkpoint(learned: Pictures | tuple[str, str], seed: int, recipes: Growth = GROWTH) -> Path:
    """Where a trained model lies in the cache. learned: the pictures, or their name and digest."""
    name, digest = learned if isinstance(learned, tuple) else (learned.name, learned.digest)
    folder = host.cache_dir() / f"lab-{name}-{digests.digest((), digest + recipe_digest(recipes))}"
    return folder / f"flux_{name}_seed{seed}.safetensors"


# --- what a step sees ---


@dataclass(frozen=True)
class Batch:
    """x: noised latents; sigma: (batch,); noise, x0: like x; rows: of the captions; stride: see ProportionedFlux."""

    x: Tensor
    sigma: Tensor
    noise: Tensor
    x0: Tensor
    rows: Tensor
    stride: int = 1


def draw(learned: Pictures, step: int, seed: int, recipe: Recipe) -> Batch:
    """The batch of a step; a generator for each step, so that a resumed run sees what an unbroken one sees."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    stride = 2 if step < recipe.half_steps else 1
    size = recipe.half_batch if stride == 2 else recipe.batch
    rows = torch.randint(len(learned.latents), (size,), generator=generator)
    x0 = halved(learned.latents[rows].float()) if stride == 2 else learned.latents[rows].float()
    noise = torch.randn(x0.shape, generator=generator)
    sigma = (recipe.noisier + torch.randn(size, generator=generator)).sigmoid()
    rows[torch.rand(size, generator=generator) < recipe.no_prompt] = len(learned.latents)
    # Of four pixels' mean the noise is half as strong: a picture made smaller gets as much less of it.
    mixed = (sigma / (stride - (stride - 1) * sigma))[:, None, None, None]
    return Batch(x0 + mixed * (noise - x0), sigma, noise, x0, rows, stride)


def halved(latents: Tensor) -> Tensor:
    """Latents whose first 12 channels are 2×2 RGB pixels, of the picture at half the size; the other channels halved.

    latents: (n, 16, height, width).
    """
    small = functional.avg_pool2d(functional.pixel_shuffle(latents[:, :12], 2), 2)
    rest = functional.avg_pool2d(latents[:, 12:], 2)
    return torch.cat((functional.pixel_unshuffle(small, 2), rest), dim=1)


# --- training ---


@dataclass
class Training:
    """A model on its way: what it is, the average of its weights, its optimizers; all that is kept to go on from."""

    model: ProportionedFlux
    recipe: Recipe
    average: dict[str, Tensor] = field(default_factory=dict)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.optimizers = optimizers_of(self.model, self.recipe)

    def update(self, loss: Tensor, step: int) -> None:
        """One step of gradient descent."""
        loss.backward()
        recipe = self.recipe
        rate = recipe.rate(step)
        for optimizer, base in zip(self.optimizers, (recipe.matrix_rate, recipe.other_rate), strict=True):
            optimizer.param_groups[0]["lr"] = base * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        keep = min(recipe.average, (step + 1) / (step + 10))
        for name, tensor in self.model.state_dict().items():
            self.average[name].lerp_(tensor, 1 - keep)

    def keep(self, path: Path, step: int) -> None:
        """Write what is needed to go on from this step."""
        state = {"step": step, "model": self.model.state_dict(), "average": self.average}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    def resume(self, path: Path) -> int:
        """Go on from what was kept, if anything was; the step that comes next."""
        if not path.exists():
            return 0
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        return state["step"]

    def save(self, path: Path) -> None:
        """Write the average for the stock UNETLoader."""
        averaged = ProportionedFlux(self.model.sizes, self.model.distilled)
        averaged.load_state_dict(self.average)
        save_file({k: v.bfloat16().contiguous() for k, v in averaged.state_dict_for_host().items()}, str(path))


def optimizers_of(model: ProportionedFlux, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices but those of their modulation, AdamW for the rest."""

    def is_matrix(name: str, parameter: Tensor) -> bool:
        return "_blocks." in name and parameter.ndim == 2 and "mod.lin" not in name and "modulation" not in name

    named = dict(model.named_parameters())
    matrices = [parameter for name, parameter in named.items() if is_matrix(name, parameter)]
    others = [parameter for name, parameter in named.items() if not is_matrix(name, parameter)]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(learned: Pictures, seed: int, recipes: Growth = GROWTH, target: Path | None = None) -> Path:
    """Train one model, or go on from where an earlier call was stopped; its file. The narrow one lies beside it."""
    target = target or checkpoint(learned, seed, recipes)
    if target.exists():
        return target
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    first = target.with_name(f"{target.stem}-narrow.safetensors")
    if not first.exists():
        _train(learned, seed, Training(ProportionedFlux(recipes.narrow.sizes), recipes.narrow), first)
    narrow = ProportionedFlux.from_host(load_file(first))
    wide = growth.widened(narrow, recipes.wide.sizes, torch.Generator().manual_seed(seed))
    return _train(learned, seed + 250, Training(wide, recipes.wide), target)


def _train(learned: Pictures, seed: int, training: Training, target: Path) -> Path:
    """seed: of the pictures and their noise."""
    table = Table(learned.ids, words_of(learned.ids))

    def loss_of(step: int) -> Tensor:
        batch = draw(learned, step, seed, training.recipe)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = training.model(batch.x, batch.sigma, table(batch.rows), stride=batch.stride)
        return (velocity.float() - (batch.noise - batch.x0)).square().mean()

    return follow(training, loss_of, target, target.stem)


def follow(training: Training, loss_of: Callable[[int], Tensor], target: Path, name: str) -> Path:
    """All steps of a training, kept every hundred; loss_of: the loss of a step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    progress, steps = target.with_suffix(".progress"), training.recipe.steps
    first = training.resume(progress)
    with tqdm(total=steps, initial=first, desc=name, unit="step", mininterval=5) as bar:
        for step in range(first, steps):
            loss = loss_of(step)
            training.update(loss, step)
            bar.update()
            if (step + 1) % 100 == 0:
                bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
                training.keep(progress, step + 1)
    training.save(target)
    progress.unlink(missing_ok=True)
    return target
