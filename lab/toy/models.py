"""The small FLUX models in FLUX.1's proportions, and their guidance-distilled students, by what they draw.

`lab/run.py models 0 1 0s emoji0` trains seeds 0 and 1 on shapes and one on emoji, and then the student of seed 0, one
thread each. It goes on where it was stopped.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .. import host
from . import emoji_pool, open_shapes, shipping, students, teachers
from .pictures import Pictures

# What is drawn, and the seed, and s for the student.
WORD = re.compile(r"(emoji|)([0-9]{1,6})(s|)", re.ASCII)


class Named(NamedTuple):
    """Which model a word names. drawn: "" for shapes, or "emoji"."""

    drawn: str
    seed: int
    student: bool


def named(word: str) -> Named:
    """Raises ValueError where a word names no model."""
    found = WORD.fullmatch(word)
    if not found:
        raise ValueError(
            f"{word!r} is not a model; valid is a seed such as 0, or 0s for its student, "
            "or emoji0 and emoji0s for those that draw emoji"
        )
    return Named(found[1], int(found[2]), bool(found[3]))


# The name and the digest of what is drawn, and the pictures.
DRAWN: dict[str, tuple[str, Callable[[], str], Callable[[], Pictures]]] = {
    "": ("shapes", open_shapes.digest, open_shapes.pool),
    "emoji": (
        "emoji",
        emoji_pool.digest,
        lambda: Pictures("emoji", emoji_pool.digest(), **emoji_pool.training_pool()),
    ),
}


def file_of(word: str) -> Path:
    """Where the model that a word names lies in the cache. Raises ValueError for other words."""
    drawn, seed, student = named(word)
    name, digest, _ = DRAWN[drawn]
    teacher = teachers.checkpoint((name, digest()), seed)
    return students.checkpoint(teacher) if student else teacher


def train(word: str) -> Path:
    """Train the model that a word names, its teacher first, unless the cache has it; its file."""
    if (target := file_of(word)).exists():
        return target
    drawn, seed, student = named(word)
    learned = DRAWN[drawn][2]()
    teacher = teachers.train(learned, seed)
    return students.distil(teacher, learned, seed) if student else teacher


def main(arguments: list[str]) -> int:
    """Train the models that are named, side by side, teachers first: lab/run.py models 0 1 0s."""
    words = list(dict.fromkeys(arguments or ["0"]))
    try:
        missing = [word for word in words if not file_of(word).exists()]
    except ValueError as error:
        print(f"models: {error}", file=sys.stderr)
        return 2
    if len(missing) == 1:
        train(*missing)
        return 0
    teachers_first = list(dict.fromkeys(word.removesuffix("s") for word in missing))
    for stage in (teachers_first, [word for word in missing if named(word).student]):
        if failed := shipping.side_by_side(_jobs(stage), os.cpu_count() or 1):
            print(f"models: failed: {', '.join(failed)}; the same command goes on from there", file=sys.stderr)
            return 1
    return 0


def _jobs(words: list[str]) -> dict[str, list[str]]:
    """A command for each model that is not there yet."""
    run = [sys.executable, str(host.REPO / "lab" / "run.py"), "models"]
    return {word: [*run, word] for word in words if not file_of(word).exists()}
