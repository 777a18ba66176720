"""What a sweep's file asks for, as a list of jobs. All that is wrong with it is said before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ....inputs import requests as table
from ....inputs import sweep as asked
from ....inputs.kinds import Input, shortened
from ...graphs import recorded
from .ways import GRAPH, AsGraph, AsRequest, BadPlan, unknown

MOST_JOBS = 100_000
TABLES = ("settings", "axes", "cluster")
INTO = (asked.PROMPT_INTO.name, asked.SEED_INTO.name)
KEYS = (*(item.name for item in asked.KEYS), "seeds", *TABLES)
Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """A picture to draw, or a batch of them.

    varied: its values on the axes. way: an endpoint of the service and body the request, or GRAPH and the graph.
    numbers: whether to ask what guidance did.
    """

    prompt: str
    seed: int
    varied: Values
    way: str
    body: dict
    numbers: bool

    @cached_property
    def name(self) -> str:
        """A digest of all that decides the picture."""
        told = json.dumps([self.way, self.body], sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(told.encode()).hexdigest()[:20]

    @property
    def has_numbers(self) -> bool:
        """Whether guidance's numbers come with it."""
        return self.numbers and (self.way != GRAPH or recorded(self.body) is not self.body)

    def with_files(self, picked: dict[str, str | None]) -> Job:
        """The same with these names for the model files that it leaves to be found."""
        found = {name: file for name, file in picked.items() if name in self.body and self.body[name] is None}
        return self if self.way == GRAPH else dataclasses.replace(self, body=self.body | found)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep, read. jobs: each a picture of its own. axes: their names. cluster: [cluster], whole; None: not there."""

    jobs: tuple[Job, ...]
    axes: tuple[str, ...]
    cluster: Values | None

    @property
    def open_files(self) -> set[str]:
        """The fields of model files that some job leaves to be found."""
        names = [item.name for item in table.FILES]
        return {name for job in self.jobs if job.way != GRAPH for name in names if job.body[name] is None}

    def with_files(self, picked: dict[str, str | None]) -> Plan:
        """The same with these names for the model files that are left to be found."""
        return dataclasses.replace(self, jobs=tuple(job.with_files(picked) for job in self.jobs))


def read(path: Path) -> Plan:
    """Read a sweep's file. Raises BadPlan with all that is wrong."""
    told = read_toml(path)
    found = [*unknown(told, KEYS, ""), *wrong_values(told, asked.KEYS), *_wrong_seeds(told)]
    found += wrong_tables(told, TABLES)
    if not told.get("graph"):
        found += [f"{name} is for a graph of one's own: say graph = …" for name in INTO if name in told]
    if found:
        raise BadPlan(path, found)
    if found := [*wrong_cluster(told)]:
        raise BadPlan(path, found)
    ways = AsGraph if told.get("graph") else AsRequest
    way = ways(path, told)
    return Plan(_jobs(path, told, way), tuple(way.axes), cluster_of(told))


def read_toml(path: Path) -> Values:
    """The file's tables. Raises BadPlan."""
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text)
    except OSError as error:
        raise BadPlan(path, [str(error.strerror)]) from None
    except UnicodeDecodeError:
        raise BadPlan(path, ["it is not UTF-8, as TOML is"]) from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = f": {text.splitlines()[int(at[1]) - 1].strip()}" if at else ""
        raise BadPlan(path, [f"{error}{line}"]) from None


def wrong_values(told: Values, items: Iterable[Input], where: str = "") -> Iterator[str]:
    """What is wrong with the values of these inputs, or missing."""
    for item in items:
        if item.name in told:
            if problem := item.problem(told[item.name]):
                yield where + problem.removesuffix(" or null")
        elif item.required:
            yield f"{where}{item.name} is missing: {item.rule()}"


def _wrong_seeds(told: Values) -> Iterator[str]:
    seeds = told.get("seeds")
    if not isinstance(seeds, list) or not seeds:
        yield "seeds is missing: a list of whole numbers" if seeds is None else f"seeds {shortened(seeds)} is no list"
        return
    for seed in seeds:
        if problem := table.SEED.problem(seed):
            yield f"seeds: {problem.removesuffix(' or null')}"


def wrong_tables(told: Values, names: Iterable[str]) -> Iterator[str]:
    """Which of these is there and is no table."""
    for name in names:
        if not isinstance(told.get(name, {}), dict):
            yield f"{name} {shortened(told[name])} is no table: write [{name}] on a line of its own"


def wrong_cluster(told: Values) -> Iterator[str]:
    """What is wrong with [cluster], where it is there."""
    if "cluster" in told:
        yield from unknown(told["cluster"], [item.name for item in asked.CLUSTER], "cluster.")
        yield from wrong_values(told["cluster"], asked.CLUSTER, "cluster.")


def cluster_of(told: Values) -> Values | None:
    """[cluster] with its defaults, where it is there."""
    cluster = told.get("cluster")
    return None if cluster is None else {item.name: cluster.get(item.name, item.default) for item in asked.CLUSTER}


def _jobs(path: Path, told: Values, way: AsGraph | AsRequest) -> tuple[Job, ...]:
    """Every combination, the prompts turning slowest and the last axis fastest; the same one once."""
    count = len(told["prompts"]) * len(told["seeds"]) * math.prod(map(len, way.axes.values()))
    if count > MOST_JOBS:
        raise BadPlan(path, [f"prompts × seeds × axes are {count} pictures, more than {MOST_JOBS}"])
    points = [dict(zip(way.axes, values, strict=True)) for values in itertools.product(*way.axes.values())]
    if found := list(dict.fromkeys(problem for point in points for problem in way.problems_between(point))):
        raise BadPlan(path, found)
    numbers = told.get(asked.NUMBERS.name, asked.NUMBERS.default)
    jobs = (
        Job(prompt, seed, way.shown(point), way.name, way.body(prompt, seed, point), numbers)
        for prompt, seed, point in itertools.product(told["prompts"], told["seeds"], points)
    )
    return tuple({job.name: job for job in jobs}.values())
