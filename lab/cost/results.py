"""What is timed, and what a device said of it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ...nagpag.schedule import renewal
from ..evidence.contenders import steps_between
from ..toy.flux import HEAD_DIM
from .random_flux import Sizes

# Steps are timed in short samplings, and weighed as one of so many steps has them.
SAMPLED = 20
# Rows that goals are about.
DEFAULTS, SCALE_0, CFG = "the node's defaults", "scale 0", "CFG 2"
IDENTITY, SOFTENED = "attention, identity", "attention, softened"


def negative_row(reach: str, every: int) -> str:
    """The row of a branch that carries a negative prompt."""
    return f"negative prompt, {reach}, renewed every {every}"


def nag_row(every: int) -> str:
    """The row of a negative prompt that meets the picture in every block's attention."""
    return f"{negative_row('attention', every)}, all blocks"


class Shares(NamedTuple):
    """What one block takes of a plain step, as timed in this run."""

    double: float
    single: float

    def of(self, doubles: float, singles: float) -> float:
        return doubles * self.double + singles * self.single


@dataclass(frozen=True)
class Entry:
    """Something to time.

    blocks: how many double and single blocks a step runs through beside the plain model's own; whole: how many whole
    passes. every: it does so at every so many steps, as often as the node by itself where 0, from this share of the
    sampling on. reach: None where guidance is not ours.
    """

    name: str
    model: Any
    blocks: tuple[int, int] = (0, 0)
    every: int = 1
    start: float = 0.0
    whole: int = 0
    cfg: float = 1.0
    reach: str | None = None

    def renewed(self, step: int, steps: int) -> bool:
        """Whether it does so at this of so many steps, on a schedule of even timesteps such as `simple`."""
        first = steps - steps_between(self.start, 1.0, steps)
        return step >= first and (step - first) % (self.every or renewal(steps)) == 0

    def share_renewed(self, steps: int = SAMPLED) -> float:
        """At which share of the steps: of few, more are renewed than one in `every`."""
        return sum(self.renewed(step, steps) for step in range(steps)) / steps

    def counted(self, shares: Shares, steps: int = SAMPLED) -> float:
        """What counting blocks predicts for a sampling."""
        return 1.0 + (self.whole + shares.of(*self.blocks)) * self.share_renewed(steps)


@dataclass
class Times:
    """Of each entry, by name, the ratios of its steps to plain ones, one list a round; seconds of the plain steps."""

    ratios: dict[str, list[list[float]]]
    plain: list[float]
    shares: Shares

    def at(self, entry: Entry, quantile: float = 0.5) -> float:
        """The mean step's ratio, over the steps that renew a branch and those that don't, each at this quantile."""
        return _mean_step(entry, self.ratios[entry.name], quantile)

    def error(self, entry: Entry) -> float:
        """The standard error of the ratio, from how the rounds differ; not a number after a single one."""
        rounds = [_mean_step(entry, [ratios], 0.5) for ratios in self.ratios[entry.name]]
        return statistics.stdev(rounds) / len(rounds) ** 0.5 if len(rounds) > 1 else float("nan")

    def gap(self, entry: Entry) -> float:
        """How much more than counting blocks predicts, in shares of a plain step."""
        return self.at(entry) - entry.counted(self.shares)


def _mean_step(entry: Entry, rounds: list[list[float]], quantile: float) -> float:
    # A median over all steps would not see the few that renew.
    kinds: dict[bool, list[float]] = {}
    for ratios in rounds:
        for step, ratio in enumerate(ratios):
            kinds.setdefault(entry.renewed(step, len(ratios)), []).append(ratio)
    share = entry.share_renewed()
    weights = {True: share, False: 1.0 - share}
    return sum(weights[kind] * _quantile(found, quantile) for kind, found in kinds.items())


def _quantile(values: list[float], quantile: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(quantile))


class Graphs(NamedTuple):
    """What torch.compile made of a sampling."""

    graphs: int
    breaks: int


@dataclass
class Results:
    """What one device said. By entry's name; "plain" is the plain model, in all but the times."""

    device: torch.device
    sizes: Sizes
    steps: int
    rounds: int
    entries: list[Entry]
    times: Times
    peaks: dict[str, int]
    graphs: dict[str, Graphs]
    synchronisations: dict[str, int | None]

    @property
    def activation(self) -> int:
        """Bytes of one activation of the picture's tokens, in bfloat16."""
        return 2 * self.sizes.picture * self.sizes.hidden

    @property
    def text_share(self) -> float:
        """A negative prompt's text in bfloat16 and the rotary positions of its sequence in float32, in activations."""
        sizes, floats_a_position = self.sizes, 4 * HEAD_DIM // 2
        positions = 4 * floats_a_position * (sizes.text + sizes.picture)
        return (2 * sizes.text * sizes.hidden + positions) / self.activation

    def extra_memory(self, name: str) -> float:
        """Peak memory beyond the plain model's, in activations of the picture's tokens."""
        return (self.peaks[name] - self.peaks["plain"]) / self.activation
