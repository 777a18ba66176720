"""The jobs that were queued through the service, and what becomes of them.

ComfyUI tells a prompt's progress to one websocket, the caller's. So one task here looks at the queue while any job is
open, which costs a few microseconds, and keeps how each ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ..graphs import ended_state
from . import host

LOOK_SECONDS = 0.1
_CLEARED = "it ran and has ended; how is not known, as ComfyUI's history was cleared before it was read"
_TAKEN_OUT = "it was taken out of ComfyUI's queue"
_GONE = (
    "it left ComfyUI's queue and was not seen to run: it was taken out by somebody, "
    "or it ran and the history was cleared between two looks"
)
MOST_KEPT = 1000  # finished jobs; older ones are forgotten
_ENDED = asyncio.Event()  # of all jobs that have ended
_ENDED.set()


@dataclass(slots=True)
class QueuedPrompt:
    """A prompt that the service queued. state: what `schema.Job` tells beside the rest; ended: it won't change."""

    prompt_id: str
    settings: dict
    sampler: str  # the id of the sampler's node
    fit: dict | None = None
    state: dict = field(default_factory=lambda: {"status": "pending"})
    cancelled: bool = False
    taken_out: bool = False  # of the queue, by us
    began: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self, now: host.Snapshot) -> None:
        """Bring the state up to date."""
        if self.ended.is_set():
            return
        self.state = self._state(now)
        if self.state["status"] not in ("pending", "running"):
            self.ended.set()
            self.ended = _ENDED
        elif self.cancelled:
            # A signal that came while the prompt was about to start is lost, so it is given until it is heeded.
            host.interrupt(self.prompt_id)

    def _state(self, now: host.Snapshot) -> dict:
        if self.prompt_id in now.history:
            return ended_state(now.history[self.prompt_id])
        if self.prompt_id in now.running:
            self.began = True
            steps = self.settings["num_inference_steps"]
            value, most = host.progress(self.prompt_id).get(self.sampler, (0, steps))
            return {
                "status": "running",
                "progress": {"step": int(value) if most > 1 or steps == 1 else 0, "steps": steps},
            }
        if self.prompt_id in now.pending:
            return {"status": "pending", "position": now.pending[self.prompt_id]}
        if self.began or host.progress(self.prompt_id):
            return {"status": "unknown", "reason": _CLEARED}
        return {"status": "cancelled", "reason": _TAKEN_OUT if self.taken_out else _GONE}


class Jobs:
    """All jobs of the service, by prompt id, in the order they were queued. forgotten: told of each that is dropped."""

    def __init__(self, forgotten: Callable[[QueuedPrompt], None]) -> None:
        self.forgotten = forgotten
        self.known: dict[str, QueuedPrompt] = {}
        self.watcher: asyncio.Task | None = None

    def add(self, job: QueuedPrompt) -> None:
        """Keep this job and watch it."""
        self.known[job.prompt_id] = job
        for old in [one for one in self.known.values() if one.ended.is_set()][:-MOST_KEPT]:
            self.forgotten(self.known.pop(old.prompt_id))
        if self.watcher is None or self.watcher.done():
            self.watcher = asyncio.create_task(self._watch())

    def look(self) -> list[QueuedPrompt]:
        """Bring all open jobs up to date; those that are still open."""
        opened = [job for job in self.known.values() if not job.ended.is_set()]
        if not opened:
            return []
        now = host.snapshot({job.prompt_id for job in opened})
        for job in opened:
            job.look(now)
        return [job for job in opened if not job.ended.is_set()]

    async def _watch(self) -> None:
        while self.look():
            await asyncio.sleep(LOOK_SECONDS)

    def cancel(self, job: QueuedPrompt) -> None:
        """Cancel this job and no other, whether it waits or runs; nothing where it has ended."""
        job.taken_out = host.dequeue(job.prompt_id)
        job.cancelled = not job.taken_out
        self.look()
