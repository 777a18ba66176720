"""The folder of a sweep: pictures and what is known of each, written whole or not at all, and a table of all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import BadRequest
from .board import Drawn
from .plan import Job, Plan

PICTURES, LOCK = "pictures", ".nagpag-sweep"
# Guidance's own numbers in the table: means over its evaluations.
MEANS = ("ratio", "clamped", "change", "cosine", "norm_ratio")


class Taken(BadRequest):
    """Another sweep works in this folder."""


class Folder:
    """Where a sweep's pictures are kept."""

    def __init__(self, path: Path):
        self.path = path
        (path / PICTURES).mkdir(parents=True, exist_ok=True)

    def write(self, job: Job, drawn: Drawn) -> None:
        """Keep a job's pictures; it counts as done from when the last file, which tells of it, is there."""
        several = len(drawn.pictures) > 1
        names = [f"{job.name}_{i}.png" if several else f"{job.name}.png" for i in range(len(drawn.pictures))]
        for name, data in zip(names, drawn.pictures, strict=True):
            write_whole(self.path / PICTURES / name, data)
        told = {"pictures": names, "worker": drawn.worker, "prompt": job.prompt, "seed": job.seed, **drawn.told}
        write_whole(self.path / PICTURES / f"{job.name}.json", json.dumps(told, indent=1).encode())

    def of(self, job: Job) -> dict[str, Any] | None:
        """What is kept of a job, or None where it has still to be drawn."""
        try:
            told = json.loads((self.path / PICTURES / f"{job.name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        there = all((self.path / PICTURES / name).is_file() for name in told["pictures"])
        return told if there else None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, so that no second sweep draws the same. Raises Taken."""
        with (self.path / LOCK).open("wb") as file:
            try:
                _lock(file)
            except OSError:
                raise Taken(f"another sweep works in {self.path}") from None
            yield

    def write_tables(self, plan: Plan, failed: dict[str, str]) -> list[Path]:
        """Write table.csv and table.json. failed: the reasons, by the jobs' names."""
        rows = [_row(job, self.of(job), failed.get(job.name)) for job in plan.jobs]
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), extrasaction="ignore")
        table.writeheader()
        table.writerows({**row, "pictures": " ".join(row["pictures"])} for row in rows)
        files = self.path / "table.csv", self.path / "table.json"
        whole = [
            {**row, "settings": (self.of(job) or {}).get("settings")} for row, job in zip(rows, plan.jobs, strict=True)
        ]
        write_whole(files[0], text.getvalue().encode())
        write_whole(files[1], json.dumps(whole, indent=1, ensure_ascii=False).encode())
        return list(files)


def _row(job: Job, told: dict[str, Any] | None, failed: str | None) -> dict[str, Any]:
    told = told or {}
    pictures = [f"{PICTURES}/{name}" for name in told.get("pictures", [])]
    row = {"name": job.name, "prompt": job.prompt, "seed": job.seed, **job.varied, "pictures": pictures}
    row |= {"seconds": told.get("seconds"), "worker": told.get("worker"), **means(told.get("numbers"))}
    return row | {"failed": failed or (None if told else "not drawn yet")}


def means(numbers: dict[str, Any] | None) -> dict[str, float | None]:
    """Guidance's numbers over a whole run: how many steps it acted in, and the mean of each over its evaluations."""
    rows = (numbers or {}).get("rows", [])
    found: dict[str, float | None] = {"guided_steps": len({row["step"] for row in rows}) if numbers else None}
    for name in MEANS:
        known = [(row[name], row["evaluations"]) for row in rows if row[name] is not None]
        count = sum(weight for _, weight in known)
        found[name] = sum(value * weight for value, weight in known) / count if count else None
    return found


def write_whole(path: Path, data: bytes) -> None:
    """All of it or nothing, in place of what was there."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _lock(file: Any) -> None:
    """Where the system can; it is let go when the file is closed, however this process ends."""
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def rows_of_sheet(plan: Plan) -> Sequence[tuple[str, Sequence[Job]]]:
    """The jobs by prompt and seed, each row with all points of the axes."""
    rows: dict[tuple[str, int], list[Job]] = {}
    for job in plan.jobs:
        rows.setdefault((job.prompt, job.seed), []).append(job)
    return [(prompt, jobs) for (prompt, _), jobs in rows.items()]
