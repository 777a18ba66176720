"""A worker that draws on a running ComfyUI server."""

from __future__ import annotations

import contextlib
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

from ...graphs import ended_state, recorded, saved_anew
from .. import BadRequest, Client, Image, JobFailed, NoServer, ServiceError
from .board import Drawn, Lost
from .plan import Job
from .ways import GRAPH

LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # how long a server that is gone may take to come back


class OnServer:
    """Draws on one server, one job at a time."""

    def __init__(self, url: str | None):
        self.client = Client(url)
        self.name = self.client.server
        self.prompt_id: str | None = None
        self.stopped = False

    def models(self) -> dict[str, dict]:
        """The model files that it has."""
        return self.client.models()

    def draw(self, job: Job, progress: Callable[[float], None]) -> Drawn:
        """Draw it and fetch the pictures. Raises Lost, or ServiceError."""
        try:
            ended, images = (self._by_graph if job.way == GRAPH else self._by_request)(job, progress)
            told = {name: ended.get(name) for name in ("prompt_id", "settings", "image", "seconds", "numbers")}
            return Drawn([image.data() for image in images], told, self.name)
        except NoServer as error:
            raise Lost(str(error)) from error
        finally:
            self.prompt_id = None

    def ready(self, over: Callable[[float], bool]) -> bool:
        """Wait until the server answers, for a while."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(ServiceError):
                self.client.models()
                return True
            if over(2.0):
                break
        return False

    def stop(self) -> None:
        """Cancel what runs."""
        self.stopped = True
        if prompt_id := self.prompt_id:
            with contextlib.suppress(ServiceError):
                self._cancel(prompt_id)

    # --- through the service ---

    def _by_request(self, job: Job, progress: Callable[[float], None]) -> tuple[dict[str, Any], list[Image]]:
        self._begun(self.client.submit(job.way, {**job.body, "numbers": job.numbers}))

        def see(now: dict) -> None:
            if steps := now.get("progress"):
                progress(steps["step"] / steps["steps"])

        assert self.prompt_id
        try:
            result = self.client.result(self.prompt_id, see)
        except BadRequest as error:
            if error.problem.get("status") == 404:  # the server was started anew and knows no such job
                raise Lost(f"{self.name} was started anew while it drew") from error
            raise
        return vars(result), result.images

    # --- through ComfyUI's own /prompt ---

    def _by_graph(self, job: Job, progress: Callable[[float], None]) -> tuple[dict[str, Any], list[Image]]:
        graph = saved_anew(recorded(job.body) if job.numbers else job.body)
        self._begun(self._queued(graph))
        assert self.prompt_id
        ended = self._ended(self.prompt_id)
        if ended["status"] != "done":
            raise JobFailed(ended["reason"], ended)
        if not ended["images"]:
            raise JobFailed("the graph saved no picture: it needs a Save Image node")
        images = [self._image(image) for image in ended["images"]]
        return {**ended, "prompt_id": self.prompt_id}, images

    def _queued(self, graph: dict) -> str:
        found = self.client._json("POST", "/prompt", {"prompt": graph, "prompt_id": str(uuid.uuid4())})
        if errors := found.get("node_errors"):
            raise JobFailed(f"ComfyUI refused the graph: {errors}")
        return found["prompt_id"]

    def _ended(self, prompt_id: str) -> dict[str, Any]:
        """How it ended, by ComfyUI's history."""
        missed = 0
        while missed < 3:  # a prompt is for a moment in neither, between the queue and the history
            found = self.client._json("GET", f"/history/{prompt_id}")
            if prompt_id in found:
                return ended_state(found[prompt_id])
            queued = self.client._json("GET", "/queue")
            there = [item[1] for items in queued.values() for item in items]
            missed = 0 if prompt_id in there else missed + 1
            time.sleep(LOOK_SECONDS)
        if self.stopped:
            raise JobFailed("it was cancelled")
        raise Lost(f"{self.name} no longer knows what it was drawing: it was started anew, or its history was cleared")

    def _image(self, image: dict) -> Image:
        where = {name: image[name] for name in ("filename", "subfolder", "type")}
        return Image(**where, url=f"{self.name}/view?{urllib.parse.urlencode(where)}", client=self.client)

    # --- both ---

    def _begun(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        if self.stopped:  # meanwhile
            self._cancel(prompt_id)

    def _cancel(self, prompt_id: str) -> None:
        try:
            self.client.cancel(prompt_id)
        except BadRequest:  # a graph is no job of the service
            self.client._bytes("POST", "/queue", {"delete": [prompt_id]})
            self.client._bytes("POST", "/interrupt", {"prompt_id": prompt_id})
