"""At few steps: what guidance gains on models that nobody chose on, and whether it has to begin later."""

from __future__ import annotations

from dataclasses import replace

from ..make import markdown
from . import gains, runs
from .contenders import Contender, cfg, nagpag, plain
from .results import by_both
from .runs import REPORTING, Part, PromptSet
from .subjects import Subject

STEPS = (4, 8)
COUNT = 128  # pictures of each contender by each model
LATER = 0.7  # of the sampling


def contenders(steps: int) -> list[Contender]:
    """Whom the table compares."""
    return [
        nagpag("NAG-PAG, the node's defaults", steps),
        nagpag(f"NAG-PAG from {LATER:.0%} on", steps, start_percent=LATER),
        cfg(2.0),
    ]


def prompts(steps: int) -> PromptSet:
    """Those of the other tables, in so many steps."""
    return replace(REPORTING, steps=steps)


def parts(models: list[Subject]) -> list[Part]:
    """All pictures of the table."""
    made = (runs.parts(models, [plain(), *contenders(steps)], prompts(steps), COUNT) for steps in STEPS)
    return [part for found in made for part in found]


def table(models: list[Subject]) -> str:
    """The change in the share of objects right by either judge, and on each model by both.

    Raises LookupError where no contender's pictures by these models are there.
    """
    asked = [(contender, steps) for steps in STEPS for contender in contenders(steps)]
    rows = [_row(models, *one) for one in asked if _made(models, *one)]
    if not rows:
        raise LookupError(f"no pictures in few steps by {'; '.join(map(str, models))}")
    return markdown.table(("", "steps", "passes", "CNN", "template fit", *map(str, models)), rows)


def _made(models: list[Subject], contender: Contender, steps: int) -> bool:
    return gains.was_made(models, contender, prompts(steps), COUNT)


def _row(models: list[Subject], contender: Contender, steps: int) -> list[str]:
    both = by_both(models, contender, COUNT, prompts(steps))
    each = (gains.gain([model], contender, prompts(steps), COUNT) for model in models)
    return [contender.name, str(steps), f"{contender.passes:.2f}", *map(str, (*both, *each))]
