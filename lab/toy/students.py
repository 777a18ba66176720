"""Guidance-distilled models, as FLUX.1 [dev] is one: one pass, told the scale, gives a teacher's velocity under CFG.

Distillation of classifier-free guidance: Meng et al., arXiv 2210.03142, section 3.1. A student begins as its teacher
with a guidance embedding that adds nothing, and sees the teacher's own pictures' captions, the empty one among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import digests
from .pictures import Pictures, Table, words_of
from .proportioned import ProportionedFlux
from .teachers import Batch, Recipe, Training, draw, follow


@dataclass(frozen=True)
class Distillation:
    """All that decides a student, beside its teacher and the seed. lowest, highest: of the CFG scales it learns."""

    recipe: Recipe = Recipe(steps=400, matrix_rate=0.004, other_rate=1e-3)
    lowest: float = 1.0
    highest: float = 4.0


DISTILLATION = Distillation()


def checkpoint(teacher: Path, distillation: Distillation = DISTILLATION) -> Path:
    """Where the student of this teacher lies, beside it."""
    digest = digests.digest(digests.sources(Path(__file__)), repr(distillation))
    return teacher.with_name(f"{teacher.stem}-student-{digest}.safetensors")


def distil(
    teacher: Path,
    learned: Pictures,
    seed: int,
    distillation: Distillation = DISTILLATION,
    target: Path | None = None,
) -> Path:
    """Train the student of a teacher that learned these pictures, or go on from an earlier call; its file."""
    target = target or checkpoint(teacher, distillation)
    if target.exists():
        return target
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    table = Table(learned.ids, words_of(learned.ids))
    knows = ProportionedFlux.from_host(load_file(teacher)).eval()
    student = ProportionedFlux(knows.sizes, distilled=True)
    student.load_state_dict(knows.state_dict(), strict=False)  # all but guidance_in
    training = Training(student, distillation.recipe)

    def loss_of(step: int) -> Tensor:
        batch = draw(learned, step, seed + 500, distillation.recipe)  # other pictures and noise than the teacher's
        scale = scales(len(batch.rows), step, seed, distillation)
        with torch.autocast("cpu", torch.bfloat16):
            wanted = guided(knows, batch, table, scale, empty=len(learned.latents))
            velocity = student(batch.x, batch.sigma, table(batch.rows), scale)
        return (velocity.float() - wanted).square().mean()

    return follow(training, loss_of, target, f"student of {teacher.stem}")


def scales(count: int, step: int, seed: int, distillation: Distillation) -> Tensor:
    """CFG scales of a step, (count,), uniform from lowest to highest."""
    generator = torch.Generator().manual_seed((seed + 900) * 1_000_003 + step)
    spread = distillation.highest - distillation.lowest
    return distillation.lowest + spread * torch.rand(count, generator=generator)


@torch.no_grad()
def guided(teacher: ProportionedFlux, batch: Batch, table: Table, scale: Tensor, empty: int) -> Tensor:
    """v_empty + w (v_prompt − v_empty), shaped like batch.x; scale: w, (batch,); empty: the empty prompt's row."""
    prompt = teacher(batch.x, batch.sigma, table(batch.rows)).float()
    nothing = teacher(batch.x, batch.sigma, table(torch.full_like(batch.rows, empty))).float()
    return nothing + scale[:, None, None, None] * (prompt - nothing)
