"""NAG-PAG from Python: ask a ComfyUI that has this pack for pictures. Standard library only.

from nagpag.client import Client

result = Client("http://127.0.0.1:8188").text_to_image("a lighthouse at dawn", seed=7)
result.images[0].save("lighthouse.png")
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

DEFAULT_SERVER = "http://127.0.0.1:8188"
SERVER_VARIABLE = "NAGPAG_SERVER"
# How a job may end, and what is said of it.
ENDED = {
    "done": "the job is done",
    "failed": "the job failed",
    "cancelled": "the job was cancelled",
    "unknown": "how the job ended is not known",
}
# What an interrupt says, by when it comes and how the job ends then.
ON_ITS_WAY = "stopped while the request was on its way; the server may draw it all the same"
QUIET_SECONDS = 90.0  # the server says something at least every 10 s
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")
Progress = Callable[[dict], None]


class ServiceError(Exception):
    """What went wrong, in words. problem: the server's problem JSON (RFC 9457), {} where it sent none."""

    def __init__(self, message: str, problem: dict | None = None):
        super().__init__(message)
        self.problem = problem or {}


class NoServer(ServiceError):
    """No ComfyUI with this pack answers there."""


class BadRequest(ServiceError):
    """The server refused the request; `problem["errors"]` lists every bad field."""


class JobFailed(ServiceError):
    """The job was queued and failed, was cancelled or got lost, or can't run as model files are missing."""


@dataclass(frozen=True)
class Image:
    """A finished picture on the server, or a video that a graph saved."""

    filename: str
    subfolder: str
    type: str
    url: str
    client: Client = field(repr=False, compare=False)

    def data(self) -> bytes:
        """The file's bytes; ComfyUI opens a PNG as the graph it was made by."""
        where = {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}
        return self.client._bytes("GET", f"/view?{urllib.parse.urlencode(where)}")

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file; raises FileExistsError rather than overwrite one."""
        data = self.data()
        with Path(path).open("xb") as file:
            file.write(data)
        return Path(path)


@dataclass(frozen=True)
class Result:
    """A finished job. settings: every field as it was used. image: what was kept of the picture that came in.

    numbers: what guidance did, where it was asked for.
    """

    prompt_id: str
    seed: int
    images: list[Image]
    settings: dict[str, Any]
    seconds: float
    image: dict[str, Any] | None = None
    numbers: dict[str, Any] | None = None


class Client:
    """A ComfyUI server with this pack. server: its URL; default NAGPAG_SERVER, else http://127.0.0.1:8188."""

    def __init__(self, server: str | None = None):
        server = server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER
        self.server = (server if "://" in server else f"http://{server}").rstrip("/")
        # A proxy from the environment can't reach this machine's own loopback.
        at_home = urllib.parse.urlsplit(self.server).netloc.startswith(_LOOPBACK)
        proxies = [urllib.request.ProxyHandler({})] if at_home else []
        self._opener = urllib.request.build_opener(*proxies)

    def text_to_image(self, prompt: str, *, progress: Progress | None = None, **settings: Any) -> Result:
        """Make pictures from a prompt and wait for them.

        settings: the fields of the request (docs/api.md), such as width=768, nag_pag_scale=2.5, seed=7. progress: is
        called with the job, as the server tells it, each time it changes. An interrupt (Ctrl-C) cancels the job.
        Raises BadRequest, JobFailed or NoServer.
        """
        return self._make("text-to-image", {"prompt": prompt, **settings}, progress)

    def image_to_image(
        self, prompt: str, image: str | os.PathLike | bytes, *, progress: Progress | None = None, **settings: Any
    ) -> Result:
        """Make pictures from a picture and a prompt and wait for them; the rest as in `text_to_image`.

        image: a path object or bytes are sent along; a text is an http, https or data: URL, or the name of a file in
        the server's input folder.
        """
        return self._make("image-to-image", {"prompt": prompt, "image_url": as_url(image), **settings}, progress)

    def submit(self, endpoint: str, request: dict[str, Any]) -> str:
        """Queue a job without waiting, for "text-to-image" or "image-to-image"; its prompt_id."""
        try:
            return self._json("POST", f"/nagpag/{endpoint}", {**request, "wait": False})["prompt_id"]
        except KeyboardInterrupt:
            raise KeyboardInterrupt(ON_ITS_WAY) from None

    def follow(self, prompt_id: str) -> Iterator[dict]:
        """The job each time it changes, until it has ended."""
        job: dict = {}
        try:
            with self._open("GET", f"/nagpag/jobs/{prompt_id}/events") as stream:
                for line in stream:
                    if line.startswith(b"data: "):
                        job = json.loads(line[len(b"data: ") :])
                        yield job
        except (OSError, HTTPException) as error:
            raise NoServer(f"the connection to {self.server} broke off: {error}") from error
        if job.get("status") not in ENDED:
            raise NoServer(f"{self.server} closed the connection while the job ran")

    def result(self, prompt_id: str, progress: Progress | None = None) -> Result:
        """Wait for a job to end. Raises JobFailed where it failed or was cancelled."""
        job: dict = {}
        for job in self.follow(prompt_id):
            if progress:
                progress(job)
        if job["status"] != "done":
            raise JobFailed(f"{ENDED[job['status']]}: {job['reason']}", job)
        images = [Image(**image, client=self) for image in job["images"]]
        kept, numbers = job.get("image"), job.get("numbers")
        return Result(prompt_id, job["seed"], images, job["settings"], job["seconds"], kept, numbers)

    def job(self, prompt_id: str) -> dict:
        """The job as it stands."""
        return self._json("GET", f"/nagpag/jobs/{prompt_id}")

    def cancel(self, prompt_id: str) -> dict:
        """Cancel this job and no other; the job as it stands then."""
        return self._json("DELETE", f"/nagpag/jobs/{prompt_id}")

    def models(self) -> dict[str, dict]:
        """For each kind of model file what would be picked and what the server has."""
        return self._json("GET", "/nagpag/models")

    def _make(self, endpoint: str, request: dict[str, Any], progress: Progress | None) -> Result:
        prompt_id = self.submit(endpoint, request)
        try:
            return self.result(prompt_id, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(stopped(self.cancel(prompt_id))) from None

    # --- HTTP ---

    def _json(self, method: str, path: str, body: dict | None = None) -> Any:
        return json.loads(self._bytes(method, path, body))

    def _bytes(self, method: str, path: str, body: dict | None = None) -> bytes:
        try:
            with self._open(method, path, body) as answer:
                return answer.read()
        except (OSError, HTTPException) as error:
            raise NoServer(f"the connection to {self.server} broke off: {error}") from error

    def _open(self, method: str, path: str, body: dict | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(f"{self.server}{path}", data, headers, method=method)
            return self._opener.open(request, timeout=QUIET_SECONDS)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, HTTPException, ValueError) as error:
            raise NoServer(
                f"no ComfyUI answers at {self.server}: start one (python main.py in its folder), "
                f"or name another with --server or {SERVER_VARIABLE}"
            ) from error

    def _refusal(self, error: urllib.error.HTTPError) -> ServiceError:
        if error.headers.get_content_type() != "application/problem+json":
            return _of_comfyui(error) or NoServer(
                f"{self.server} answered with status {error.code}: it has no NAG-PAG pack, or is no ComfyUI"
            )
        problem = json.loads(error.read())
        message = f"{problem['title']}: {problem['detail']}"
        return (BadRequest if 400 <= error.code < 500 and error.code not in (409, 410) else JobFailed)(message, problem)


def _of_comfyui(error: urllib.error.HTTPError) -> JobFailed | None:
    """What ComfyUI itself says of a graph that it does not take."""
    if error.code != 400 or error.headers.get_content_type() != "application/json":
        return None
    said = json.loads(error.read())
    nodes = (said.get("node_errors") or {}).values()
    lines = [
        f"{node['class_type']}: {one['message']}{one['details'] and ': '}{one['details']}"
        for node in nodes
        for one in node["errors"]
    ]
    return JobFailed(f"ComfyUI refuses the graph: {'; '.join(lines) or said['error']['message']}")


def stopped(job: dict) -> str:
    """What is said of an interrupt once the job was cancelled. job: as it stands then; it may have ended before."""
    return f"stopped; {ENDED.get(job.get('status', ''), ENDED['cancelled'])}"


def as_url(image: str | os.PathLike | bytes) -> str:
    """What to send as image_url."""
    if isinstance(image, str):
        return image
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return f"data:;base64,{base64.b64encode(data).decode()}"
