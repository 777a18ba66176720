"""Find the blocks and the strength for a model by what it says itself (`recovery`), through the host's sampler."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..candidates import Candidate, read_candidates
from ..kept import Kept, Source
from ..measure import Measured
from ..patch import apply_guidance, find_flux
from ..patch.families import refuse_guided
from ..settings import Settings
from .recovery import Losses, change
from .series import Batch, Series, draw, losses

SHOWN = 4  # of how many batches, from the first, a picture is shown


@dataclass(frozen=True)
class Tried:
    """A candidate and by how much more surely the model finds its prompts again."""

    candidate: Candidate
    change: Measured


def guided_by(model: Any, candidates: str, alphas: str, common: Settings) -> dict[Candidate, Any]:
    """The model under every candidate, each with all else that is common to them.

    model: a ComfyUI MODEL without NAG-PAG guidance. Raises ValueError for one that can't be guided or is guided already
    and for candidates that don't fit it.
    """
    found = read_candidates(candidates, alphas, common, len(find_flux(model).double_blocks))
    refuse_guided(model, "NAG-PAG Calibrate")
    return {one: apply_guidance(model, replace(common, blocks=one.blocks, alpha=one.alpha)) for one in found}


@dataclass(frozen=True)
class Search:
    """What is tried on which pictures. guided: the MODEL `plain` under every candidate, with what is common to all.

    Raises ValueError where the empty prompt is to be the negative one and can't.
    """

    plain: Any
    guided: dict[Candidate, Any]
    common: Settings
    series: Series

    def __post_init__(self) -> None:
        if self.common.carries_negative and not self.series.empty[0][0].any():
            raise ValueError(
                "NAG-PAG Calibrate: empty is all zeros (ConditioningZeroOut), which guidance takes for no negative "
                "prompt; connect CLIP Text Encode without text, or switch negative_prompt off"
            )

    @property
    def source(self) -> Source:
        """What everything is drawn from; an empty latent is but its size."""
        return Source(self.plain, self.series.prompts, self.series.empty, None)

    def how(self, candidate: Candidate | None, batch: Batch) -> Hashable:
        """By what a batch under a candidate, None for off, is found again."""
        return candidate, candidate and self.common, self.series.how(batch)

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
