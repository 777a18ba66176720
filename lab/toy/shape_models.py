"""The small FLUX models in FLUX.1's proportions that draw shapes, and their guidance-distilled students.

`lab/run.py shape_models 0 1 0s` trains seeds 0 and 1 and then the student of seed 0, one thread each. It goes on where
it was stopped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .. import host
from . import open_shapes, shipping, students, teachers

STUDENT = "s"  # behind a seed: its student


def file_of(word: str) -> Path:
    """Where the model that a word names lies in the cache: a seed such as "0", or "0s" for its student.

    Raises ValueError for other words.
    """
    seed = word.removesuffix(STUDENT)
    if not (seed.isascii() and seed.isdigit()):
        raise ValueError(f"{word!r} is not a model; valid is a seed such as 0, or 0{STUDENT} for its student")
    teacher = teachers.checkpoint(("shapes", open_shapes.digest()), int(seed))
    return students.checkpoint(teacher) if word != seed else teacher


def train(word: str) -> Path:
    """Train the model that a word names, its teacher first, unless the cache has it; its file."""
    target = file_of(word)
    if target.exists():
        return target
    seed, learned = int(word.removesuffix(STUDENT)), open_shapes.pool()
    teacher = teachers.train(learned, seed)
    return students.distil(teacher, learned, seed) if word.endswith(STUDENT) else teacher


def main(arguments: list[str]) -> int:
    """Train the models that are named, side by side, teachers first: lab/run.py shape_models 0 1 0s."""
    words = list(dict.fromkeys(arguments or ["0"]))
    try:
        missing = [word for word in words if not file_of(word).exists()]
    except ValueError as error:
        print(f"shape_models: {error}", file=sys.stderr)
        return 2
    if len(missing) == 1:
        train(*missing)
        return 0
    teachers_first = list(dict.fromkeys(word.removesuffix(STUDENT) for word in missing))
    for stage in (teachers_first, [word for word in missing if word.endswith(STUDENT)]):
        if failed := shipping.side_by_side(_jobs(stage), os.cpu_count() or 1):
            print(f"shape_models: failed: {', '.join(failed)}; the same command goes on from there", file=sys.stderr)
            return 1
    return 0


def _jobs(words: list[str]) -> dict[str, list[str]]:
    """A command for each model that is not there yet."""
    run = [sys.executable, str(host.REPO / "lab" / "run.py"), "shape_models"]
    return {word: [*run, word] for word in words if not file_of(word).exists()}
