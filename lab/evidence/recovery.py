"""What the plain model finds again in the judged pictures, by the measure of NAG-PAG Calibrate; kept beside them.

The pictures are those of the judges, kept as bytes; the node looks at its samples as they are. Then what recovery says
of settings, beside what the judges say of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from ...nagpag.calibration.recovery import Losses, change, loss
from ...nagpag.measure import Measured
from .. import host
from ..in_host import enter_host
from ..toy import digests, shapes
from . import gains, rounds, runs
from .contenders import Contender, cfg, plain
from .runs import CHOOSING, PART_SIZE, Part
from .subjects import Subject

SIGMA, NOISE, BATCH = 0.7, 77, 32
FEW = 32  # pictures, a quarter of a part: would they do?
GENTLE = -0.05  # the judges' gain above which a setting is no plain harm


def settings() -> list[Contender]:
    """What is looked at: the node's own candidates, cfg, and what was tried in other rounds, of which some harm."""
    own = (*rounds.calibrate_round(), cfg(2.0), cfg(3.0))
    tried = (*own, *rounds.strength_round(), *rounds.reach_round(), *rounds.late_round())
    return list({contender.key: contender for contender in tried}.values())


def changes(subject: Subject, contenders: list[Contender], count: int = PART_SIZE) -> dict[Contender, Measured]:
    """The change of what is recovered, of those contenders whose pictures of the choosing set are there.

    count: of the first so many pictures, at most PART_SIZE.
    """
    before = _part(subject, plain())
    there = {c: part for c in contenders if (part := _part(subject, c)).file.exists() and before.file.exists()}
    bar = tqdm(there.items(), desc=f"{subject}, recovery", unit="setting", mininterval=10, delay=5)
    return {contender: change(_first(part, count), _first(before, count)) for contender, part in bar}


def _first(part: Part, count: int) -> Losses:
    return Losses(*(tensor[:count] for tensor in losses(part)))


def _part(subject: Subject, contender: Contender) -> Part:
    (part,) = runs.parts([subject], [contender], CHOOSING, PART_SIZE)
    return part


def losses(part: Part) -> Losses:
    """What the plain model makes of a part's pictures, noised to SIGMA, with their captions and without."""
    kept = part.file.with_suffix(f".recovery-{SIGMA:g}-{NOISE}-{measure_digest()}")
    if not kept.exists():
        runs.save(_losses(part)._asdict(), kept)
    return Losses(**load_file(kept))


def measure_sources() -> list[str]:
    """What measures."""
    where = host.REPO / "nagpag" / "calibration"
    return digests.sources(*(where / f"{name}.py" for name in ("recovery", "probe")))


@cache
def measure_digest() -> str:
    """Changes with the code that measures."""
    return digests.digest(measure_sources())


def _losses(part: Part) -> Losses:
    enter_host()
    from ...nagpag.calibration.probe import predict

    torch.set_num_threads(1)
    model = part.subject.load()
    small = runs.pictures_of(part)
    truth = shapes.to_latent(small.repeat_interleave(4, 2).repeat_interleave(4, 3))
    latents = model.model.latent_format.process_out(truth)  # the host takes them as a VAE gives them
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(NOISE))
    captions = [question.prompt for question in part.rows()[0]]

    def of(texts: list[str]) -> torch.Tensor:
        rows = [slice(start, start + BATCH) for start in range(0, PART_SIZE, BATCH)]
        sigma = torch.tensor([SIGMA])
        found = (predict(model, part.subject.conditioning(texts[r]), latents[r], noise[r], sigma) for r in rows)
        return torch.cat([loss(*pair)[0] for pair in found])

    return Losses(of(captions), of([""] * PART_SIZE))


# --- beside what the judges say ---


@dataclass(frozen=True)
class Found:
    """One model: changes of recovery by all pictures and by a few, and the judges' gains, of the same settings."""

    name: str
    changes: dict[Contender, Measured]
    few: dict[Contender, Measured]
    gains: dict[Contender, Measured]

    def judged(self) -> dict[Contender, float]:
        return {contender: gain.value for contender, gain in self.gains.items()}

    def gentle(self) -> dict[Contender, float]:
        """Gains without those of settings that plainly harm."""
        return {contender: gain for contender, gain in self.judged().items() if gain > GENTLE}


def look(subject: Subject) -> Found | None:
    """What recovery and the judges say of a model's pictures; None where there are hardly any."""
    found = changes(subject, settings())
    few = changes(subject, [*found], FEW)
    judged = {c: gain for c in found if (gain := gains.gain_if_made([subject], c, CHOOSING, PART_SIZE))}
    return Found(str(subject), found, few, judged) if len(judged) > 2 else None


def first(found: dict[Contender, Measured]) -> Contender:
    """What a model puts first."""
    return max(found, key=lambda contender: found[contender].value)


def beyond(one: Found, found: list[Found]) -> tuple[dict[Contender, float], dict[Contender, float]]:
    """Changes of recovery and gains of one model, less what they are on the mean of the others: what is its own."""
    pairs = ((one.changes, [other.changes for other in found]), (one.gains, [other.gains for other in found]))
    changed, gained = ({c: own[c].value - mean for c, mean in others(own, all_).items()} for own, all_ in pairs)
    return changed, gained


def others(own: dict[Contender, Measured], all_models: list[dict[Contender, Measured]]) -> dict[Contender, float]:
    """The mean of each setting over the other models that were looked at under it."""
    rest = [other for other in all_models if other is not own]
    found = {c: [other[c].value for other in rest if c in other] for c in own}
    return {contender: statistics.mean(v) for contender, v in found.items() if v}


def values(measured: dict[Contender, Measured]) -> dict[Contender, float]:
    return {contender: one.value for contender, one in measured.items()}


# --- is the measure worth anything? ---


def rank_agreement(
    signal: Mapping[Any, float], gain: Mapping[Any, float], resamples: int = 500, seed: int = 0
) -> Measured:
    """Do two measures rank settings alike? Spearman's correlation over the settings that both have.

    signal, gain: a number for each setting. The error is the spread over bootstrap resamples of the settings; it says
    nothing of the errors of the numbers themselves. Raises ValueError where fewer than three settings are in both.
    """
    both = [key for key in signal if key in gain]
    if len(both) < 3:
        raise ValueError(f"{len(both)} settings are in both measures, of {len(signal)} and {len(gain)}; 3 are needed")
    pairs = torch.tensor([(signal[key], gain[key]) for key in both], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = (pairs[torch.randint(len(both), (len(both),), generator=generator)] for _ in range(resamples))
    # A resample that holds one setting only has no ranks.
    found = [_spearman(rows) for rows in drawn if len(rows.unique(dim=0)) > 1]
    return Measured(_spearman(pairs), float(torch.tensor(found).std()))


def _spearman(pairs: Tensor) -> float:
    return float(spearmanr(pairs[:, 0].numpy(), pairs[:, 1].numpy()).statistic)
