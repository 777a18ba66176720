"""nagpag sweep and nagpag calibrate: read, draw what is missing, write what came of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import NoServer
from . import calibration
from . import plan as planning
from .board import Event, Worker, run
from .kept import Folder
from .plan import Plan
from .ways import BadPlan
from .workers import OnServer


@dataclass
class Seen:
    """What has happened so far, for the bar and for the end."""

    folder: Folder
    total: int
    there: int
    workers: int
    what: str = "pictures"
    drawn: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)  # of the jobs that are being drawn
    said: list[str] = field(default_factory=list)

    def see(self, event: Event) -> None:
        """Keep what is done, note what is not."""
        name = event.job.name if event.job else ""
        if event.kind == "progress":
            self.shares[name] = event.share
            return
        self.shares.pop(name, None)
        if event.kind == "done":
            assert event.job and event.drawn
            self.folder.write(event.job, event.drawn)
            self.drawn += 1
        elif event.kind == "failed":
            self.failed[name] = str(event.error)
            self.said.append(f"failed: {event.error}")
        elif event.kind == "lost":
            self.workers -= 1
            self.said.append(f"lost {event.worker.name}: {event.error}; what it drew is drawn again")
        elif event.kind == "back":
            self.workers += 1
            self.said.append(f"{event.worker.name} is back")
        elif event.kind == "gone" and event.error:
            self.said.append(f"gave up {event.worker.name}: {event.error}")

    @classmethod
    def of(cls, plan: Plan, folder: Folder, workers: int, what: str) -> Seen:
        """At the beginning. what: what the jobs are."""
        there = sum(folder.of(job) is not None for job in plan.jobs)
        return cls(folder, len(plan.jobs), there, workers, what)

    @property
    def told(self) -> dict[str, Any]:
        """What came of it, in numbers, and why what failed did, by the jobs' names."""
        counts = {"drawn": self.drawn, "were_there": self.there, "failed": len(self.failed)}
        return {"folder": str(self.folder.path), **counts, "reasons": self.failed}

    @property
    def done(self) -> float:
        """Jobs that are done, with the shares of those under way."""
        return self.there + self.drawn + len(self.failed) + sum(self.shares.values())

    @property
    def words(self) -> str:
        """Where the sweep stands."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.there + self.drawn} of {self.total} {self.what}{failed}, {self.workers} at work"


@dataclass(frozen=True)
class Where:
    """What the command line says beside the file. quiet: without a bar."""

    output: str | None
    servers: Sequence[str]
    ray: str | None
    quiet: bool


def sweep(file: Path, where: Where) -> dict[str, Any]:
    """Run a sweep; what came of it. Raises ServiceError; Ctrl-C cancels what runs."""
    plan = planning.read(file)
    with _folder(file, where) as folder, _workers(plan.cluster, where) as workers:
        plan = plan.with_files(_picked(workers, plan.open_files))
        seen = Seen.of(plan, folder, len(workers), "pictures")
        _say_without_numbers(plan, folder)
        try:
            _draw(plan, seen, workers, where.quiet)
        finally:
            files = folder.write_tables(plan, seen.failed)
        files += _sheet(plan, folder)
    return {**seen.told, "files": list(map(str, files))}


def calibrate(file: Path, where: Where) -> dict[str, Any]:
    """Run Calibrate's search; what came of it. Raises ServiceError; Ctrl-C cancels what runs."""
    search = calibration.read(file)
    with _folder(file, where) as folder, _workers(search.cluster, where) as workers:
        plan = search.plan(_picked(workers, search.open_files))
        seen = Seen.of(plan, folder, len(workers), "parts")
        try:
            _draw(plan, seen, workers, where.quiet)
        finally:
            found = calibration.write(plan, folder, seen.failed)
    return {**seen.told, **found}


@contextlib.contextmanager
def _folder(file: Path, where: Where) -> Iterator[Folder]:
    path = Path(where.output) if where.output else file.with_suffix("")
    with contextlib.ExitStack() as held:
        try:
            folder = Folder(path)
            held.enter_context(folder.alone())
        except OSError as error:
            raise BadPlan(path, [f"it can't be a folder to write to: {error.strerror}"]) from None
        yield folder


def _draw(plan: Plan, seen: Seen, workers: Sequence[Worker], quiet: bool) -> None:
    with _bar(seen, quiet) as show:
        run([job for job in plan.jobs if seen.folder.of(job) is None], workers, show, bool(seen.there))


def _say_without_numbers(plan: Plan, folder: Folder) -> None:
    """A picture that is there is not drawn again for its numbers: say so."""
    there = [kept for job in plan.jobs if job.has_numbers and (kept := folder.of(job))]
    if count := sum(kept.get("numbers") is None for kept in there):
        words = f"{count} of the pictures that are there have no numbers; delete these to have them drawn with them"
        print(f"nagpag: {words}", file=sys.stderr)


def words(told: dict[str, Any]) -> str:
    """What came of a sweep, for people."""
    counts = f"{told['drawn']} drawn, {told['were_there']} were there already, {told['failed']} failed"
    return "\n".join([counts, *told["files"]])


@contextlib.contextmanager
def _workers(cluster_table: dict[str, Any] | None, where: Where) -> Iterator[Sequence[Worker]]:
    if where.ray is None:
        yield [OnServer(url) for url in dict.fromkeys(where.servers)] if where.servers else [OnServer(None)]
        return
    if where.servers:
        raise BadPlan("--ray", ["with it no --server: each worker starts a ComfyUI of its own"])
    try:
        from . import cluster
    except ImportError:
        raise BadPlan("--ray", ['it needs Ray: pip install "nag-pag-flux[cluster]"']) from None
    with cluster.workers(where.ray, cluster_table) as found:
        yield found


def _picked(workers: Sequence[Worker], fields: set[str]) -> dict[str, str | None]:
    """The model files that every worker that is up would take where none is named. Raises BadPlan where they differ.

    Those that come up later are asked for these by name.
    """
    found = {worker.name: files for worker in workers if (files := worker.models())}
    if not found:
        raise NoServer("no ComfyUI is up")
    picked = {name: {server: files[name]["picked"] for server, files in found.items()} for name in sorted(fields)}
    if differ := [name for name, by_server in picked.items() if len(set(by_server.values())) > 1]:
        lines = [f"{name}: {', '.join(f'{one} takes {file}' for one, file in picked[name].items())}" for name in differ]
        raise BadPlan("model files", ["they would draw with different files; name them", *lines])
    return {name: next(iter(by_server.values())) for name, by_server in picked.items()}


def _sheet(plan: Plan, folder: Folder) -> list[Path]:
    try:
        from . import sheet
    except ImportError:
        print("nagpag: no sheet, as Pillow is missing: pip install Pillow", file=sys.stderr)
        return []
    try:
        return [sheet.write(plan, folder)]
    except sheet.TooMany as error:
        print(f"nagpag: no sheet: {error}", file=sys.stderr)
        return []


@contextlib.contextmanager
def _bar(seen: Seen, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """A progress bar over all pictures; what goes wrong is said above it."""
    if quiet:
        yield lambda event: _say(seen, event)
        return
    try:
        from tqdm import tqdm
    except ImportError:
        print("nagpag: no progress bar, as the package tqdm is missing", file=sys.stderr)
        yield lambda event: _say(seen, event)
        return
    shape = "{desc} |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}]"
    with tqdm(total=seen.total, initial=seen.there, bar_format=shape, desc=seen.words) as bar:

        def show(event: Event) -> None:
            _say(seen, event, bar.write)
            bar.set_description_str(seen.words, refresh=False)
            bar.n = seen.done
            bar.refresh()

        yield show


def _say(seen: Seen, event: Event, write: Callable[..., object] = print) -> None:
    """Take in what happened, and say what went wrong."""
    seen.see(event)
    for line in seen.said:
        write(f"nagpag: {line}", file=sys.stderr)
    seen.said.clear()
