"""A small CNN that reads one quadrant of a small picture: which shape, which colour, or broken.

Its weights lie in the repo; `python3 lab/host.py run lab/run.py judge_cnn` makes them anew in about five minutes of one
thread. Where they are not of this recipe, those in the cache are taken, and trained once.
"""

from __future__ import annotations

import inspect
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .. import host
from ..toy import digests, shapes
from . import judge_lessons
from .judge_lessons import BROKEN, NO_COLOR, NO_SHAPE, Lessons

SHIPPED = Path(__file__).with_name("judge.safetensors")
PER_QUADRANT = 16  # features


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, beside the code that `recipe_digest` reads."""

    scenes: int = 14_000
    seed: int = 2_000  # of scenes, weights and batches; the models learn from 1,000 on, evidence asks from 3,000 on
    steps: int = 3_000
    batch: int = 256
    rate: float = 3e-3


RECIPE = Recipe()


def recipe_sources() -> list[str]:
    """What is learned from, the network and its training."""
    return [*digests.sources(judge_lessons, shapes), *(inspect.getsource(part) for part in (Judge, train, _loss))]


def recipe_digest(recipe: Recipe = RECIPE) -> str:
    """Changes with whatever changes the weights."""
    return digests.digest(recipe_sources(), repr(recipe))


class Judge(nn.Module):
    """Quadrants (n, 3, SIDE, SIDE) in [0, 1] to features (n, PER_QUADRANT), and those to what is there.

    The features also have to tell the object's centre and radius and the background, so that distances between them
    see more than the caption's words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, PER_QUADRANT)),
        )
        self.shape = nn.Linear(PER_QUADRANT, BROKEN + 1)
        self.color = nn.Linear(PER_QUADRANT, NO_COLOR + 1)
        self.geometry = nn.Linear(PER_QUADRANT, 3)
        self.background = nn.Linear(PER_QUADRANT, len(shapes.BACKGROUNDS))

    def forward(self, quadrants: Tensor) -> Tensor:
        return self.trunk(2 * quadrants - 1)


# --- training and keeping ---


def train(recipe: Recipe = RECIPE) -> Judge:
    """The same weights for the same recipe on the same machine; some minutes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        judge = Judge()
    lessons = Lessons.of(recipe.scenes, recipe.seed)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=recipe.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    with tqdm(range(recipe.steps), desc="judge", unit="step", mininterval=5) as bar:
        for step in bar:
            lesson = lessons.batch(recipe.batch)
            with torch.autocast("cpu", torch.bfloat16):
                loss = _loss(judge, *lesson)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 100 == 99:
                bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    torch.set_num_threads(threads)
    return judge.eval()


def _loss(judge: Judge, quadrants: Tensor, truth: dict[str, Tensor]) -> Tensor:
    features = judge(quadrants.contiguous(memory_format=torch.channels_last))
    heads = {name: getattr(judge, name)(features) for name in truth}
    loss = sum(functional.cross_entropy(heads[name], truth[name]) for name in ("shape", "color"))
    whole = truth["shape"].lt(NO_SHAPE) & truth["shape"].ge(0)
    far = (heads["geometry"] - truth["geometry"]).square().mean(1)
    return loss + 0.1 * functional.cross_entropy(heads["background"], truth["background"]) + 0.1 * far[whole].mean()


def shipped_recipe() -> str:
    """The digest of the recipe that made the shipped weights; "" where there are none."""
    if not SHIPPED.exists():
        return ""
    with safe_open(str(SHIPPED), "pt") as file:
        return (file.metadata() or {}).get("recipe", "")


@cache
def load() -> Judge:
    """The judge of this recipe: shipped, or from the cache, where it is trained once."""
    path = SHIPPED if shipped_recipe() == recipe_digest() else _trained()
    judge = Judge()
    judge.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return judge.eval()


def _trained() -> Path:
    folder = host.cache_dir() / f"judge-{recipe_digest()}"
    if not folder.exists():
        # Before the cache is locked, as every start of a host waits for that lock.
        state = {name: tensor.half().contiguous() for name, tensor in train().state_dict().items()}
        kept = {"recipe": recipe_digest()}
        host.make_once(folder, lambda made: save_file(state, str(made / SHIPPED.name), kept))
    return folder / SHIPPED.name


def main(_: list[str]) -> int:
    """Put the judge of this recipe into the repo, trained here if the cache has none."""
    shutil.copyfile(_trained(), SHIPPED)
    return 0
