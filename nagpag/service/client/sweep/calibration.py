"""The search of NAG-PAG Calibrate in parts, each a graph for one ComfyUI, and what they find together."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ....candidates import read_candidates
from ....inputs import requests as table
from ....inputs import sweep as asked
from ....inputs.calibration import ALPHAS, CALIBRATE, CANDIDATES, PICTURES, SEED
from ....inputs.guidance import NEGATIVE_PROMPT, REACH
from ....inputs.kinds import Input, Socket
from ....settings import Settings
from ...graphs import NUMBERS, Graph
from .kept import Folder, write_whole
from .plan import Job, Plan, Values, cluster_of, read_toml, wrong_cluster, wrong_tables, wrong_values
from .ways import GRAPH, BadPlan, as_asked, unknown, wrong

LEAST_PART = 16  # pictures; more where each prompt has to be in it
COMMON = (REACH.name, NEGATIVE_PROMPT.name)  # what all candidates are tried with
FIELDS: tuple[Input, ...] = (
    *(table.WIDTH, table.HEIGHT, table.NUM_IMAGES, table.DISTILLED_GUIDANCE),
    *(*table.FILES, table.WEIGHT_DTYPE, table.CLIP_TYPE),
)
TABLES: dict[str, dict[str, Input]] = {
    "search": {item.name: item for item in CALIBRATE.widgets},
    "settings": {item.name: item for item in FIELDS},
}


@dataclasses.dataclass(frozen=True)
class Search:
    """A calibration's file, read. search: Calibrate's inputs; settings: fields of a request; both whole."""

    prompts: list[str]
    search: Values
    settings: Values
    cluster: Values | None

    @property
    def open_files(self) -> set[str]:
        """The fields of model files that are left to be found."""
        return {item.name for item in table.FILES if self.settings[item.name] is None}

    def parts(self) -> list[tuple[int, int]]:
        """Seed and number of pictures of each part. Together they draw what one Calibrate would, however many draw.

        Calibrate takes the prompts by turns and the next seed for each batch, so a part begins with the first prompt.
        """
        batch, pictures = self.settings[table.NUM_IMAGES.name], self.search[PICTURES.name]
        turn = batch * len(self.prompts)
        part = turn * -(-LEAST_PART // turn)
        count = max(1, pictures // part)
        sizes = [part] * (count - 1) + [pictures - part * (count - 1)]
        seeds = [(self.search[SEED.name] + i * part // batch) % (SEED.maximum + 1) for i in range(count)]
        return list(zip(map(int, seeds), sizes, strict=True))

    def plan(self, files: dict[str, str | None]) -> Plan:
        """A job for each part, on these files where none is named."""
        settings = self.settings | {name: file for name, file in files.items() if self.settings[name] is None}
        jobs = [
            Job(f"part {number}", seed, {}, GRAPH, self._graph(settings, seed, pictures), numbers=False)
            for number, (seed, pictures) in enumerate(self.parts(), 1)
        ]
        return Plan(tuple(jobs), (), self.cluster)

    def _graph(self, settings: Values, seed: int, pictures: int) -> Graph:
        graph: Graph = {number: _node(kind, **inputs) for number, (kind, inputs) in _NODES.items()}
        links = {"positive": _joined(graph, self.prompts), "latent_image": ["latent", 0]}
        for item in FIELDS:
            kind, name = item.target or ("", "batch_size")
            for node in graph.values():
                if node["class_type"] == (kind or "EmptySD3LatentImage"):
                    node["inputs"][name] = settings[item.name]
        sockets = {item.name: links.get(item.name, [item.name, 0]) for item in _SOCKETS}
        values = self.search | {SEED.name: seed, PICTURES.name: pictures}
        return graph | {"calibrate": _node(CALIBRATE.id, **values, **sockets)}


def _node(kind: str, **inputs: Any) -> dict:
    return {"class_type": kind, "inputs": inputs}


def _output(name: str) -> list:
    return ["calibrate", [item.name for item in CALIBRATE.outputs].index(name)]


_SOCKETS = [item for item in CALIBRATE.inputs if isinstance(item, Socket)]
# Named as the sockets of Calibrate that they go into.
_NODES: dict[str, tuple[str, Values]] = {
    "model": ("UNETLoader", {}),
    "clip": ("DualCLIPLoader", {}),
    "vae": ("VAELoader", {}),
    "latent": ("EmptySD3LatentImage", {}),
    "empty_text": ("CLIPTextEncode", {"text": "", "clip": ["clip", 0]}),
    "empty": ("FluxGuidance", {"conditioning": ["empty_text", 0]}),
    NUMBERS: ("PreviewAny", {"source": _output("numbers")}),
    "plot": ("SaveImage", {"images": _output("IMAGE"), "filename_prefix": "calibrate"}),
}


def _joined(graph: Graph, prompts: Sequence[str]) -> list:
    """Add the prompts, each a CONDITIONING of its own, joined; the link to all of them."""
    joined: list = []
    for i, prompt in enumerate(prompts):
        graph[f"text {i}"] = _node("CLIPTextEncode", text=prompt, clip=["clip", 0])
        graph[f"prompt {i}"] = _node("FluxGuidance", conditioning=[f"text {i}", 0])
        if joined:
            both = {"conditioning_1": joined, "conditioning_2": [f"prompt {i}", 0]}
            graph[f"prompts {i}"] = _node("ConditioningCombine", **both)
        joined = [f"prompts {i}" if joined else f"prompt {i}", 0]
    return joined


# --- the file ---


def read(path: Path) -> Search:
    """Read a calibration's file. Raises BadPlan with all that is wrong."""
    told = read_toml(path)
    found = [*unknown(told, ("prompts", *TABLES, "cluster"), ""), *wrong_values(told, (asked.PROMPTS,))]
    found += wrong_tables(told, (*TABLES, "cluster"))
    if not found:
        found = [problem for name, items in TABLES.items() for problem in _wrong(name, told.get(name, {}), items)]
        found += wrong_cluster(told)
    if found:
        raise BadPlan(path, found)
    search, settings = (
        {item.name: as_asked(item, told.get(name, {}).get(item.name, item.default)) for item in items.values()}
        for name, items in TABLES.items()
    )
    asks = Search(told["prompts"], search, settings, cluster_of(told))
    if found := [*_wrong_together(asks)]:
        raise BadPlan(path, found)
    return asks


def _wrong_together(asks: Search) -> Iterator[str]:
    """What each may be and all together not."""
    least, pictures = len(asks.prompts) * asks.settings[table.NUM_IMAGES.name], asks.search[PICTURES.name]
    if pictures < least:
        yield f"search.pictures {pictures} is less than prompts × num_images, {least}: some prompts would not be drawn"
    try:
        common = Settings(**{name: asks.search[name] for name in COMMON})
        read_candidates(asks.search[CANDIDATES.name], asks.search[ALPHAS.name], common)
    except ValueError as error:
        yield str(error)


def _wrong(name: str, told: Values, items: dict[str, Input]) -> list[str]:
    found = [*unknown(told, items, f"{name}.")]
    return found + [problem for one, value in told.items() if one in items and (problem := wrong(items[one], value))]


# --- what was found ---


def pooled(parts: Sequence[tuple[int, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """What all parts found together, best first: of each candidate the mean change, a part counting by its pictures.

    parts: the pictures of each, and its candidates as Calibrate tells them: blocks, alpha, change, error. The parts'
    errors are independent, as their noise is.
    """
    found: dict[tuple[str, float], list[Values]] = {}
    for pictures, tried in parts:
        for one in tried:
            found.setdefault((one["blocks"], one["alpha"]), []).append({**one, "pictures": pictures})
    rows = [{"blocks": spec, "alpha": alpha, **_mean(values)} for (spec, alpha), values in found.items()]
    return sorted(rows, key=lambda row: (row["change"] is None, -(row["change"] or 0)))


def _mean(parts: Sequence[Values]) -> dict[str, float | None]:
    total = sum(one["pictures"] for one in parts)
    known = {name: all(one[name] is not None for one in parts) for name in ("change", "error")}
    change = sum(one["pictures"] * one["change"] for one in parts) / total if known["change"] else None
    error = math.hypot(*(one["pictures"] * one["error"] for one in parts)) / total if known["error"] else None
    return {"change": change, "error": error}


def write(plan: Plan, folder: Folder, failed: dict[str, str]) -> dict[str, Any]:
    """Write calibration.json and calibration.csv; what is in the first. chosen: None where nothing helps.

    failed: the reasons, by the jobs' names.
    """
    there = [(job.body["calibrate"]["inputs"][PICTURES.name], folder.of(job)) for job in plan.jobs]
    parts = [(pictures, kept["numbers"]["tried"]) for pictures, kept in there if kept]
    tried = pooled(parts)
    chosen = {name: tried[0][name] for name in ("blocks", "alpha")} if tried and (tried[0]["change"] or 0) > 0 else None
    common = {name: plan.jobs[0].body["calibrate"]["inputs"][name] for name in COMMON}
    told = {"chosen": chosen, **common, "tried": tried, "pictures": sum(pictures for pictures, _ in parts)}
    told["missing_pictures"] = sum(pictures for pictures, kept in there if not kept)
    told["reasons"] = {job.prompt: failed[job.name] for job in plan.jobs if job.name in failed}
    text = io.StringIO()
    rows = csv.DictWriter(text, ("blocks", "alpha", "change", "error"))
    rows.writeheader()
    rows.writerows(tried)
    write_whole(folder.path / "calibration.csv", text.getvalue().encode())
    write_whole(folder.path / "calibration.json", json.dumps(told, indent=1).encode())
    return told


def words(told: dict[str, Any]) -> str:
    """What was found, for people."""
    lines = [f"blocks {row['blocks']}, alpha {row['alpha']:g}: {_measured(row)}" for row in told["tried"]]
    best = told["chosen"]
    chosen = "none did better than no guidance" if told["tried"] else "nothing was measured"
    if best:
        chosen = f"best: blocks {best['blocks']}, alpha {best['alpha']:g}"
    missing = f", {told['missing_pictures']} missing" if told["missing_pictures"] else ""
    return "\n".join([*lines, f"{chosen} ({told['pictures']} pictures{missing})"])


def _measured(row: dict[str, Any]) -> str:
    change, error = ("unknown" if row[name] is None else f"{row[name]:.4f}" for name in ("change", "error"))
    return f"{change} ± {error}"
