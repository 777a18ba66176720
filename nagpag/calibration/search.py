"""Find the blocks and the strength for a model by what it says itself (`recovery`), through the host's sampler."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from ..blocks import check_spec
from ..inputs.calibration import ALPHAS, CANDIDATES
from ..inputs.guidance import OFF
from ..inputs.kinds import shortened
from ..measure import Measured
from ..patch import apply_guidance, find_flux
from ..patch.families import refuse_guided
from ..settings import Settings
from .probe import predict
from .recovery import Losses, change, loss

STARTS = (0, 2, 3, 4, 6)  # eighths of the double blocks at which the candidates begin if none are named
MOST_CANDIDATES = 1000  # each draws a whole series of pictures
SEEDS = 2**64
PARTIAL = ("area", "mask", "start_percent", "end_percent")  # what makes an entry of a CONDITIONING hold for a part only
TEXT = ("pooled_output", "attention_mask")  # what an entry holds of its text beside the text itself
NOISING = 1_000_003  # from the seed of what is sampled to that of what noises it again


@dataclass(frozen=True)
class Candidate:
    """What is tried: a block spec and an alpha."""

    blocks: str
    alpha: float

    def __str__(self) -> str:
        return f"{self.blocks}, alpha {self.alpha:g}"


@dataclass(frozen=True)
class Tried:
    """A candidate and by how much more surely the model finds its prompts again."""

    candidate: Candidate
    change: Measured


@dataclass(frozen=True)
class Series:
    """A series of pictures to draw: `pictures` in all, by turns of the prompts.

    prompts: entries of a CONDITIONING, each a prompt of its own. empty: CONDITIONING of the empty prompt. latent:
    (batch, channels, height, width), as the model wants it; so many pictures are drawn at once, of this size. sigma:
    the noise level, in (0, 1], at which they are looked at. Raises ValueError where that can't be, where an entry holds
    for a part of the picture or of the sampling only, and where some prompts would not be drawn.
    """

    prompts: list
    empty: list
    latent: Tensor
    pictures: int
    steps: int
    seed: int
    sigma: float

    def __post_init__(self) -> None:
        if not self.prompts or not self.empty:
            raise ValueError(
                "NAG-PAG Calibrate: positive and empty need a prompt each; one of them is an empty CONDITIONING"
            )
        if self.pictures < 1 or self.steps < 1 or not 0 < self.sigma <= 1:
            raise ValueError(
                f"NAG-PAG Calibrate: pictures {self.pictures!r}, steps {self.steps!r}, sigma {self.sigma!r}; "
                "valid are at least 1, at least 1, and a number above 0 and up to 1"
            )
        if partial := [key for _, extras in (*self.prompts, *self.empty) for key in PARTIAL if key in extras]:
            raise ValueError(
                f"NAG-PAG Calibrate: a prompt holds for a part of the picture or of the sampling only "
                f"({', '.join(partial)}); "
                "each is drawn by itself, so give whole ones"
            )
        if self.number < len(self.prompts):
            raise ValueError(
                f"NAG-PAG Calibrate: {self.pictures} pictures, {len(self.latent)} at once, are {self.number} batches "
                f"of a prompt each, and there are {len(self.prompts)} prompts; raise pictures to "
                f"{len(self.prompts) * len(self.latent)} or lower the latent's batch size"
            )

    def batches(self) -> Iterator[tuple[list, Tensor, int]]:
        """A CONDITIONING of one prompt, the empty latent and the seed of the noise of each batch."""
        for i in range(self.number):
            start = i * len(self.latent)
            rows = min(len(self.latent), self.pictures - start)
            seed = (self.seed + i) % SEEDS
            yield [self.prompts[i % len(self.prompts)]], torch.zeros_like(self.latent[:rows]), seed

    @property
    def number(self) -> int:
        """How many batches that is."""
        return -(-self.pictures // len(self.latent))


def read_candidates(candidates: str, alphas: str, double_blocks: int | None = None) -> list[Candidate]:
    """Every block spec with every alpha. candidates: specs, one a line or with semicolons; none: `default_specs`.

    Raises ValueError that quotes what is no spec or no alpha, or says that it is too much. double_blocks: of the model,
    None before it is known.
    """
    if problems := [problem for problem in (CANDIDATES.problem(candidates), ALPHAS.problem(alphas)) if problem]:
        raise ValueError(f"NAG-PAG Calibrate: {'; '.join(problems)}")
    specs = [spec.strip() for spec in candidates.replace(";", "\n").splitlines() if spec.strip()]
    for spec in specs:
        check_spec(spec)
    specs, strengths = specs or default_specs(double_blocks or 8), _alphas(alphas)
    if (number := len(specs) * len(strengths)) > MOST_CANDIDATES:
        raise ValueError(
            f"NAG-PAG Calibrate: {len(specs)} candidates with {len(strengths)} alphas are {number} to try; "
            f"at most {MOST_CANDIDATES} are"
        )
    return [Candidate(spec, alpha) for spec in specs for alpha in strengths]


def _alphas(text: str) -> list[float]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(
            "NAG-PAG Calibrate: alphas is empty; write numbers from 0 to 1 with commas, such as 0.05, 0.15, 0.3"
        )
    return [_alpha(word) for word in words]


def _alpha(word: str) -> float:
    try:
        alpha = float(word)
    except ValueError:
        alpha = -1.0
    if not 0 < alpha <= 1:
        raise ValueError(f"NAG-PAG Calibrate: {shortened(word)} in alphas is not a number above 0 and up to 1")
    return alpha


def default_specs(double_blocks: int) -> list[str]:
    """The double blocks from some place on, where nothing is named: the first, a quarter, three eighths (auto) …"""
    firsts = dict.fromkeys(min(double_blocks * start // 8, double_blocks - 1) for start in STARTS)
    return [f"{first}-{double_blocks - 1}" for first in firsts]


def guided_by(model: Any, candidates: str, alphas: str, reach: str) -> dict[Candidate, Any]:
    """The model under every candidate; no negative prompt, and what is not named is at the node's defaults.

    model: a ComfyUI MODEL without NAG-PAG guidance. Raises ValueError for one that can't be guided or is guided already
    and for candidates that don't fit it.
    """
    found = read_candidates(candidates, alphas, len(find_flux(model).double_blocks))
    refuse_guided(model, "NAG-PAG Calibrate")
    return {one: apply_guidance(model, _settings(one, reach)) for one in found}


def _settings(one: Candidate, reach: str) -> Settings:
    return Settings(blocks=one.blocks, alpha=one.alpha, reach=reach, negative_prompt=OFF)


def compare(model: Any, guided: dict[Candidate, Any], series: Series, step: Callable[[], None]) -> list[Tried]:
    """Draw the prompts with and without guidance and ask the plain model what it finds in the pictures; best first.

    step: called at each of `steps_in_all`.
    """
    plain = _losses(model, model, series, step)
    tried = [Tried(one, change(_losses(model, drawing, series, step), plain)) for one, drawing in guided.items()]
    return sorted(tried, key=lambda one: -math.inf if math.isnan(one.change.value) else one.change.value, reverse=True)


def steps_in_all(series: Series, candidates: int) -> int:
    """How many steps `compare` takes, each of one batch."""
    return (candidates + 1) * series.number * series.steps


def _losses(model: Any, drawing: Any, series: Series, step: Callable[[], None]) -> Losses:
    """What the plain model makes of the pictures that `drawing` draws."""
    found = [_losses_of_batch(model, drawing, series, *batch, step) for batch in series.batches()]
    own, empty = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Losses(own, empty)


def _losses_of_batch(
    model: Any, drawing: Any, series: Series, prompt: list, latent: Tensor, seed: int, step: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    noise = comfy.sample.prepare_noise(latent, seed)
    pictures = comfy.sample.sample(
        drawing,
        noise,
        series.steps,
        1.0,
        "euler",
        "simple",
        prompt,
        prompt,
        latent,
        callback=lambda *_: step(),
        disable_pbar=True,
        seed=seed,
    )
    again, sigma = comfy.sample.prepare_noise(latent, (seed + NOISING) % SEEDS), torch.tensor([series.sigma])

    def loss_with(text: list) -> Tensor:
        # On the CPU: losses are summed in float64, which not every device has.
        return loss(*(found.cpu() for found in predict(model, text, pictures, again, sigma)))[0]

    return loss_with(prompt), loss_with(_without_text(prompt, series.empty))


def _without_text(prompt: list, empty: list) -> list:
    """The prompt's entry with the empty text; guidance, reference pictures and control stay: only the text differs."""
    (_, extras), (text, of_text) = prompt[0], empty[0]
    kept = {key: value for key, value in extras.items() if key not in TEXT}
    return [[text, {**kept, **{key: of_text[key] for key in TEXT if key in of_text}}]]


def best(tried: list[Tried]) -> Candidate | None:
    """The candidate that did best, None where none is above no guidance.

    It need not be above it by more than its errors: with few pictures hardly any is. None means that nothing was found
    to help, not that nothing helps.
    """
    return tried[0].candidate if tried[0].change.value > 0 else None


def as_json(tried: list[Tried]) -> str:
    """What was chosen, None where nothing helps, and all that was tried, best first."""

    def row(one: Tried) -> dict[str, str | float | None]:
        numbers = {"change": one.change.value, "error": one.change.error}
        return {**vars(one.candidate), **{name: None if math.isnan(n) else n for name, n in numbers.items()}}

    chosen = best(tried)
    return json.dumps(
        {"chosen": None if chosen is None else vars(chosen), "tried": [row(one) for one in tried]}, indent=2
    )
