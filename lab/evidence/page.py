"""docs/evidence.md and its plots, from the pictures that `evidence` made."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ...nagpag.measure import Measured
from .. import host
from ..in_host import enter_host
from ..make.markdown import table
from . import choosing, judges, recovery, runs, sampling
from .contenders import DOUBLES, Contender, plain
from .runs import CHOOSING, NOISES, REPORTING, Subject

OUTPUT = host.REPO / "docs" / "evidence.md"
LOOKS = ("saturation", "sharpness")
PICTURES = host.REPO / "docs" / "evidence"


@dataclass(frozen=True)
class Counts:
    """Pictures of each contender by each model: one that settings were not chosen on, in its late state, or another.

    Of peers there are only as many as of the others.
    """

    held_out: int
    others: int

    def made(self, subjects: list[Subject], contender: Contender) -> int | None:
        """How many there are by all these models; None where it is neither."""
        counts = (
            count for count in (self.held_out, self.others) if choosing.was_made(subjects, contender, REPORTING, count)
        )
        return next(counts, None)


@dataclass(frozen=True)
class Row:
    """One contender on models that settings were not chosen on: gains by either judge, and how its pictures look.

    count: pictures by each model. cnn, template: of all models together; each: of each model, by both judges; chosen_on: the mean of both judges on the
    models that settings were chosen on, None where these were not asked.
    """

    contender: Contender
    count: int
    cnn: Measured
    template: Measured
    each: list[tuple[Measured, Measured]]
    chosen_on: Measured | None
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


def _row(chosen_on: list[Subject], held_out: list[Subject], contender: Contender, counts: Counts) -> Row:
    count = counts.made(held_out, contender) or counts.others
    found = [runs.scores(subject, contender, REPORTING, count) for subject in held_out]
    groups = torch.arange(count) // NOISES

    def gains(subjects: list[Subject]) -> tuple[Measured, Measured]:
        cnn, template = (choosing.gain(subjects, contender, REPORTING, count, judge) for judge in ("cnn", "template"))
        return cnn, template

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return Row(
        contender,
        count,
        *gains(held_out),
        [gains([subject]) for subject in held_out],
        choosing.gain_if_made(chosen_on, contender, REPORTING, counts.others) if chosen_on else None,
        mean([_frechet(s, contender, count) - _frechet(s, plain(), count) for s in held_out]),
        _looks(found),
        mean([judges.diversity(scores.features, groups) for scores in found]),
    )


@cache
def _frechet(subject: Subject, contender: Contender, count: int) -> float:
    features = runs.scores(subject, contender, REPORTING, count).features
    return judges.frechet(features, judges.real_reference())


def page(
    chosen_on: list[Subject],
    held_out: list[Subject],
    early: list[Subject],
    everywhere: list[Contender],
    others: list[Contender],
    counts: Counts,
) -> str:
    """The whole page, of the contenders whose pictures were made.

    early: states that are not in the main table. everywhere: contenders that all models were asked for; others:
    those of held_out alone.
    """
    each = {**dict.fromkeys((*chosen_on, *early), counts.others), **dict.fromkeys(held_out, counts.held_out)}
    asked = {
        subject: count for subject, count in each.items() if choosing.was_made([subject], plain(), REPORTING, count)
    }
    contenders, missing = made_and_missing(held_out, [*everywhere, *others], counts.others)
    found = [_row(chosen_on, held_out, contender, counts) for contender in (plain(), *contenders)]
    parts = [
        _introduction(chosen_on, held_out, counts, missing),
        _means(found),
        _by_subject(asked, contenders, counts.others),
        _together([*held_out, *early], contenders, counts.others),
        _own({subject: count for subject, count in asked.items() if not subject.early}, everywhere[0]),
        _unguided(asked),
        _chosen(),
    ]
    return "\n\n".join(parts) + "\n"


def made_and_missing(
    subjects: list[Subject], contenders: list[Contender], count: int
) -> tuple[list[Contender], list[Contender]]:
    """The contenders whose pictures by all these models are there, and the rest."""
    made = [contender for contender in contenders if choosing.was_made(subjects, contender, REPORTING, count)]
    return made, [contender for contender in contenders if contender not in made]


def _introduction(chosen_on: list[Subject], held_out: list[Subject], counts: Counts, missing: list[Contender]) -> str:
    not_yet = f"\n\nNot measured yet: {', '.join(contender.name for contender in missing)}." if missing else ""
    return f"""# What guidance does, measured

Made by `make evidence` on models that `make lab` trains: small FLUX models (8 double and 4 single blocks, 1 head) on pictures
of coloured shapes. **Nothing here was measured on FLUX.1's own weights.**

{counts.held_out:,} pictures of NAG-PAG, but for that on CFG, and of CFG 2 by each late model that settings were not chosen on, {counts.others:,} of the other peers and by each other model; the same
prompts and noise for all, {sampling.STEPS} Euler steps through ComfyUI's sampler and nodes. An object is right when its shape and colour are, in its
place. Two judges: a small CNN ({judges.held_out_accuracy():.2%} right on held-out renders) and a fit of the renderer's own templates, which knows
nothing of the CNN. Errors are of a paired bootstrap over the prompts, and hold nothing of how training runs differ: for that, look at
each model. A gain counts when it is above two errors for both judges; "harms" means below minus two errors for either. Passes are
counted at FLUX.1's proportions of blocks; a `softened` attention's one more attention call in its blocks is not in them.

Settings were chosen on other prompts and noise, looking at the late states of seeds 0 to 3. The table is measured on models that
nobody had looked at: {_names(held_out)}; "seen" is the mean of both judges on {_names(chosen_on)}, where an earlier choice had been measured on
these prompts, too. Of the peers the choosing set was asked, too (the round *peers* below): classic PAG stands at its own best block, ComfyUI's nodes at their
defaults (SkipLayerGuidanceDiT in one double block) and at the best of a few other settings. NAGuidance acts only where the host has room to run both prompts in one batch, and
is silently absent elsewhere: it was given 8 pictures at once. Of reused CFG the passes are what it would cost; here the host computed both. The columns from Fréchet on have no errors. As published: blocks 8, 12 and 16 of FLUX.1's 19, for which those at the
same depth stand here (3, 5, 6), tau 2.5, alpha 0.25, inside the attention; the HTTP defaults are the node's, but for these blocks.

A model can say by itself which guidance suits it: [calibration](calibration.md). These models have one head, so that
nothing is known here of single heads.{not_yet}

![Gain against cost](evidence/pareto.png)

![The same prompts and noise under each contender](evidence/sheet.png)

On the choosing set, where the defaults come from:

{_links()}"""


def _links() -> str:
    """The plots of the rounds; those whose pictures are not all there are named instead."""
    drawn = [f"![{title}](evidence/{name}.png)" for name, (title, _) in ROUND_PLOTS.items() if _whole(name)]
    missing = [title for name, (title, _) in ROUND_PLOTS.items() if not _whole(name)]
    return "\n\n".join(drawn + ([f"Not measured yet: {'; '.join(missing)}."] if missing else []))


def _whole(name: str) -> bool:
    asked = choosing.ROUNDS[name]
    return all(
        choosing.was_made(asked.subjects, contender, CHOOSING, choosing.COUNT) for contender in asked.contenders()
    )


def _names(subjects: list[Subject]) -> str:
    return "; ".join(map(str, subjects))


def _means(found: list[Row]) -> str:
    head = (
        "",
        "passes",
        "pictures",
        "CNN",
        "template fit",
        "so it",
        "helps",
        "harms",
        "seen",
        "Fréchet",
        *LOOKS,
        "diversity",
    )
    real = judges.real_scores()
    rows = [*map(_cells, found), ["real renders", *[""] * 9, *_looks([real]), ""]]
    return f"""## The table
Change in the share of objects right on models that were not looked at; *pictures*: by each of them; the Fréchet distance
of the CNN's features to real renders (change; lower is better).

{table(head, rows)}"""


def _cells(row: Row) -> list[str]:
    verdicts = [_verdict(row.cnn, row.template), row.models("helps"), row.models("harms")]
    change = [str(row.cnn), str(row.template), *verdicts, str(row.chosen_on or "–"), f"{row.frechet:+.1f}"]
    if row.contender.key == plain().key:
        change = [""] * len(change)
    passes = f"{row.contender.passes:.2f}"
    return [row.contender.name, passes, str(row.count), *change, *row.looks, f"{row.diversity:.2f}"]


def _by_subject(asked: dict[Subject, int], contenders: list[Contender], others: int) -> str:
    def row(contender: Contender) -> list[str]:
        gains = (
            choosing.gain_if_made([subject], contender, REPORTING, count)
            or choosing.gain_if_made([subject], contender, REPORTING, others)
            for subject, count in asked.items()
        )
        return [contender.name, *(str(gain or "–") for gain in gains)]

    return f"""## Each model
Change in the share of objects right, mean of both judges; – where a model was not asked.

{table(("", *map(str, asked)), map(row, contenders))}"""


def _together(subjects: list[Subject], contenders: list[Contender], count: int) -> str:
    """The gains on all states of the models that settings were not chosen on, early ones too."""
    made, _ = made_and_missing(subjects, contenders, count)
    rows = [
        [c.name, *(str(choosing.gain(subjects, c, REPORTING, count, judge)) for judge in ("cnn", "template"))]
        for c in made
    ]
    return f"""## Late and early states together
Change in the share of objects right over {_names(subjects)}, none of which settings were chosen on.

{table(("", "CNN", "template fit"), rows)}"""


def own_settings(subject: Subject) -> list[Contender | None]:
    """Of the neighbours what is best for this model: by the judges, and by what it finds again; None: not looked at."""
    return [choosing.own_if_made(subject), recovery.own_if_made(subject)]


def _own(asked: dict[Subject, int], default: Contender) -> str:
    """What the settings gain that were found for each model by itself."""

    def row(subject: Subject, count: int) -> list[str]:
        found = [*own_settings(subject), default]
        gains = [choosing.gain_if_made([subject], c, REPORTING, count) if c else None for c in found]
        words = (f"{gain or '–'} ({c.name})" if c else "–" for c, gain in zip(found[:2], gains, strict=False))
        return [str(subject), *words, str(gains[2] or "–")]

    return f"""## Settings of each model's own
For each late model by itself, the best of the {len(choosing.neighbours())} settings in the round *neighbours* below, by the choosing set: by the judges (a search by
successive halving, lab/search.py), and by the model alone, without a judge (*recovery*: the measure of NAG-PAG Calibrate, whose own candidates are others, see
[calibration](calibration.md)). Here they meet the prompts and noise of the table. Change in the share of objects right,
mean of both judges.

{table(("", "found by the judges", "found by the model", "the node's defaults"), itertools.starmap(row, asked.items()))}"""


def _unguided(asked: dict[Subject, int]) -> str:
    def row(subject: Subject, count: int) -> list[str]:
        found = runs.scores(subject, plain(), REPORTING, count)
        right = (found.cnn_right, found.template_right)
        shares = (f"{float(part.sum() / found.objects.sum()):.3f}" for part in right)
        return [str(subject), *shares, f"{_frechet(subject, plain(), count):.2f}"]

    return f"""## The models without guidance

{table(("", "CNN", "template fit", "Fréchet"), itertools.starmap(row, asked.items()))}"""


def _chosen() -> str:
    """What was looked at before the defaults were chosen, as far as it was made."""
    rounds = [f"### Round: {name}\n\n{choosing.table(asked)}" for name, asked in choosing.ROUNDS.items()]
    introduction = f"""## What was tried
On the choosing set (other prompts and noise than above), change in the share of objects right, mean of both judges, {choosing.COUNT}
pictures by each model; – where none were made. Of the neighbours, a search by successive halving
(lab/search.py) followed the best further. The best of many is too good by selection; what counts is the table above.
Inputs that are not named: scale 3, tau 1.5, alpha 0.1, the whole perturbation (1), identity; *attention*: reach attention; *branch*: reach
double blocks, renewed every 4th step."""
    return "\n\n".join([introduction, *rounds])


# --- plots ---


def draw(subjects: list[Subject], contenders: list[Contender], counts: Counts) -> None:
    """In docs/evidence: gain against cost, the same prompts for all; on the choosing set gain by block, strength, reach
    and part of the sampling."""
    PICTURES.mkdir(exist_ok=True)
    contenders, _ = made_and_missing(subjects, contenders, counts.others)
    figures = {
        "pareto": _pareto(subjects, contenders, counts),
        "sheet": _sheet(subjects[0], [plain(), *contenders]),
        **{name: draw_round() for name, (_, draw_round) in ROUND_PLOTS.items() if _whole(name)},
    }
    for name, figure in figures.items():
        figure.savefig(PICTURES / f"{name}.png", dpi=90 if name == "sheet" else 110)


def _pareto(subjects: list[Subject], contenders: list[Contender], counts: Counts) -> Any:
    """Above near zero, below all of it: what harms lies far down."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    near, whole = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for i, contender in enumerate(contenders):
        gain = choosing.gain(subjects, contender, REPORTING, counts.made(subjects, contender) or counts.others)
        style = {"fmt": "os^D"[i % 4], "color": f"C{i % 10}", "capsize": 3}
        for ax in (near, whole):
            ax.errorbar(contender.passes, gain.value, 2 * gain.error, **style, label=contender.name)
    for ax in (near, whole):
        ax.axhline(0, color="grey", linewidth=0.8)
    near.set_ylim(-0.06, None)
    whole.set_xlabel("model passes a step, at FLUX.1's proportions")
    figure.supylabel("change in objects right, models not chosen on (two errors)", fontsize=10)
    figure.legend(*near.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _by_block() -> Any:
    figure, axes = _figure("double block", 2)
    contenders, subjects = choosing.blocks_round(), choosing.ROUNDS["blocks"].subjects
    halves = (contenders[:DOUBLES], contenders[DOUBLES:])
    for ax, half, title in zip(axes, halves, ("attention", "output, renewed every 4th step"), strict=True):
        for subject in subjects:
            _line(ax, list(range(len(half))), half, [subject], str(subject))
        ax.set_title(f"one block, reach {title}", fontsize=9)
    axes[0].legend(fontsize=8)
    return figure


def _by_strength() -> Any:
    """Gain, and the share of tokens at the limit, by alpha and by scale."""
    figure, axes = _figure("alpha", 2)
    contenders, subjects = choosing.strength_round(), choosing.ROUNDS["strength"].subjects
    number = len(choosing.ALPHAS)
    for ax, some, name in zip(axes, (contenders[:number], contenders[number:]), ("alpha", "scale"), strict=True):
        values = [contender.settings[name] for contender in some]
        _line(ax, values, some, subjects, "gain")
        limited = ax.twinx()
        limited.plot(values, [clamped_share(subjects[0], contender) for contender in some], "s:", color="tab:orange")
        limited.set_ylim(0, 1.05)
        ax.set_xlabel(name)
        ax.set_xscale("log")
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()
        ax.set_title({"alpha": "at scale 3", "scale": "at alpha 0.15"}[name], fontsize=9)
    limited.set_ylabel(f"tokens at the limit, {subjects[0]} (dotted)", fontsize=8)
    return figure


def clamped_share(subject: Subject, contender: Contender, pictures: int = 8) -> float:
    """The share of guided tokens at the limit tau, over blocks and steps, in a few pictures of the choosing set."""
    enter_host()
    from ...nagpag.diagnostics.record import Record
    from ...nagpag.diagnostics.recording import record_model

    record = Record()
    model = record_model(contender.patch(sampling.load(subject.file)), record)
    scenes, seeds = CHOOSING.rows(0)
    sampling.sample(model, scenes[:pictures], seeds[:pictures], contender.cfg)
    rows = record.recordings[-1].rows
    return sum(row.clamped for row in rows) / len(rows)


def _by_reach() -> Any:
    figure, (axes,) = _figure("model passes a step", 1)
    attention, *branches = choosing.reach_round()
    subjects, each = choosing.ROUNDS["reach"].subjects, len(choosing.RENEWALS)
    for contenders, label in (
        ([attention], "attention"),
        (branches[:each], "double blocks"),
        (branches[each:], "output"),
    ):
        _line(axes, [contender.passes for contender in contenders], contenders, subjects, f"reach {label}")
    for contender in branches:
        gain = _gain(subjects, contender)
        axes.annotate(f" {contender.settings['renew_every']}", (contender.passes, gain.value), fontsize=8)
    axes.set_title("numbers: renewed every so many steps", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def _by_steps() -> Any:
    figure, (axes,) = _figure("part of the sampling", 1)
    contenders, subjects = choosing.steps_round(), choosing.ROUNDS["steps"].subjects
    number = len(choosing.PERCENTS)
    for some, label, name in (
        (contenders[:number], "from 0 to here", "end_percent"),
        (contenders[number:], "from here to 1", "start_percent"),
    ):
        _line(axes, [contender.settings[name] for contender in some], some, subjects, label)
    axes.set_title("the defaults in a part of the sampling", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def _figure(x: str, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 + 2.5 * columns, 3.5), layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for ax in axes:
        ax.axhline(0, color="grey", linewidth=0.8)
        ax.set_xlabel(x)
    figure.supylabel("change in objects right (two errors)", fontsize=9)
    return figure, axes


def _line(axes: Any, x: list, contenders: list[Contender], subjects: list[Subject], label: str) -> None:
    gains = [_gain(subjects, contender) for contender in contenders]
    axes.errorbar(x, [g.value for g in gains], [2 * g.error for g in gains], fmt="o-", capsize=3, label=label)


def _gain(subjects: list[Subject], contender: Contender) -> Measured:
    return choosing.gain(subjects, contender, CHOOSING, choosing.COUNT)


ROUND_PLOTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "blocks": ("Gain by block", _by_block),
    "reach": ("Gain by reach and renewal", _by_reach),
    "strength": ("Gain and share of tokens at the limit, by strength", _by_strength),
    "steps": ("Gain by part of the sampling", _by_steps),
}


def _sheet(subject: Subject, contenders: list[Contender], columns: int = 8) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * 1.1, len(contenders) * 1.35))
    grid = figure.subplots(len(contenders), columns, squeeze=False)
    # By hand: a layout engine would make room for the long names beside the pictures.
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.005, top=0.985, wspace=0.06, hspace=0.3)
    for line, contender in zip(grid, contenders, strict=True):
        (job, *_) = runs.jobs([subject], [contender], REPORTING, runs.PART)
        line[0].set_title(contender.name, loc="left", fontsize=8)
        for axes, picture in zip(line, runs.pictures_of(job)[::NOISES], strict=False):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            axes.axis("off")
    return figure
