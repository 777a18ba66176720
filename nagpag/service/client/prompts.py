"""A graph on ComfyUI's own /prompt: queued, waited for, cancelled, and what it saved."""

from __future__ import annotations

import time
import urllib.parse
import uuid
from typing import Any

from ..graphs import Graph, ended_state
from . import BadRequest, Client, Image, JobFailed, NoServer, stopped

LOOK_SECONDS = 0.2
STOP_SECONDS = 10.0  # for which a prompt is told to stop that has not heard it


class Gone(NoServer):
    """The server answers, and no longer knows the prompt."""


def queue(client: Client, graph: Graph) -> str:
    """Queue it; its prompt_id. Raises JobFailed where ComfyUI refuses it."""
    prompt_id = str(uuid.uuid4())
    try:
        found = client._json("POST", "/prompt", {"prompt": graph, "prompt_id": prompt_id})
    except KeyboardInterrupt:  # it may stand in the queue by now
        raise KeyboardInterrupt(stopped(cancel(client, prompt_id))) from None
    if errors := found.get("node_errors"):
        raise JobFailed(f"ComfyUI refused the graph: {errors}")
    return found["prompt_id"]


def ended(client: Client, prompt_id: str) -> dict[str, Any]:
    """Wait for it; how it ended, by ComfyUI's history. Raises JobFailed where it failed or was cancelled, and Gone."""
    missed = 0
    while missed < 3:  # a prompt is for a moment in neither, between the queue and the history
        found = client._json("GET", f"/history/{prompt_id}")
        if prompt_id in found:
            state = ended_state(found[prompt_id])
            if state["status"] != "done":
                raise JobFailed(state["reason"], state)
            return state
        missed = 0 if _is_queued(client, prompt_id) else missed + 1
        time.sleep(LOOK_SECONDS)
    raise Gone(f"{client.server} no longer knows what it was drawing: it was started anew, or its history was cleared")


def _is_queued(client: Client, prompt_id: str) -> bool:
    """Whether it waits or runs; /queue would send every graph that does."""
    jobs = client._json("GET", "/api/jobs?status=pending,in_progress")["jobs"]
    return prompt_id in [job["id"] for job in jobs]


def saved(client: Client, state: dict[str, Any]) -> list[Image]:
    """The files that it saved."""
    return [_image(client, image) for image in state["images"]]


def _image(client: Client, image: dict) -> Image:
    where = {name: image[name] for name in ("filename", "subfolder", "type")}
    return Image(**where, url=f"{client.server}/view?{urllib.parse.urlencode(where)}", client=client)


def cancel(client: Client, prompt_id: str) -> dict[str, Any]:
    """Cancel it and nothing else, whether it waits or runs; how it stands then, {} where it was still waiting."""
    try:
        return client.cancel(prompt_id)
    except BadRequest:  # a graph is no job of the service
        client._bytes("POST", "/queue", {"delete": [prompt_id]})
        # A signal that comes while the prompt is about to start is lost, so it is given until it is heeded.
        deadline = time.monotonic() + STOP_SECONDS
        while _is_queued(client, prompt_id) and time.monotonic() < deadline:
            client._bytes("POST", "/interrupt", {"prompt_id": prompt_id})
            time.sleep(LOOK_SECONDS)
        found = client._json("GET", f"/history/{prompt_id}")
        return ended_state(found[prompt_id]) if prompt_id in found else {}
