"""What came of the comparison: whose pictures there are, what each contender gains by them, what the judges say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from ...nagpag.measure import Measured
from . import gains, halving, judges, recovery, runs
from .contenders import Contender, plain
from .runs import NOISES, REPORTING, Subject

LOOKS = ("saturation", "sharpness")


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
            count for count in (self.held_out, self.others) if gains.was_made(subjects, contender, REPORTING, count)
        )
        return next(counts, None)


@dataclass(frozen=True)
class Row:
    """One contender on models that settings were not chosen on: gains by either judge, and how its pictures look.

    count: pictures by each model. cnn, template: of all models together; each: of each model, by both judges;
    chosen_on: the mean of both judges on the models that settings were chosen on, None where these were not asked.
    frechet: the change by guidance. looks: the means of LOOKS.
    """

    contender: Contender
    count: int
    cnn: Measured
    template: Measured
    each: list[tuple[Measured, Measured]]
    chosen_on: Measured | None
    frechet: float
    looks: list[float]
    diversity: float

    @property
    def verdict(self) -> str:
        return _verdict(self.cnn, self.template)

    def models(self, verdict: str) -> str:
        """On how many of the models it helps, or harms."""
        return f"{sum(_verdict(*both) == verdict for both in self.each)} of {len(self.each)}"


def _verdict(cnn: Measured, template: Measured) -> str:
    """What both judges say; a gain counts only when they agree."""
    if cnn.helps and template.helps:
        return "helps"
    return "harms" if cnn.harms or template.harms else "neither"


@dataclass(frozen=True)
class Results:
    """All that the page and its plots show, of the contenders whose pictures by the held-out models are there.

    early: states that are not in the main table. models: of all those whose pictures without guidance are there, how
    many pictures. missing: contenders that were to be compared. default: the node's own settings.
    """

    chosen_on: list[Subject]
    held_out: list[Subject]
    early: list[Subject]
    counts: Counts
    models: dict[Subject, int]
    contenders: list[Contender]
    missing: list[Contender]
    default: Contender

    def rows(self) -> list[Row]:
        """Of the main table; the first is without guidance."""
        return [self._row(contender) for contender in (plain(), *self.contenders)]

    def _row(self, contender: Contender) -> Row:
        count = self.count(contender)
        found = [runs.scores(subject, contender, REPORTING, count) for subject in self.held_out]
        groups = torch.arange(count) // NOISES
        others = self.counts.others
        return Row(
            contender,
            count,
            *by_both(self.held_out, contender, count),
            [by_both([subject], contender, count) for subject in self.held_out],
            gains.gain_if_made(self.chosen_on, contender, REPORTING, others) if self.chosen_on else None,
            _mean([frechet(s, contender, count) - frechet(s, plain(), count) for s in self.held_out]),
            looks(found),
            _mean([judges.diversity(scores.features, groups) for scores in found]),
        )

    def count(self, contender: Contender) -> int:
        """How many pictures of it there are by each of the held-out models."""
        return self.counts.made(self.held_out, contender) or self.counts.others

    def gain_on(self, subject: Subject, contender: Contender) -> Measured | None:
        """On one model, by as many pictures as there are; None where it was not asked."""
        found = (self._gain(subject, contender, count) for count in (self.models[subject], self.counts.others))
        return next((gain for gain in found if gain), None)

    def _gain(self, subject: Subject, contender: Contender, count: int) -> Measured | None:
        return gains.gain_if_made([subject], contender, REPORTING, count)

    @property
    def both_states(self) -> list[Subject]:
        """The held-out models, late and early."""
        return [*self.held_out, *self.early]

    def of_both_states(self) -> list[tuple[Contender, tuple[Measured, Measured]]]:
        """The gains by both judges on all of these together, of those contenders whose pictures are all there."""
        made, _ = made_and_missing(self.both_states, self.contenders, self.counts.others)
        return [(contender, by_both(self.both_states, contender, self.counts.others)) for contender in made]

    def own(self, subject: Subject) -> list[tuple[Contender | None, Measured | None]]:
        """What the settings gain that were found for one model by itself (`own_settings`); last, the default ones."""
        found = [*own_settings(subject), self.default]
        return [(c, self._gain(subject, c, self.models[subject]) if c else None) for c in found]

    def unguided(self, subject: Subject) -> tuple[float, float, float]:
        """One model alone: the share of objects right by each judge, and the Fréchet distance."""
        count = self.models[subject]
        found = runs.scores(subject, plain(), REPORTING, count)
        cnn, template = (float(right.sum() / found.objects.sum()) for right in (found.cnn_right, found.template_right))
        return cnn, template, frechet(subject, plain(), count)


def gather(
    chosen_on: list[Subject],
    held_out: list[Subject],
    early: list[Subject],
    everywhere: list[Contender],
    others: list[Contender],
    counts: Counts,
) -> Results:
    """What there is of all of it.

    everywhere: contenders that all models were asked for, the node's default settings first; others: those of held_out
    alone.
    """
    wanted = {**dict.fromkeys((*chosen_on, *early), counts.others), **dict.fromkeys(held_out, counts.held_out)}
    models = {s: count for s, count in wanted.items() if gains.was_made([s], plain(), REPORTING, count)}
    made, missing = made_and_missing(held_out, [*everywhere, *others], counts.others)
    return Results(chosen_on, held_out, early, counts, models, made, missing, everywhere[0])


def made_and_missing(
    subjects: list[Subject], contenders: list[Contender], count: int
) -> tuple[list[Contender], list[Contender]]:
    """The contenders whose pictures by all these models are there, and the rest."""
    made = [contender for contender in contenders if gains.was_made(subjects, contender, REPORTING, count)]
    return made, [contender for contender in contenders if contender not in made]


def own_settings(subject: Subject) -> list[Contender | None]:
    """Of the neighbours what is best for this model: by the judges, and by what it finds again; None: not looked at."""
    return [halving.own_if_made(subject), recovery.own_if_made(subject)]


# --- numbers ---


def by_both(subjects: list[Subject], contender: Contender, count: int) -> tuple[Measured, Measured]:
    """The gain of all these models' pictures together by the CNN, and by the template fit."""
    cnn, template = (gains.gain(subjects, contender, REPORTING, count, judge) for judge in ("cnn", "template"))
    return cnn, template


def looks(found: list[judges.Scores]) -> list[float]:
    """The means of LOOKS."""
    return [_mean([float(getattr(scores, name).mean()) for scores in found]) for name in LOOKS]


@cache
def frechet(subject: Subject, contender: Contender, count: int) -> float:
    """The distance of these pictures' features to those of real renders."""
    features = runs.scores(subject, contender, REPORTING, count).features
    return judges.frechet(features, judges.real_reference())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
