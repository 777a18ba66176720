"""What guidance did in a sampling run: measured on the device while it samples, kept as plain numbers.

A `Record` travels between nodes and holds the last few runs; a `Recording` is one run. An *evaluation* is one guided
merge: one forward of the model, one merge point (a block), one condition. Its five numbers (`measure.measure`) stay on
the device until the run ends; then all of them cross to the CPU at once and are averaged into one `Row` per
step and merge point.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..schedule import steps_of

# How many runs a record keeps: the samplers of one graph, and what ComfyUI's cache may ask for again.
KEPT_RUNS = 8
# So many values of a finished latent tell runs apart.
SAMPLED_VALUES = 32


class Row(NamedTuple):
    """What guidance did at one step in one merge point: means over the evaluations of that step.

    step: from 1, of the sampler's schedule; sigma: where that step begins. guidance: which application of the node,
    from 0 in the order on the model. branch: "computed", or "reused" where a kept difference stood in for it.
    """

    step: int
    sigma: float
    guidance: int
    block: str
    strength: float
    branch: str
    ratio: float
    clamped: float
    change: float
    cosine: float
    norm_ratio: float
    evaluations: int


@dataclass(frozen=True)
class Guidance:
    """One application of the node on the recorded model. problem: what it did not do and why, in words."""

    summary: str
    settings: dict
    blocks: tuple[str, ...]
    problem: str = ""


class Evaluations(NamedTuple):
    """What one forward left: tensors on the device, of `count` merges. sigma: (); numbers: (count, 5)."""

    guidance: int
    sigma: Tensor
    numbers: Tensor
    blocks: tuple[str, ...]
    strengths: tuple[float, ...]
    reused: tuple[bool, ...]


@dataclass(eq=False)
class Recording:
    """One sampling run. state: "running", then "finished", "interrupted", or the error that ended it.

    maps: the change over the picture at the last guided evaluation of each (guidance, block), (height, width) in
    tokens.
    """

    state: str = "running"
    schedule: list[float] = field(default_factory=list)
    guidances: list[Guidance] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    maps: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    fingerprint: tuple[tuple[int, ...], Tensor] | None = None
    pending: list[Evaluations] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """The sampler's steps, guided or not."""
        return max(1, len(self.schedule) - 1)

    def close(self, sigmas: Tensor, samples: Tensor | None) -> None:
        """Bring the numbers to the CPU, once, and keep them as rows; nothing on the device outlives this.

        sigmas: the sampler's schedule, (steps + 1,). samples: the finished latent, (batch, channels, height, width), or
        None.
        """
        values = [sigmas, *(e.sigma for e in self.pending), *(e.numbers for e in self.pending), *self.maps.values()]
        sampled = [] if samples is None else [sample_values(samples)]
        crossed = _to_cpu([*values, *sampled])
        if samples is not None:
            self.fingerprint = tuple(samples.shape), crossed.pop()
        count, self.schedule = len(self.pending), crossed[0].tolist()
        found, numbers = [float(sigma) for sigma in crossed[1 : 1 + count]], crossed[1 + count : 1 + 2 * count]
        self.maps = dict(zip(self.maps, crossed[1 + 2 * count :], strict=True))
        self.rows = _rows(self.pending, steps_of(found, self.schedule), numbers, self.schedule)
        self.pending = []

    def drop(self) -> None:
        """Keep no numbers: after an error the device may not answer."""
        self.pending, self.maps = [], {}

    def blocks(self) -> list[tuple[int, str]]:
        """Every merge point, in the order of the model: (guidance, block)."""
        return [(i, block) for i, guidance in enumerate(self.guidances) for block in guidance.blocks]

    def problems(self) -> list[str]:
        """What did not go as asked for, in words; for an empty recording, why it is empty."""
        ended = {"finished": [], "interrupted": ["sampling was interrupted: the steps after that are missing"]}
        said = ended.get(self.state, [f"sampling ended in an error, so there are no numbers: {self.state}"])
        if not self.guidances:
            return [*said, "no NAG-PAG Guidance is on this model: put one before or after NAG-PAG Record"]
        several = len(self.guidances) > 1
        marks = [f"guidance {i + 1}: " if several else "" for i in range(len(self.guidances))]
        return said + [mark + g.problem for mark, g in zip(marks, self.guidances, strict=True) if g.problem]

    def as_json(self) -> str:
        """All numbers as JSON; what is not finite (of a block whose tokens are all zero, a sigma) is null."""
        guidances = [{"settings": g.settings, "blocks": g.blocks, "problem": g.problem} for g in self.guidances]
        whole = {
            "state": self.state,
            "steps": self.steps,
            "sigmas": self.schedule,
            "guidances": guidances,
            "problems": self.problems(),
            "rows": [row._asdict() for row in self.rows],
        }
        return json.dumps(_plain(whole), ensure_ascii=False, allow_nan=False)


@dataclass(eq=False)
class Record:
    """The last runs of a recorded model, oldest first."""

    recordings: list[Recording] = field(default_factory=list)

    def keep(self, recording: Recording) -> None:
        """Add a run that has ended."""
        self.recordings = [*self.recordings, recording][-KEPT_RUNS:]

    def of(self, samples: Tensor) -> tuple[Recording | None, bool]:
        """The last run that made this latent, and True; else the last run, or None, and False.

        One model may sample several times in one graph, and ComfyUI's cache may bring back an earlier latent.
        """
        samples = _packed(samples)
        for recording in reversed(self.recordings):
            if recording.fingerprint is not None and _same(recording.fingerprint, samples):
                return recording, True
        return (self.recordings[-1] if self.recordings else None), False


def sample_values(samples: Tensor) -> Tensor:
    """A few values from all over a latent."""
    flat = samples.flatten()
    return flat[:: max(1, flat.numel() // SAMPLED_VALUES)].float()


def _packed(samples: Any) -> Tensor:
    """A latent as it is sampled: one that holds several, such as picture and sound, on one axis."""
    if not getattr(samples, "is_nested", False):
        return samples
    return torch.cat([part.reshape(len(part), 1, -1) for part in samples.unbind()], dim=-1)


def _same(fingerprint: tuple[tuple[int, ...], Tensor], samples: Tensor) -> bool:
    shape, values = fingerprint
    # A latent may have passed through half precision on its way.
    return shape == tuple(samples.shape) and torch.allclose(sample_values(samples).cpu(), values, rtol=1e-2, atol=1e-2)


def _to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All of them in float32 on the CPU, in one crossing."""
    device = tensors[-1].device
    flat = torch.cat([tensor.detach().to(device, torch.float32).flatten() for tensor in tensors]).cpu()
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.reshape(tensor.shape).clone() for piece, tensor in zip(pieces, tensors, strict=True)]


def _rows(
    pending: Sequence[Evaluations], steps: Sequence[int], numbers: Sequence[Tensor], schedule: Sequence[float]
) -> list[Row]:
    found: dict[tuple[int, int, str], list[tuple[float, bool, list[float]]]] = {}
    for evaluations, step, values in zip(pending, steps, numbers, strict=True):
        for block, strength, reused, five in zip(
            evaluations.blocks, evaluations.strengths, evaluations.reused, values.tolist(), strict=True
        ):
            found.setdefault((step, evaluations.guidance, block), []).append((strength, reused, five))
    return [_row(*key, schedule[key[0] - 1], evaluations) for key, evaluations in sorted(found.items(), key=_by_step)]


def _by_step(item: tuple[tuple[int, int, str], list]) -> tuple[int, int]:
    return item[0][:2]


def _row(step: int, guidance: int, block: str, sigma: float, evaluations: list[tuple[float, bool, list[float]]]) -> Row:
    count = len(evaluations)
    strength = sum(evaluation[0] for evaluation in evaluations) / count
    branch = "reused" if all(evaluation[1] for evaluation in evaluations) else "computed"
    means = torch.tensor([evaluation[2] for evaluation in evaluations], dtype=torch.float64).mean(dim=0).tolist()
    ratio, clamped, change, cosine, norm_ratio = means
    return Row(
        step, sigma, guidance, block, strength, branch, ratio, clamped, change, cosine, norm_ratio, evaluations=count
    )


def _plain(value: Any) -> Any:
    """The same as JSON can say it."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def by_block(recording: Recording) -> Iterator[tuple[tuple[int, str], list[Row]]]:
    """The rows of each merge point, in the order of the model; none for a block that was never reached."""
    for guidance, block in recording.blocks():
        yield (guidance, block), [row for row in recording.rows if (row.guidance, row.block) == (guidance, block)]
