"""Choose settings on models, prompts and noise of their own: make the pictures of a round, and say what it found."""

from __future__ import annotations

import argparse

from ..make import markdown
from . import cluster, gains, runs
from .contenders import Contender
from .rounds import COUNT, ROUNDS, Round


def main(arguments: list[str]) -> int:
    """Make the pictures of the rounds that are named, or of all, and print what they found."""
    parser = argparse.ArgumentParser(prog="choosing", description=main.__doc__)
    parser.add_argument("rounds", nargs="*", metavar="round", help="; ".join(ROUNDS))
    parser.add_argument("--ray", default="", metavar="ADDRESS", help=cluster.HELP)
    asked_for = parser.parse_args(arguments)
    names = asked_for.rounds or list(ROUNDS)
    if unknown := [name for name in names if name not in ROUNDS]:
        parser.error(f"no round is called {unknown[0]!r}; there are {'; '.join(ROUNDS)}")
    wanted = [ROUNDS[name] for name in names]
    if not any(asked.subjects for asked in wanted):
        parser.error(f"none of the models {', '.join(wanted[0].names)} is trained yet; make lab trains them")
    for name, asked in zip(names, wanted, strict=True):
        runs.make_pictures(asked.wanted(), asked_for.ray)
        print(f"{name}\n\n{table(asked)}\n", flush=True)
    return 0


def table(asked: Round) -> str:
    """What a round found, as far as its pictures are there: the gain on each model, and on all by either judge."""

    models = asked.measured or asked.subjects

    def row(contender: Contender) -> list[str]:
        each = [gains.gain_if_made([subject], contender, asked.prompts, COUNT) for subject in models]
        both = [gains.gain_if_made(models, contender, asked.prompts, COUNT, judge) for judge in gains.JUDGES]
        return [contender.name, f"{contender.passes:.2f}", *(str(found or "–") for found in (*each, *both))]

    head = ("", "passes", *map(str, models), "all, CNN", "all, template fit")
    return markdown.table(head, map(row, asked.contenders()))
