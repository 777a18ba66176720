"""What came of the comparison: whose pictures there are, what each contender gains by them, what the judges say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from ...nagpag.measure import Measured
from . import gains, judges, runs
from .contenders import Contender, plain
from .domains import Domain
from .runs import NOISES, REPORTING, PromptSet
from .subjects import Subject

LOOKS = ("saturation", "sharpness")


@dataclass(frozen=True)
class Group:
    """Models of one kind. title: of its part of the page; held_out: those that settings were not chosen on."""

    title: str
    held_out: tuple[Subject, ...]

    @property
    def domain(self) -> Domain:
        """What they draw, which is the same for all."""
        return self.held_out[0].domain

    @property
    def trained(self) -> list[Subject]:
        """Those that are there to be measured."""
        return [subject for subject in self.held_out if subject.trained]


@dataclass(frozen=True)
class Row:
    """One contender on a group's models together: gains by either judge, and how its pictures look.

    count: pictures by each model. each: gains of each model, by both judges. frechet: the change by guidance. looks:
    the means of LOOKS.
    """

    contender: Contender
    count: int
    cnn: Measured
    template: Measured
    each: list[tuple[Measured, Measured]]
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
    """What there is of one group. counts: pictures by each model, most first. missing: who was to be compared, too."""

    group: Group
    counts: tuple[int, ...]
    contenders: list[Contender]
    missing: list[Contender]

    @property
    def domain(self) -> Domain:
        return self.group.domain

    @property
    def subjects(self) -> list[Subject]:
        return self.group.trained

    def rows(self) -> list[Row]:
        """Of the table; the first is without guidance."""
        return [self._row(contender) for contender in (plain(), *self.contenders)]

    def _row(self, contender: Contender) -> Row:
        count = self.count(contender)
        found = [runs.scores(subject, contender, REPORTING, count) for subject in self.subjects]
        groups = torch.arange(count) // NOISES
        return Row(
            contender,
            count,
            *by_both(self.subjects, contender, count),
            [by_both([subject], contender, count) for subject in self.subjects],
            _mean([frechet(s, contender, count) - frechet(s, plain(), count) for s in self.subjects]),
            looks(found),
            _mean([judges.diversity(scores.features, groups) for scores in found]),
        )

    def count(self, contender: Contender) -> int:
        """How many pictures of it there are by each of the models."""
        return count_made(self.subjects, contender, self.counts) or self.counts[-1]

    def unguided(self, subject: Subject) -> tuple[float, float, float]:
        """One model alone: the share of objects right by each judge, and the Fréchet distance."""
        count = self.count(plain())
        found = runs.scores(subject, plain(), REPORTING, count)
        cnn, template = (float(right.sum() / found.objects.sum()) for right in (found.cnn_right, found.template_right))
        return cnn, template, frechet(subject, plain(), count)


def gather(group: Group, wanted: list[Contender], counts: tuple[int, ...]) -> Results:
    """What there is of all of it."""
    made = [contender for contender in wanted if count_made(group.trained, contender, counts)]
    return Results(group, counts, made, [contender for contender in wanted if contender not in made])


def count_made(subjects: list[Subject], contender: Contender, counts: tuple[int, ...]) -> int | None:
    """The most pictures of it that there are by all these models; None where not even the fewest."""
    return next((count for count in counts if gains.was_made(subjects, contender, REPORTING, count)), None)


# --- numbers ---


def by_both(
    subjects: list[Subject], contender: Contender, count: int, prompts: PromptSet = REPORTING
) -> tuple[Measured, Measured]:
    """The gain of all these models' pictures together by the CNN, and by the template fit."""
    cnn, template = (gains.gain(subjects, contender, prompts, count, judge) for judge in gains.JUDGES)
    return cnn, template


def looks(found: list[judges.Scores]) -> list[float]:
    """The means of LOOKS."""
    return [_mean([float(getattr(scores, name).mean()) for scores in found]) for name in LOOKS]


@cache
def frechet(subject: Subject, contender: Contender, count: int) -> float:
    """The distance of these pictures' features to those of real renders."""
    features = runs.scores(subject, contender, REPORTING, count).features
    return judges.frechet(features, subject.domain.judges.real_reference())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
