"""Who draws what: each job is with one worker at a time, and given back when that worker is lost."""

from __future__ import annotations

import queue
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .. import JobFailed, NoServer, ServiceError
from .plan import Job

MOST_LOST = 3  # workers that one job may cost
MOST_SAME = 10  # jobs that fail for the same reason, and none is drawn, before the sweep gives up


class Lost(Exception):
    """The worker is gone, or its connection; what it was drawing has to be drawn again."""


@dataclass(frozen=True)
class Drawn:
    """A finished job. pictures: the files' bytes. told: the settings as used, seconds, numbers."""

    pictures: list[bytes]
    told: dict[str, Any]
    worker: str


class Worker(Protocol):
    """Something that draws."""

    name: str

    def draw(self, job: Job, progress: Callable[[float], None]) -> Drawn:
        """Draw this job; progress is called with the share that is done. Raises Lost, or ServiceError."""

    def ready(self, over: Callable[[float], bool]) -> bool:
        """Be there to draw, before the first job and again after each Lost; False: it won't any more.

        over(seconds) waits for the end of the sweep, that long at most. May raise ServiceError, which says why.
        """

    def models(self) -> dict[str, dict] | None:
        """The model files that its ComfyUI has, as `Client.models`; None: it is not up."""

    def stop(self) -> None:
        """Let what it draws now be cancelled; called from another thread."""


class Board:
    """The jobs that are to be done."""

    def __init__(self, jobs: Iterable[Job]):
        self._waiting = deque(jobs)
        self._taken: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopped = False

    def take(self) -> Job | None:
        """The next job; waits while another may still be given back. None: there are none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over())
            if self._is_over():
                return None
            job = self._waiting.popleft()
            self._taken.add(job.name)
            return job

    def settle(self, job: Job) -> None:
        """It is done, or failed for good."""
        with self._changed:
            self._taken.remove(job.name)
            self._changed.notify_all()

    def go_elsewhere(self) -> None:
        """Go on with any job that waits: what fails for one reason often stands together."""
        with self._changed:
            self._waiting.rotate(random.randrange(len(self._waiting) or 1))

    def give_back(self, job: Job) -> bool:
        """Its worker was lost: another draws it, next of all. False: it cost too many workers."""
        self._losses[job.name] += 1
        if self._losses[job.name] >= MOST_LOST:
            self.settle(job)
            return False
        with self._changed:
            self._taken.remove(job.name)
            self._waiting.appendleft(job)
            self._changed.notify_all()
        return True

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def over(self, seconds: float = 0.0) -> bool:
        """Whether nothing is left to do, after waiting for that at most so long."""
        with self._changed:
            return self._changed.wait_for(self._is_over, seconds)

    def _is_over(self) -> bool:
        return self._stopped or not (self._waiting or self._taken)


@dataclass(frozen=True)
class Event:
    """What a worker tells. kind: progress, done, failed, lost, back, gone."""

    kind: str
    worker: Worker
    job: Job | None = None
    share: float = 0.0
    drawn: Drawn | None = None
    error: Exception | None = None


def run(jobs: Sequence[Job], workers: Sequence[Worker], see: Callable[[Event], None], some_there: bool = False) -> None:
    """Have all jobs drawn; `see` gets every event, in this thread. some_there: others of the sweep are drawn already.

    Raises NoServer when no worker is left, the error where nothing but one error comes, and what `see` raises. What is
    drawn when it is stopped, `see` gets all the same.
    """
    board, events = Board(jobs), queue.SimpleQueue[Event]()
    threads = [threading.Thread(target=_work, args=(worker, board, events.put), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        _watch(board, events, len(workers), see, some_there)
    finally:
        board.stop()
        stopping = [threading.Thread(target=worker.stop, daemon=True) for worker in workers]  # some take their time
        for thread in stopping:
            thread.start()
        for thread in (*stopping, *threads):
            thread.join()
        while not events.empty():
            if (event := events.get()).kind == "done":
                see(event)


def _watch(
    board: Board, events: queue.SimpleQueue[Event], working: int, see: Callable[[Event], None], some_there: bool
) -> None:
    done, failed, reason = int(some_there), list[str](), ""
    while working:
        event = events.get()
        see(event)
        working -= event.kind == "gone"
        done += event.kind == "done"
        failed += [str(event.error)] if event.kind == "failed" else []
        reason = f": {event.error}" if event.error else reason
        broken = event.kind == "gone" and event.error and not isinstance(event.error, ServiceError)
        hopeless = not done and event.kind == "failed" and len(failed) >= MOST_SAME and len(set(failed)) == 1
        if broken or hopeless:
            raise event.error  # type: ignore[misc]
    if not board.over():
        raise NoServer(f"no ComfyUI is left to draw on{reason}\nRun this again when there is one: it goes on from here")


def _work(worker: Worker, board: Board, tell: Callable[[Event], None]) -> None:
    """A worker's thread, until nothing is left to do or it is gone for good."""
    why: Exception | None = None
    try:
        there = worker.ready(board.over)
        while there and (job := board.take()):
            there = _draw(worker, job, board, tell)
            if not there and (there := worker.ready(board.over)):
                tell(Event("back", worker))
    except Exception as error:
        why = error
    finally:
        tell(Event("gone", worker, error=why))


def _draw(worker: Worker, job: Job, board: Board, tell: Callable[[Event], None]) -> bool:
    """Draw a job; False where the worker was lost."""
    try:
        drawn = worker.draw(job, lambda share: tell(Event("progress", worker, job, share)))
    except Lost as error:
        tell(Event("lost", worker, job, error=error))
        if not board.give_back(job):
            tell(Event("failed", worker, job, error=JobFailed(f"{MOST_LOST} workers were lost over it: {error}")))
        return False
    except ServiceError as error:
        if not board.over():  # else it was cancelled as the sweep was stopped
            tell(Event("failed", worker, job, error=error))
            board.go_elsewhere()
    except BaseException:  # a fault of ours: nobody may wait for this job
        board.settle(job)
        raise
    else:
        tell(Event("done", worker, job, drawn=drawn))
    board.settle(job)
    return True
