"""docs/evidence.md and its plots, from the pictures that `evidence` made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from . import choosing, evidence_runs, host, judges, sampling
from .contenders import Contender, plain
from .evidence_runs import CHOOSING, NOISES, REPORTING, Subject
from .markdown import table
from .paired import Measured

OUTPUT = host.REPO / "docs" / "evidence.md"
CHOOSERS, CHOOSING_COUNT = (Subject(0), Subject(1)), 128
LOOKS = ("saturation", "sharpness")
PICTURES = host.REPO / "docs" / "evidence"


@dataclass(frozen=True)
class Row:
    """One contender on models that settings were not chosen on: gains by either judge, and how its pictures look.

    cnn, template: of all models together; each: of each model, by both judges; chosen_on: the mean of both judges on the
    models that settings were chosen on.
    """

    contender: Contender
    cnn: Measured
    template: Measured
    each: list[tuple[Measured, Measured]]
    chosen_on: Measured
    frechet: float
    looks: list[str]
    diversity: float

    def models(self, verdict: str) -> str:
        """On how many of the models it helps, or harms."""
        return f"{sum(_verdict(*both) == verdict for both in self.each)} of {len(self.each)}"


def _looks(found: list[judges.Scores]) -> list[str]:
    """The means of LOOKS."""
    return [f"{sum(float(getattr(scores, name).mean()) for scores in found) / len(found):.3f}" for name in LOOKS]


def _verdict(cnn: Measured, template: Measured) -> str:
    """What both judges say; a gain counts only when they agree."""
    if cnn.helps and template.helps:
        return "helps"
    return "harms" if cnn.harms or template.harms else "neither"


def _row(chosen_on: list[Subject], held_out: list[Subject], contender: Contender, count: int) -> Row:
    found = [evidence_runs.scores(subject, contender, REPORTING, count) for subject in held_out]
    groups = torch.arange(count) // NOISES

    def gains(subjects: list[Subject]) -> tuple[Measured, Measured]:
        cnn, template = (choosing.gain(subjects, contender, REPORTING, count, judge) for judge in ("cnn", "template"))
        return cnn, template

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return Row(
        contender,
        *gains(held_out),
        [gains([subject]) for subject in held_out],
        choosing.gain(chosen_on, contender, REPORTING, count),
        mean([_frechet(s, contender, count) - _frechet(s, plain(), count) for s in held_out]),
        _looks(found),
        mean([judges.diversity(scores.features, groups) for scores in found]),
    )


@cache
def _frechet(subject: Subject, contender: Contender, count: int) -> float:
    features = evidence_runs.scores(subject, contender, REPORTING, count).features
    return judges.frechet(features, judges.real_reference())


def page(chosen_on: list[Subject], held_out: list[Subject], contenders: list[Contender], count: int) -> str:
    """The whole page."""
    subjects = [*chosen_on, *held_out]
    found = [_row(chosen_on, held_out, contender, count) for contender in (plain(), *contenders)]
    parts = [
        _introduction(chosen_on, held_out, count),
        _means(found),
        _by_subject(subjects, contenders, count),
        _unguided(subjects, count),
        _chosen(),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(chosen_on: list[Subject], held_out: list[Subject], count: int) -> str:
    return f"""# What guidance does, measured

Made by `python3 lab/host.py run -- lab/run.py evidence {count}` on models that `make lab` trains: small FLUX models (8 double and
4 single blocks, 1 head) on pictures of coloured shapes. **Nothing here was measured on FLUX.1's own weights.**

{count} pictures of each contender by each model, the same prompts and noise for all, {sampling.STEPS} Euler steps through ComfyUI's
sampler. An object is right when its shape and colour are, in its place. Two judges: a small CNN
({judges.held_out_accuracy():.2%} right on held-out renders) and a fit of the renderer's own templates, which knows nothing of the CNN.
Errors are of a paired bootstrap over the prompts, and hold nothing of how training runs differ. A gain counts when it is above two
errors for both judges; "harms" means below minus two errors for either. Passes are counted at FLUX.1's proportions of blocks.

Settings were chosen on other prompts and noise, looking at {_names(chosen_on)}. What the table says is measured on models that were
not looked at: {_names(held_out)}; "seen" is the mean of both judges on the others. Chosen was from small samples (see the end): blocks
4-7 at alpha 0.1 were within the errors of their neighbours. The HTTP defaults guide blocks 8, 12 and 16 of FLUX.1's 19; their
counterparts at the same depth stand for them here, and for the published form, whose tau is 2.5 and alpha 0.25.

Not measured yet: ComfyUI's NAGuidance and SkipLayerGuidanceDiT, classic PAG, CFG with a reused difference, NAG-PAG on top of CFG,
longer reaches and other negatives on held-out models. Whether a model can say by itself which blocks to guide was tried:
[calibration](calibration.md).

![Gain against cost](evidence/pareto.png)

![The same prompts and noise under each contender](evidence/sheet.png)

![Gain by block, on the choosing set](evidence/blocks.png)"""


def _names(subjects: list[Subject]) -> str:
    return "; ".join(map(str, subjects))


def _means(found: list[Row]) -> str:
    head = ("", "passes", "CNN", "template fit", "so it", "helps", "harms", "seen", "Fréchet", *LOOKS, "diversity")
    real = judges.real_scores()
    rows = [*map(_cells, found), ["real renders", *[""] * 8, *_looks([real]), ""]]
    return f"""## The table
Change in the share of objects right on models that were not looked at; the Fréchet distance of the CNN's features to real
renders (change; lower is better).

{table(head, rows)}"""


def _cells(row: Row) -> list[str]:
    verdicts = [_verdict(row.cnn, row.template), row.models("helps"), row.models("harms")]
    change = [str(row.cnn), str(row.template), *verdicts, str(row.chosen_on), f"{row.frechet:+.1f}"]
    if row.contender.key == plain().key:
        change = [""] * len(change)
    return [row.contender.name, f"{row.contender.passes:.2f}", *change, *row.looks, f"{row.diversity:.2f}"]


def _by_subject(subjects: list[Subject], contenders: list[Contender], count: int) -> str:
    rows = [[c.name, *(str(choosing.gain([s], c, REPORTING, count)) for s in subjects)] for c in contenders]
    return f"""## Each model
Change in the share of objects right, mean of both judges.

{table(("", *map(str, subjects)), rows)}"""


def _unguided(subjects: list[Subject], count: int) -> str:
    def row(subject: Subject) -> list[str]:
        found = evidence_runs.scores(subject, plain(), REPORTING, count)
        right = (found.cnn_right, found.template_right)
        shares = (f"{float(part.sum() / found.objects.sum()):.3f}" for part in right)
        return [str(subject), *shares, f"{_frechet(subject, plain(), count):.2f}"]

    return f"""## The models without guidance

{table(("", "CNN", "template fit", "Fréchet"), map(row, subjects))}"""


def _chosen() -> str:
    """What was looked at before the defaults were chosen, as far as it was made."""
    rounds = [f"### Round: {name}\n\n{_round(contenders())}" for name, contenders in choosing.ROUNDS.items()]
    introduction = f"""## What was tried
On the choosing set ({CHOOSING_COUNT} pictures each, other prompts and noise than above), change in the share of objects right,
mean of both judges; – where no pictures were made. The best of many is too good by selection; what counts is the table
above. Inputs that are not named are at the node's defaults."""
    return "\n\n".join([introduction, *rounds])


def _round(contenders: list[Contender]) -> str:
    def row(contender: Contender) -> list[str]:
        gains = (choosing_gain(subject, contender) for subject in CHOOSERS)
        return [contender.name, f"{contender.passes:.2f}", *(str(gain or "–") for gain in gains)]

    return table(("", "passes", *map(str, CHOOSERS)), map(row, contenders))


def choosing_gain(subject: Subject, contender: Contender) -> Measured | None:
    """The gain on the choosing set, None where its pictures were not made."""
    wanted = evidence_runs.jobs([subject], [contender, plain()], CHOOSING, CHOOSING_COUNT)
    if not all(job.file.exists() for job in wanted):
        return None
    return choosing.gain([subject], contender, CHOOSING, CHOOSING_COUNT)


# --- plots ---


def draw(subjects: list[Subject], contenders: list[Contender], count: int) -> None:
    """In docs/evidence: pareto.png, gain against cost; blocks.png, gain by block; sheet.png, the same prompts for all."""
    PICTURES.mkdir(exist_ok=True)
    _pareto(subjects, contenders, count).savefig(PICTURES / "pareto.png", dpi=110)
    _by_block().savefig(PICTURES / "blocks.png", dpi=110)
    _sheet(subjects[0], [plain(), *contenders]).savefig(PICTURES / "sheet.png", dpi=90)


def _pareto(subjects: list[Subject], contenders: list[Contender], count: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for contender in contenders:
        gain = choosing.gain(subjects, contender, REPORTING, count)
        axes.errorbar(contender.passes, gain.value, 2 * gain.error, fmt="o", capsize=3, label=contender.name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("model passes a step, at FLUX.1's proportions")
    axes.set_ylabel("change in objects right, models not chosen on (two errors)")
    axes.legend(fontsize=8)
    return figure


def _by_block() -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    contenders = choosing.blocks_round()
    halves = (contenders[:8], contenders[8:])
    for axes, half, title in zip(figure.subplots(1, 2, sharey=True), halves, ("attention", "output"), strict=True):
        for subject in CHOOSERS:
            gains = [choosing_gain(subject, contender) or Measured(float("nan"), 0) for contender in half]
            values, errors = [g.value for g in gains], [2 * g.error for g in gains]
            axes.errorbar(range(len(gains)), values, errors, fmt="o-", capsize=3, label=str(subject))
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_title(f"reach {title}, one block", fontsize=9)
        axes.set_xlabel("double block")
    axes.legend(fontsize=8)
    figure.supylabel("change in objects right (two errors)", fontsize=9)
    return figure


def _sheet(subject: Subject, contenders: list[Contender], columns: int = 8) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * 1.1, len(contenders) * 1.25), layout="constrained")
    grid = figure.subplots(len(contenders), columns, squeeze=False)
    for line, contender in zip(grid, contenders, strict=True):
        (job, *_) = evidence_runs.jobs([subject], [contender], REPORTING, evidence_runs.PART)
        line[0].set_title(contender.name, loc="left", fontsize=8)
        for axes, picture in zip(line, evidence_runs.pictures_of(job)[::NOISES], strict=False):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            axes.axis("off")
    return figure
