"""A small CNN that reads a small picture of an emoji: which concept, or broken; which vendor, place, size and ground.

It is trained where it is first asked for, in some minutes of one thread, and kept in the cache: its weights hold what
others drew, so the repo has none.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .. import host
from ..toy import digests, emoji, emoji_art
from . import emoji_lessons
from .emoji_lessons import BROKEN, Lessons

FEATURES = 64
FILE = "judge.safetensors"


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, beside the code that `recipe_digest` reads."""

    scenes: int = 16_000
    seed: int = 2_000  # of scenes, weights and batches; the models learn from 1,000 on, evidence asks from 3,000 on
    steps: int = 2_600
    batch: int = 96
    rate: float = 4e-3


RECIPE = Recipe()


def recipe_sources() -> list[str]:
    """What is learned from, the network and its training."""
    parts = (Judge, train, _loss)
    return [*digests.sources(emoji_lessons, emoji, emoji_art), *(inspect.getsource(part) for part in parts)]


def recipe_digest(recipe: Recipe = RECIPE) -> str:
    """Changes with whatever changes the weights."""
    return digests.digest(recipe_sources(), f"{recipe!r} {emoji_art.PINS.read_text()}")


class Judge(nn.Module):
    """Small pictures (n, 3, 32, 32) in [0, 1] to features (n, FEATURES), and those to each part of what is shown.

    What is shown is read off the strongest answers anywhere, so that one place teaches all; where, off the map of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_layer(3, 64, 5, stride=2),
            *_layer(64, 64),
            *_layer(64, 96, stride=2),
            *_layer(96, 128),
            *_layer(128, 192, stride=2),
            *_layer(192, 192),
        )
        self.where = nn.Sequential(nn.Conv2d(192, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 32), nn.ReLU())
        self.features = nn.Linear(192 + 32, FEATURES)
        sizes = {part: len(names) for part, names in emoji.PARTS.items()} | {"concept": BROKEN + 1}
        self.heads = nn.ModuleDict({part: nn.Linear(FEATURES, size) for part, size in sizes.items()})

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.trunk(2 * pictures - 1)
        return self.features(torch.cat((maps.amax((2, 3)), self.where(maps)), 1))


def _layer(inn: int, out: int, width: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inn, out, width, stride=stride, padding=width // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out), nn.ReLU()]


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
    with tqdm(range(recipe.steps), desc="judge of emoji", unit="step", mininterval=5) as bar:
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


def _loss(judge: Judge, pictures: Tensor, truth: dict[str, Tensor]) -> Tensor:
    features = judge(pictures.contiguous(memory_format=torch.channels_last))
    weights = {"concept": 1.0, "vendor": 1.0, "place": 0.2, "size": 0.2, "ground": 0.2}
    losses = (
        weight * functional.cross_entropy(judge.heads[part](features).float(), truth[part])
        for part, weight in weights.items()
    )
    return torch.stack(list(losses)).sum()


@cache
def load() -> Judge:
    """The judge of this recipe, trained once."""
    judge = Judge()
    judge.load_state_dict({name: tensor.float() for name, tensor in load_file(_trained()).items()})
    return judge.eval()


def _trained() -> str:
    folder = host.cache_dir() / f"judge-emoji-{recipe_digest()}"
    if not folder.exists():
        # Before the cache is locked, as every start of a host waits for that lock.
        state = {name: tensor.half().contiguous() for name, tensor in train().state_dict().items()}
        host.make_once(folder, lambda made: save_file(state, str(made / FILE)))
    return str(folder / FILE)
