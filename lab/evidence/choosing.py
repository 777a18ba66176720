"""Choose settings on one set of prompts and noise: make the pictures of a round, and say what it found."""

from __future__ import annotations

import argparse

from ..make import markdown
from . import gains, halving
from .contenders import Contender
from .rounds import COUNT, ROUNDS, SEARCHED, Round
from .runs import CHOOSING


def main(arguments: list[str]) -> int:
    """Arguments: a round. Of the neighbours the best are followed further."""
    parser = argparse.ArgumentParser(prog="choosing", description=main.__doc__)
    parser.add_argument("round", choices=ROUNDS)
    asked = ROUNDS[parser.parse_args(arguments).round]
    if missing := [subject for subject in asked.subjects if not subject.file.exists()]:
        parser.error(f"not trained yet: {'; '.join(map(str, missing))}; make lab trains them")
    if asked.searched:
        halving.find(asked.contenders(), asked.subjects)
    else:
        halving.make(asked.subjects, asked.contenders(), COUNT)
    print(table(asked))
    return 0


def table(asked: Round) -> str:
    """What a round found, as far as its pictures are there: the gain on each model, on all, and as a search went on."""

    def row(contender: Contender) -> list[str]:
        each = [gains.gain_if_made([subject], contender, CHOOSING, COUNT) for subject in asked.subjects]
        together = [gains.gain_if_made(asked.subjects, contender, CHOOSING, count) for count in counts]
        return [contender.name, f"{contender.passes:.2f}", *(str(found or "–") for found in (*each, *together))]

    counts = SEARCHED if asked.searched else (COUNT,)
    further = [f"all, {count} pictures" for count in counts[1:]]
    return markdown.table(("", "passes", *map(str, asked.subjects), "all", *further), map(row, asked.contenders()))
