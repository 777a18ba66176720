"""What the plain model finds again in the judged pictures, by the measure of NAG-PAG Calibrate; kept beside them.

Here the pictures are those of the judges, kept as bytes; the node looks at its samples as they are.
"""

from __future__ import annotations

from functools import cache

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from ...nagpag.calibration.recovery import Losses, change, loss
from ...nagpag.measure import Measured
from .. import host
from ..in_host import enter_host
from ..toy import digests, shapes
from . import choosing, runs, sampling
from .contenders import Contender, plain
from .runs import CHOOSING, PART, Job, Subject

SIGMA, NOISE, BATCH = 0.7, 77, 32


def settings() -> list[Contender]:
    """What is looked at: the candidates and their neighbours, of which some harm."""
    found = {contender.key: contender for contender in (*choosing.candidates(), *choosing.neighbours())}
    return list(found.values())


def changes(subject: Subject, contenders: list[Contender], count: int = PART) -> dict[Contender, Measured]:
    """The change of what is recovered, of those contenders whose pictures of the choosing set are there.

    count: of the first so many pictures, at most PART.
    """
    before = _job(subject, plain())
    there = {c: job for c in contenders if (job := _job(subject, c)).file.exists() and before.file.exists()}
    bar = tqdm(there.items(), desc=f"{subject}, recovery", unit="setting", mininterval=10, delay=5)
    return {contender: change(_first(job, count), _first(before, count)) for contender, job in bar}


def own_if_made(subject: Subject) -> Contender | None:
    """Of the neighbours the one that the model itself puts first; None where pictures are missing."""
    found = changes(subject, choosing.neighbours())
    return max(found, key=lambda c: found[c].value) if len(found) == len(choosing.neighbours()) else None


def _first(job: Job, count: int) -> Losses:
    return Losses(*(tensor[:count] for tensor in losses(job)))


def _job(subject: Subject, contender: Contender) -> Job:
    (job,) = runs.jobs([subject], [contender], CHOOSING, PART)
    return job


def losses(job: Job) -> Losses:
    """What the plain model makes of a job's pictures, noised to SIGMA, with their captions and without."""
    kept = job.file.with_suffix(f".recovery-{SIGMA:g}-{NOISE}-{measure_digest()}")
    if not kept.exists():
        runs.save(_losses(job)._asdict(), kept)
    return Losses(**load_file(kept))


def measure_sources() -> list[str]:
    """What measures."""
    where = host.REPO / "nagpag" / "calibration"
    return digests.sources(*(where / f"{name}.py" for name in ("recovery", "probe")))


@cache
def measure_digest() -> str:
    """Changes with the code that measures."""
    return digests.digest(measure_sources())


def _losses(job: Job) -> Losses:
    enter_host()
    from ...nagpag.calibration.probe import predict

    torch.set_num_threads(1)
    model = sampling.load(job.subject.file)
    small = runs.pictures_of(job)
    truth = shapes.to_latent(small.repeat_interleave(4, 2).repeat_interleave(4, 3))
    latents = model.model.latent_format.process_out(truth)  # the host takes them as a VAE gives them
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(NOISE))
    captions = [scene.caption for scene in job.asked.rows(job.part)[0]]

    def of(texts: list[str]) -> torch.Tensor:
        rows = [slice(start, start + BATCH) for start in range(0, PART, BATCH)]
        sigma = torch.tensor([SIGMA])
        found = (predict(model, sampling.conditioning(texts[r]), latents[r], noise[r], sigma) for r in rows)
        return torch.cat([loss(*pair)[0] for pair in found])

    return Losses(of(captions), of([""] * PART))
