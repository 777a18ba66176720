"""docs/evidence.md, from the pictures that `evidence` made."""

from __future__ import annotations

from .. import host
from ..make.markdown import table
from . import choosing, judges, plots, rounds, sampling
from .contenders import Contender, plain
from .results import LOOKS, Results, Row, looks
from .rounds import COUNT, ROUNDS
from .runs import Subject

OUTPUT = host.REPO / "docs" / "evidence.md"


def page(results: Results) -> str:
    """The whole page, of the contenders whose pictures were made."""
    parts = [
        _introduction(results),
        _means(results.rows()),
        _by_subject(results),
        _together(results),
        _own(results),
        _unguided(results),
        _chosen(),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(results: Results) -> str:
    missing = ", ".join(contender.name for contender in results.missing)
    not_yet = f"\n\nNot measured yet: {missing}." if missing else ""
    return f"""# What guidance does, measured

Made by `make evidence` on models that `make lab` trains: \
small FLUX models (8 double and 4 single blocks, 1 head) on pictures
of coloured shapes. **Nothing here was measured on FLUX.1's own weights.**

{results.counts.held_out:,} pictures of NAG-PAG, but for that on CFG, \
and of CFG 2 by each late model that settings were not chosen on, \
{results.counts.others:,} of the other peers and by each other model; the same
prompts and noise for all, {sampling.STEPS} Euler steps through ComfyUI's sampler and nodes. \
An object is right when its shape and colour are, in its
place. Two judges: a small CNN ({judges.held_out_accuracy():.2%} right on held-out renders) \
and a fit of the renderer's own templates, which knows
nothing of the CNN. Errors are of a paired bootstrap over the prompts, \
and hold nothing of how training runs differ: for that, look at
each model. A gain counts when it is above two errors for both judges; \
"harms" means below minus two errors for either. Passes are
counted at FLUX.1's proportions of blocks; a `softened` attention's one more attention call in its blocks is not in \
them.

{_choice(results)}

A model can say by itself which guidance suits it: [calibration](calibration.md). These models have one head, so that
nothing is known here of single heads.{not_yet}

![Gain against cost](evidence/pareto.png)

![The same prompts and noise under each contender](evidence/sheet.png)

On the choosing set, where the defaults come from:

{_links()}"""


def _choice(results: Results) -> str:
    """What settings were chosen by, and what each peer stands at."""
    return f"""Settings were chosen on other prompts and noise, looking at the late states of seeds 0 to 3. \
The table is measured on models that
nobody had looked at: {_names(results.held_out)}; \
"seen" is the mean of both judges on {_names(results.chosen_on)}, where an earlier choice had been measured on
these prompts, too. Of the peers the choosing set was asked, too (the round *peers* below): \
classic PAG stands at its own best block, ComfyUI's nodes at their
defaults (SkipLayerGuidanceDiT in one double block) and at the best of a few other settings. \
NAGuidance acts only where the host has room to run both prompts in one batch, and
is silently absent elsewhere: it was given 8 pictures at once. Of reused CFG the passes are what it would cost; \
here the host computed both. The columns from Fréchet on have no errors. As published: \
blocks 8, 12 and 16 of FLUX.1's 19, for which those at the
same depth stand here (3, 5, 6), tau 2.5, alpha 0.25, inside the attention; \
the HTTP defaults are the node's, but for these blocks."""


def _links() -> str:
    """The plots of the rounds; those whose pictures are not all there are named instead."""
    titles = {name: title for name, (title, _) in plots.ROUND_PLOTS.items()}
    drawn = [f"![{title}](evidence/{name}.png)" for name, title in titles.items() if ROUNDS[name].made()]
    missing = [title for name, title in titles.items() if not ROUNDS[name].made()]
    return "\n\n".join(drawn + ([f"Not measured yet: {'; '.join(missing)}."] if missing else []))


def _names(subjects: list[Subject]) -> str:
    return "; ".join(map(str, subjects))


def _means(rows: list[Row]) -> str:
    judged = ("CNN", "template fit", "so it", "helps", "harms", "seen", "Fréchet")
    head = ("", "passes", "pictures", *judged, *LOOKS, "diversity")
    real = ["real renders", *[""] * 9, *map(_look, looks([judges.real_scores()])), ""]
    return f"""## The table
Change in the share of objects right on models that were not looked at; *pictures*: by each of them; \
the Fréchet distance
of the CNN's features to real renders (change; lower is better).

{table(head, [*map(_cells, rows), real])}"""


def _cells(row: Row) -> list[str]:
    verdicts = [row.verdict, row.models("helps"), row.models("harms")]
    change = [str(row.cnn), str(row.template), *verdicts, str(row.chosen_on or "–"), f"{row.frechet:+.1f}"]
    if row.contender.key == plain().key:
        change = [""] * len(change)
    passes = f"{row.contender.passes:.2f}"
    return [row.contender.name, passes, str(row.count), *change, *map(_look, row.looks), f"{row.diversity:.2f}"]


def _look(value: float) -> str:
    return f"{value:.3f}"


def _by_subject(results: Results) -> str:
    def row(contender: Contender) -> list[str]:
        return [contender.name, *(str(results.gain_on(subject, contender) or "–") for subject in results.models)]

    return f"""## Each model
Change in the share of objects right, mean of both judges; – where a model was not asked.

{table(("", *map(str, results.models)), map(row, results.contenders))}"""


def _together(results: Results) -> str:
    """The gains on all states of the models that settings were not chosen on, early ones too."""
    rows = [[contender.name, *map(str, found)] for contender, found in results.of_both_states()]
    return f"""## Late and early states together
Change in the share of objects right over {_names(results.both_states)}, none of which settings were chosen on.

{table(("", "CNN", "template fit"), rows)}"""


def _own(results: Results) -> str:
    """What the settings gain that were found for each model by itself."""

    def row(subject: Subject) -> list[str]:
        *found, (_, default) = results.own(subject)
        words = (f"{gain or '–'} ({contender.name})" if contender else "–" for contender, gain in found)
        return [str(subject), *words, str(default or "–")]

    late = [subject for subject in results.models if not subject.early]
    return f"""## Settings of each model's own
For each late model by itself, the best of the {len(rounds.neighbours())} settings in the round *neighbours* below, \
by the choosing set: by the judges (a search by
successive halving, lab/evidence/halving.py), and by the model alone, without a judge (*recovery*: \
the measure of NAG-PAG Calibrate, whose own candidates are others, see
[calibration](calibration.md)). Here they meet the prompts and noise of the table. Change in the share of objects right,
mean of both judges.

{table(("", "found by the judges", "found by the model", "the node's defaults"), map(row, late))}"""


def _unguided(results: Results) -> str:
    def row(subject: Subject) -> list[str]:
        cnn, template, frechet = results.unguided(subject)
        return [str(subject), f"{cnn:.3f}", f"{template:.3f}", f"{frechet:.2f}"]

    return f"""## The models without guidance

{table(("", "CNN", "template fit", "Fréchet"), map(row, results.models))}"""


def _chosen() -> str:
    """What was looked at before the defaults were chosen, as far as it was made."""
    found = [f"### Round: {name}\n\n{choosing.table(asked)}" for name, asked in ROUNDS.items()]
    introduction = f"""## What was tried
On the choosing set (other prompts and noise than above), change in the share of objects right, \
mean of both judges, {COUNT}
pictures by each model; – where none were made. Of the neighbours, a search by successive halving
(lab/evidence/halving.py) followed the best further. \
The best of many is too good by selection; what counts is the table above.
Inputs that are not named: scale 3, tau 1.5, alpha 0.1, the whole perturbation (1), identity; *attention*: \
reach attention; *branch*: reach
double blocks, renewed every 4th step."""
    return "\n\n".join([introduction, *found])
