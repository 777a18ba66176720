"""A worker that draws on a running ComfyUI server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ...graphs import recorded, saved_anew
from .. import BadRequest, Client, Image, JobFailed, NoServer, ServiceError, prompts
from .board import Drawn, Lost
from .plan import Job
from .ways import GRAPH

PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # a graph may save videos, too
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
                prompts.cancel(self.client, prompt_id)

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
        self._begun(prompts.queue(self.client, graph))
        assert self.prompt_id
        try:
            ended = prompts.ended(self.client, self.prompt_id)
        except prompts.Gone:
            if self.stopped:
                raise JobFailed("it was cancelled") from None
            raise
        images = [file for file in prompts.saved(self.client, ended) if file.filename.lower().endswith(PICTURES)]
        if not images:
            raise JobFailed("the graph saved no picture: it needs a Save Image node")
        return {**ended, "prompt_id": self.prompt_id}, images

    # --- both ---

    def _begun(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        if self.stopped:  # meanwhile
            prompts.cancel(self.client, prompt_id)
