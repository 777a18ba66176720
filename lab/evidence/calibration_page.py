"""The page that `lab/run.py calibrate` writes: does what a model says itself rank settings as the judges do?"""

from __future__ import annotations

import statistics

from .. import host
from ..make.markdown import table
from .contenders import Contender
from .recovery import FEW, GENTLE, SIGMA, Found, beyond, first, others, rank_agreement, values
from .rounds import calibrate_round
from .runs import PART_SIZE

PAGE, PLOT = host.REPO / "docs" / "calibration.md", host.REPO / "docs" / "recovery.png"


def page(found: list[Found]) -> str:
    """The whole page as Markdown."""
    parts = [
        INTRODUCTION.format(sigma=SIGMA, pictures=PART_SIZE),
        agreement_table(found),
        *([verdict(found), own_candidates(found)] if found else []),
        NOTES.format(few=FEW, gentle=-GENTLE),
        "![The judges' gain against the change of recovery](recovery.png)",
        "## What the model's own first choice gains",
        choice_table(found),
        CAUTION,
        "## All settings",
        all_table(found),
    ]
    return "\n\n".join(parts) + "\n"


def agreement_table(found: list[Found]) -> str:
    """A row a model."""

    several = len(found) > 1

    def row(one: Found) -> list[str]:
        agreements = (
            rank_agreement(values(one.changes), one.judged()),
            rank_agreement(values(one.changes), one.gentle()),
            rank_agreement(values(one.few), one.judged()),
            rank_agreement(others(one.gains, [other.gains for other in found]), one.judged()) if several else None,
            rank_agreement(*beyond(one, found)) if several else None,
        )
        return [one.name, str(len(one.gains)), *(f"{a.value:+.2f} ± {a.error:.2f}" if a else "–" for a in agreements)]

    head = ("Spearman's ρ with the judges", "settings", "recovery", "without plain harm", f"by {FEW} pictures")
    return table((*head, "the other models' gains", "recovery beyond the others'"), map(row, found))


def verdict(found: list[Found]) -> str:
    """In words, by the rule that two standard errors count."""
    agreements = [rank_agreement(values(one.changes), one.judged()) for one in found]
    picks = [one.gains[first(one.changes)].value for one in found]
    few = [one.gains[first(one.few)].value for one in found]
    means = [statistics.mean(one.judged().values()) for one in found]
    pairs = [(one.changes[contender], gain) for one in found for contender, gain in one.gains.items()]
    both = sum(change.harms and gain.harms for change, gain in pairs)
    return (
        f"Recovery ranks the settings as the judges do, beyond two errors, on {sum(a.helps for a in agreements)} of "
        f"{len(found)} models, and the other way round on {sum(a.harms for a in agreements)}. What it puts first gains "
        f"{statistics.mean(picks):+.3f} on the average of the models ({statistics.mean(few):+.3f} by {FEW} pictures), "
        f"the mean setting {statistics.mean(means):+.3f}. It sees harm beyond two errors in {both} of "
        f"{sum(g.harms for _, g in pairs)} that the judges see harm in, and in {sum(c.harms for c, _ in pairs)} in all."
    )


def own_candidates(found: list[Found]) -> str:
    """What the node's own candidates gain: which of them it would take, and the best of them."""
    own = {contender.key for contender in calibrate_round()}
    rows = [{c: gain for c, gain in one.gains.items() if c.key in own} for one in found]
    if not all(rows):
        return "Calibrate's own candidates were not drawn by all of these models."
    taken = [first({c: one.changes[c] for c in row}) for one, row in zip(found, rows, strict=True)]
    gains = [row[c].value for row, c in zip(rows, taken, strict=True)]
    best = [max(gain.value for gain in row.values()) for row in rows]
    return (
        f"Of Calibrate's own candidates recovery takes one that gains "
        f"{statistics.mean(gains):+.3f} on the average of the models; the best of them by the judges gains "
        f"{statistics.mean(best):+.3f}."
    )


def choice_table(found: list[Found]) -> str:
    """The judges' gain of what each model puts first, beside the judges' own best and the mean of all settings."""

    def row(one: Found) -> list[str]:
        best = max(one.gains, key=lambda contender: one.gains[contender].value)
        mean = statistics.mean(one.judged().values())
        return [
            one.name,
            first(one.changes).name,
            str(one.gains[first(one.changes)]),
            f"{one.gains[best]} ({best.name})",
            f"{mean:+.3f}",
        ]

    return table(("", "the model's first choice", "its gain", "the judges' own best", "mean of all"), map(row, found))


def all_table(found: list[Found]) -> str:
    """A row a setting: change of recovery and gain on each model, best by the first model's gain."""
    first = found[0].gains if found else {}
    settings = dict.fromkeys(contender for one in found for contender in one.gains)

    def row(contender: Contender) -> list[str]:
        cells = ((one.changes.get(contender), one.gains.get(contender)) for one in found)
        return [contender.name, *(f"{change} / {gain}" if change and gain else "–" for change, gain in cells)]

    ranked = sorted(settings, key=lambda c: -first[c].value if c in first else 1.0)
    return table(("recovery / gain", *(one.name for one in found)), map(row, ranked))


INTRODUCTION = """\
# Calibration without a judge

A user of FLUX.1 has no judge of shapes, only the model and some prompts. Can these say which guidance helps? **They
rank settings as two judges do, on four small models of four, and what *NAG-PAG Calibrate* takes by itself gains most of
what the best that it tries does. On the guidance-distilled one it takes too strong an alpha, which gains nothing:
prefer a gentler one there.**

Written by `python3 lab/host.py run -- lab/run.py calibrate`, on small FLUX models trained here; nothing of this was
tried on FLUX.1's own weights.

Pictures are drawn with and without guidance, noised again to sigma {sigma}, and the *plain* model denoises them,
once with their own prompt and once with the empty one (nagpag/calibration/recovery.py). By how much worse the empty
prompt fits, as a share of the loss with the own prompt, says how surely the model finds the prompt again in the
picture; what counts is the change by guidance. {pictures} pictures of the choosing set for each setting, those that
the judges saw: the candidates of *NAG-PAG Calibrate* itself, CFG 2 and 3, and the rounds *strength*, *reach* and *late*
(docs/evidence.md). **Gain** is the change in the share of objects right, the mean of two judges."""

NOTES = """\
The errors are the spread over resampled settings; many of these are near kin, so that they are too small. *Without
plain harm*: of the settings whose gain is above −{gentle:g} alone, so that the ranks are not those of a few bad ones. \
*By {few} pictures*:
recovery by the first {few} pictures, against the gain by all. *The other models' gains*: \
what would be known of a setting without any look at this model; most of what makes a setting good or bad
carries over. *Beyond the others'*: recovery and gain less their mean on the other models, that is, \
what is this model's own.

The measure was chosen among seven of its kind (near misses instead of the empty prompt, other units) \
on other models than these,
with one head and other proportions; that comparison was done by hand and is not kept. Another kind, whether
guidance points to what the model misses, ranked nothing there. The pictures were kept as bytes, \
so that what guidance does beyond black and white is not
in them; in the node it is."""

CAUTION = """\
The first choice is too good by selection, as is the judges' own best, which is chosen by what it is measured on.
Recovery knows only what the prompt says: beauty, or faults that no word of the prompt is about, it can't see.
Guidance that overdoes the prompt looks good to it, as on the distilled model. Where a change lies within its errors,
its sign says little."""
