"""Train small FLUX models on pictures of shapes: one recipe, the same weights for the same seed on the same machine.

One thread a model, so that the sums come out in the same order wherever it runs; several seeds run side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from .. import host
from . import digests, flux, shapes, small_models
from .flux import Flux

POOL, POOL_SEED = 32_768, 1_000
SHAPES_FILE = "flux_shapes.safetensors"


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, beside the seed."""

    steps: int = 2_400
    early_step: int = 1_200  # a state kept on the way, at which structure fails more often
    batch: int = 64
    matrix_rate: float = 0.012  # Muon, on the blocks' matrices
    other_rate: float = 2e-3  # AdamW, on the rest
    warm_up: int = 50
    average: float = 0.998  # of the weights, per step
    no_prompt: float = 0.1  # share of pictures shown with an empty prompt, for classifier-free guidance


RECIPE = Recipe()


def recipe_sources() -> list[str]:
    """What decides the weights beside the recipe and the seed."""
    return digests.sources(shapes, flux, Path(__file__))


def recipe_digest() -> str:
    """Changes with whatever changes the weights."""
    return digests.digest(recipe_sources(), repr(RECIPE))


def checkpoint(seed: int, early: bool = False) -> Path:
    """Where a trained model lies in the cache."""
    step = RECIPE.early_step if early else RECIPE.steps
    return host.cache_dir() / f"lab-{recipe_digest()}" / f"flux_shapes_seed{seed}_step{step}.safetensors"


# --- data ---


def caption_ids(captions: list[str]) -> Tensor:
    """Captions as the host's CLIP-L tokenizer gives them, (captions, 77)."""
    from ..in_host import enter_host

    enter_host()
    from comfy.sd1_clip import SDTokenizer

    tokenizer = SDTokenizer()
    rows = [[token for token, _ in tokenizer.tokenize_with_weights(text)[0]] for text in captions]
    return torch.tensor(rows, dtype=torch.int32)


def embed(ids: Tensor) -> Tensor:
    """What the small CLIP-L makes of token ids, (captions, 77, 768): its layers pass its embeddings on as they are."""
    clip = load_file(small_models.ensure_models() / small_models.CLIP_FILE)
    tokens = clip["text_model.embeddings.token_embedding.weight"].float()
    return tokens[ids.long()] + clip["text_model.embeddings.position_embedding.weight"].float()


def training_pool() -> dict[str, Tensor]:
    """latents (POOL, 16, 16, 16) and the captions' token ids (POOL, 77), made once; the last row's ids are of ""."""
    folder = host.cache_dir() / f"lab-pool-{digests.digest(digests.sources(shapes))}"
    host.make_once(folder, _make_pool)
    return load_file(folder / "pool.safetensors")


def _make_pool(folder: Path) -> None:
    scenes = shapes.random_scenes(POOL, torch.Generator().manual_seed(POOL_SEED))
    parts = [scenes[i : i + 64] for i in range(0, POOL, 64)]
    latents = [shapes.to_latent(shapes.render(part)).bfloat16() for part in tqdm(parts, desc="pictures")]
    ids = caption_ids([*(scene.caption for scene in scenes), ""])
    save_file({"latents": torch.cat(latents), "ids": ids}, str(folder / "pool.safetensors"))


# --- training ---


def train(seed: int, recipe: Recipe = RECIPE) -> None:
    """Train one model and write its states; goes on from where an earlier call was stopped."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    pool = training_pool()
    used = pool["ids"].unique()
    table = _Table(used, pool["ids"])
    model = Flux()
    average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    optimizers = _optimizers(model, recipe)
    progress = checkpoint(seed).with_suffix(".progress")
    progress.parent.mkdir(parents=True, exist_ok=True)
    first = _resume(progress, model, average, optimizers) if progress.exists() else 0
    with tqdm(total=recipe.steps, initial=first, desc=f"seed {seed}", unit="step", mininterval=5) as bar:
        for step in range(first, recipe.steps):
            loss = _step(model, optimizers, pool["latents"], table, step, seed, recipe)
            _follow(average, model, min(recipe.average, (step + 1) / (step + 10)))
            bar.update()
            if (step + 1) in (recipe.early_step, recipe.steps):
                _save_for_host(model, average, checkpoint(seed, early=step + 1 == recipe.early_step))
            if (step + 1) % 100 == 0:
                bar.set_postfix(loss=f"{loss:.4f}")
                _keep(progress, step + 1, model, average, optimizers)
    progress.unlink()


class _Table:
    """The embeddings of the tokens and positions that occur, so that a batch costs a look-up."""

    def __init__(self, used: Tensor, ids: Tensor):
        clip = load_file(small_models.ensure_models() / small_models.CLIP_FILE)
        self.tokens = clip["text_model.embeddings.token_embedding.weight"][used.long()].float()
        self.positions = clip["text_model.embeddings.position_embedding.weight"].float()
        self.ids = torch.searchsorted(used, ids)

    def __call__(self, rows: Tensor) -> Tensor:
        return self.tokens[self.ids[rows]] + self.positions


def _optimizers(model: Flux, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        in_block = "_blocks." in name and parameter.ndim == 2 and "mod.lin" not in name and "modulation" not in name
        (matrices if in_block else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _step(
    model: Flux,
    optimizers: list[torch.optim.Optimizer],
    latents: Tensor,
    table: _Table,
    step: int,
    seed: int,
    recipe: Recipe,
) -> float:
    # A generator for each step, so that a resumed run sees what an unbroken one sees.
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    rows = torch.randint(len(latents), (recipe.batch,), generator=generator)
    x0 = latents[rows].float()
    noise = torch.randn(x0.shape, generator=generator)
    sigma = torch.randn(recipe.batch, generator=generator).sigmoid()
    rows[torch.rand(recipe.batch, generator=generator) < recipe.no_prompt] = len(latents)
    x = x0 + sigma[:, None, None, None] * (noise - x0)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(x, sigma, table(rows))
    loss = (velocity.float() - (noise - x0)).square().mean()
    loss.backward()
    rate = min(1.0, (step + 1) / recipe.warm_up) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    for optimizer, base in zip(optimizers, (recipe.matrix_rate, recipe.other_rate), strict=True):
        optimizer.param_groups[0]["lr"] = base * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _follow(average: dict[str, Tensor], model: Flux, keep: float) -> None:
    for name, tensor in model.state_dict().items():
        average[name].lerp_(tensor, 1 - keep)


def _save_for_host(model: Flux, average: dict[str, Tensor], path: Path) -> None:
    averaged = Flux(model.sizes)
    averaged.load_state_dict(average)
    state = {name: tensor.bfloat16().contiguous() for name, tensor in averaged.state_dict_for_host().items()}
    save_file(state, str(path))


def _keep(path: Path, step: int, model: Flux, average: dict, optimizers: list[torch.optim.Optimizer]) -> None:
    state = {"step": step, "model": model.state_dict(), "average": average}
    torch.save({**state, "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def _resume(path: Path, model: Flux, average: dict, optimizers: list[torch.optim.Optimizer]) -> int:
    state = torch.load(path)
    model.load_state_dict(state["model"])
    for name, tensor in state["average"].items():
        average[name].copy_(tensor)
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return state["step"]


def main(arguments: list[str]) -> int:
    """Train the seeds that are named: lab/run.py training 0 1."""
    for seed in arguments or ["0"]:
        if not checkpoint(int(seed)).exists():
            train(int(seed))
    return 0
