"""The page that `lab/run.py calibrate` writes: signals beside the judges' gains, and whether they rank alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from ...nagpag.measure import Measured
from .. import host
from ..make.markdown import table
from . import recovery_page
from .alignment import PICTURES, SIGMAS, SIGNALS, STRENGTHS, Model, Setting
from .recovery import Found
from .runs import PART_SIZE
from .signals import rank_agreement

PAGE = host.REPO / "docs" / "calibration.md"
LEAST = 3  # settings for a rank agreement


def page(models: list[Model], found: list[Found]) -> str:
    """The whole page as Markdown."""
    parts = [
        "# Calibration without a judge",
        INTRODUCTION.format(judged=PART_SIZE),
        recovery_page.section(found),
        "# The other signal: alignment",
        ALIGNMENT.format(pictures=PICTURES, sigmas=_list(SIGMAS)),
        "## Does it rank blocks as the judges do?",
        agreement_table(models),
        AGREEMENT_NOTES,
        "![Gain against each signal](calibration.png)",
        "## What a signal's first choice gains",
        choice_table(models),
        "## Reading",
        reading(models),
        *(f"## {model.name.capitalize()}\n\n{signal_table(model)}" for model in models),
    ]
    return "\n\n".join(parts) + "\n"


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def signal_table(model: Model) -> str:
    """A row a setting: each signal and the gain, with standard errors; best gain first, what is not judged last."""

    def cells(setting: Setting) -> list[str]:
        numbers, gain = model.numbers[setting], model.gains.get(setting)
        return [str(setting), str(gain or "not judged"), *map(str, numbers.values())]

    def place(setting: Setting) -> float:
        return -model.gains[setting].value if setting in model.gains else 1.0

    return table(["", "judges' gain", *SIGNALS], map(cells, sorted(model.numbers, key=place)))


# --- rank agreement ---


def agreement(signal: dict[Setting, float], gains: dict[Setting, float]) -> Measured | None:
    """None where too few settings are in both."""
    return rank_agreement(signal, gains) if len(signal.keys() & gains.keys()) >= LEAST else None


def agreement_table(models: list[Model]) -> str:
    """A row a signal, a column a model and reach; and what gains that are known already would say."""
    columns = [(model, reach) for model in models for reach in ("", *STRENGTHS)]

    def row(name: str, values: Iterable[dict[Setting, float]]) -> list[str]:
        found = (agreement(v, model.judged(reach)) for v, (model, reach) in zip(values, columns, strict=True))
        return [name, *(_short(measured) for measured in found)]

    def halves(model: Model, reach: str) -> Measured | None:
        first, second = ({s: v for s, v in half.items() if s in model.judged(reach)} for half in model.halves)
        return agreement(first, second)

    rows = [row(name, (model.signal(name) for model, _ in columns)) for name in SIGNALS]
    if len(models) == 2:
        rows.append(row("*the other model's gains*", (models[model is models[0]].judged() for model, _ in columns)))
    rows.append(["*gains, first half against second*", *(_short(halves(*column)) for column in columns)])
    return table(["Spearman's ρ", *(f"{model.name}, {reach or 'both reaches'}" for model, reach in columns)], rows)


def _short(measured: Measured | None) -> str:
    return f"{measured.value:+.2f} ± {measured.error:.2f}" if measured else ""


def choice_table(models: list[Model]) -> str:
    """The judges' gain of the setting that each signal puts first; beside it the best and the mean of all settings."""

    def row(name: str, chosen: Iterable[tuple[Model, Setting]]) -> list[str]:
        return [name, *(f"{model.gains[setting]} ({setting})" for model, setting in chosen)]

    judged = [model for model in models if model.judged()]
    rows = [row(name, ((model, model.first_choice(name)) for model in judged)) for name in SIGNALS]
    rows.append(row("*the judges' own best*", ((m, max(m.judged(), key=m.judged().__getitem__)) for m in judged)))
    rows.append(["*mean of all settings*", *(f"{statistics.mean(m.judged().values()):+.3f}" for m in judged)])
    return table(["", *(model.name for model in judged)], rows)


def reading(models: list[Model]) -> str:
    """In words, by the rule that two standard errors count."""
    judged = [model for model in models if len(model.judged()) >= LEAST]
    lines = [f"- {name}: {_verdict([rank_agreement(m.signal(name), m.judged()) for m in judged])}" for name in SIGNALS]
    cosines = [numbers["cosine"] for model in models for numbers in model.numbers.values()]
    beyond = sum(cosine.helps or cosine.harms for cosine in cosines)
    return "\n".join([READING, "", *lines, "", WHY.format(beyond=beyond, cosines=len(cosines)), "", CAUTION])


def _verdict(found: list[Measured]) -> str:
    helps, harms = sum(f.helps for f in found), sum(f.harms for f in found)
    if helps == len(found) > 0:
        return "ranks the settings as the judges do, on every model looked at."
    if not helps and not harms:
        return "no agreement beyond error bars on any model."
    return f"agrees beyond error bars on {helps} of {len(found)} models, disagrees beyond them on {harms}."


INTRODUCTION = """\
A user of FLUX.1 has no judge of shapes, only the model and some prompts. Can these say which guidance helps? Written by
`python3 lab/host.py run -- lab/run.py calibrate`, on small FLUX models trained here; nothing of this was tried on
FLUX.1's own weights. Two signals were tried. **Recovery** is what the node *NAG-PAG Calibrate* asks: \
it ranks settings much as
the judges do. The other, alignment, does not.

**Gain** is the change in the share of objects right, the mean of two judges, on {judged} pictures of the choosing set
(lab/evidence/choosing.py)."""

ALIGNMENT = """\
{pictures} held-out renders with their captions are noised to sigma {sigmas}. What the model predicts
without guidance misses the true picture by the residual r; guidance moves the prediction by δ. *cosine* is
⟨δ, r⟩ / ‖δ‖‖r‖; *weight* the w for which Σ‖r − wδ‖² is least; *closer* by how much of ‖r‖² less is left with δ added as
it is. All over the sigmas together, each counting alike. Gains are of the same blocks, reaches, scale, tau and alpha;
branches to the output were renewed every 4th step for the judges and at every step for the signals."""

AGREEMENT_NOTES = """\
The errors are the spread over resampled settings, 16 a model or 8 a reach; they do not hold the noise of the signals
and gains themselves. The last row says how well gains of one half of the prompts foretell those of the other: where it
is low, no signal can be expected to be high. CFG is left out, as a far point that would decide the ranks."""

READING = "By agreement over both reaches, where more than two standard errors count:"

WHY = """\
Of {cosines} cosines, CFG's with them, {beyond} lie more than two standard errors from 0. There is a reason: a model
trained to the least square predicts the mean of all pictures that noise and caption allow, so that what it misses is on
average at right angles to anything that can be computed from these, guidance too. Only a model's faults show in the
cosine, and CFG, which gained most where it was judged, does not. \
*closer* is then little more than minus the size of the push: it
puts the weakest guidance first, whatever that does to a picture."""

CAUTION = """\
Sixteen settings on each of two models are few, and the signals were looked at without a correction for their number.
The gains of most settings lie within their own errors of 0 and of each other; where the last row of the first table is
near 0, the order of gains is mostly noise, and no signal could be seen to foretell it. \
So alignment says nothing of which
block to guide."""
