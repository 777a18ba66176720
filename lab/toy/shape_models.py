"""The small FLUX models in FLUX.1's proportions that draw shapes, and their guidance-distilled students.

`lab/run.py shape_models 0 1 0s` trains seeds 0 and 1 and the student of seed 0, one after the other; several may run
side by side.
"""

from __future__ import annotations

from pathlib import Path

from . import open_shapes, students, teachers

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
    """Train the models that are named: lab/run.py shape_models 0 1 0s."""
    try:
        for word in arguments or ["0"]:
            file_of(word)
    except ValueError as error:
        print(f"shape_models: {error}")
        return 2
    for word in arguments or ["0"]:
        print(train(word))
    return 0
