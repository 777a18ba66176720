"""Find the blocks and the strength for a model by what it says itself (`recovery`), through the host's sampler."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..blocks import check_spec
from ..inputs.calibration import ALPHAS, CANDIDATES
from ..inputs.guidance import OFF
from ..inputs.kinds import shortened
from ..kept import Kept, Source
from ..measure import Measured
from ..patch import apply_guidance, find_flux
from ..patch.families import refuse_guided
from ..settings import Settings
from .recovery import Losses, change
from .series import Batch, Series, draw, losses

STARTS = (0, 2, 3, 4, 6)  # eighths of the double blocks at which the candidates begin if none are named
MOST_CANDIDATES = 1000  # each draws a whole series of pictures
SHOWN = 4  # of how many batches, from the first, a picture is shown


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


@dataclass(frozen=True)
class Search:
    """What is tried on which pictures. guided: the MODEL `plain` under every candidate, all with this reach."""

    plain: Any
    guided: dict[Candidate, Any]
    reach: str
    series: Series

    @property
    def source(self) -> Source:
        """What everything is drawn from; an empty latent is but its size."""
        return Source(self.plain, self.series.prompts, self.series.empty, None)

    def how(self, candidate: Candidate | None, batch: Batch) -> Hashable:
        """By what a batch under a candidate, None for off, is found again."""
        return candidate, candidate and self.reach, self.series.how(batch)

    def model(self, candidate: Candidate | None) -> Any:
        """What draws under a candidate, None for off."""
        return self.plain if candidate is None else self.guided[candidate]


class Found(NamedTuple):
    """What earlier searches found: losses of batches, and some pictures. Apart, so that these never push out those."""

    losses: Kept
    pictures: Kept


FOUND = Found(Kept(), Kept())  # of all searches in this process


def compare(search: Search, found: Found, step: Callable[[], None]) -> list[Tried]:
    """Draw the prompts with and without guidance and ask the plain model what it finds in the pictures; best first.

    What was found before is not drawn again. step: called at each of `steps_missing`.
    """
    plain = _losses(search, found, None, step)
    tried = [Tried(one, change(_losses(search, found, one, step), plain)) for one in search.guided]
    return sorted(tried, key=lambda one: -math.inf if math.isnan(one.change.value) else one.change.value, reverse=True)


def steps_missing(search: Search, found: Found) -> int:
    """How many steps `compare` has to take, each of one batch."""
    hows = [search.how(one, batch) for one in (None, *search.guided) for batch in search.series.batches()]
    return sum(found.losses.get(search.source, how) is None for how in hows) * search.series.steps


def _losses(search: Search, found: Found, candidate: Candidate | None, step: Callable[[], None]) -> Losses:
    """What the plain model makes of the pictures that are drawn under a candidate, None for off."""
    batches = enumerate(search.series.batches())
    return Losses(*torch.cat([_losses_of(search, found, candidate, i, batch, step) for i, batch in batches], dim=1))


def _losses_of(
    search: Search, found: Found, candidate: Candidate | None, number: int, batch: Batch, step: Callable[[], None]
) -> Tensor:
    """The losses of one batch, (own and empty, pictures)."""
    how = search.how(candidate, batch)
    kept = found.losses.get(search.source, how)
    if kept is not None:
        return kept
    pictures = draw(search.model(candidate), search.series, batch, step)
    if number < SHOWN:
        found.pictures.put(search.source, how, pictures[:1].cpu())
    seen = torch.stack(losses(search.plain, search.series, batch, pictures))
    found.losses.put(search.source, how, seen)
    return seen


def shown(search: Search, found: Found, candidate: Candidate | None) -> list[Tensor]:
    """The first picture of each of the first batches under a candidate, None for off: latents, (1, channels, …)."""

    def picture(batch: Batch) -> Tensor:
        kept = found.pictures.get(search.source, search.how(candidate, batch))
        # Of very many candidates not all are kept.
        return draw(search.model(candidate), search.series, batch, lambda: None)[:1] if kept is None else kept

    return [picture(batch) for batch in itertools.islice(search.series.batches(), SHOWN)]


def best(tried: list[Tried]) -> Candidate | None:
    """The candidate that did best, None where none is above no guidance.

    It need not be above it by more than its errors: with few pictures hardly any is. None means that nothing was found
    to help, not that nothing helps.
    """
    return tried[0].candidate if tried[0].change.value > 0 else None
