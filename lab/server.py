"""A real ComfyUI server with this pack and the small models in it, and a small client for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import requests

from . import host
from .toy import small_models, whole_families

PACK = "nag-pag-flux"  # the folder's name in custom_nodes
START_SECONDS = 180
Progress = Callable[[int, int], None]


class ServerError(Exception):
    """The server did not start, or refused or failed a prompt; in words for the user."""


@dataclass(frozen=True)
class Server:
    """A running server: where it answers, its private base folder, its log."""

    url: str
    base: Path
    log: Path
    process: subprocess.Popen

    def log_tail(self, lines: int = 25) -> str:
        """The end of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running_server(*options: str, families: bool = False) -> Iterator[Server]:
    """Start a server on a free port; it is stopped and its folder removed however this is left.

    families: with small models of other families than FLUX, too.
    """
    found = host.find_host()
    with tempfile.TemporaryDirectory(prefix="nag-pag-flux-server-") as folder:
        base = Path(folder)
        furnish(base, found.path)
        if families:
            add_families(base)
        port, log = _free_port(), base / "server.log"
        command = [str(found.python), str(found.path / "main.py"), "--cpu", "--port", str(port)]
        command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base}/comfyui.db"]
        command += ["--disable-auto-launch", "--disable-api-nodes", *options]
        with log.open("w") as out:
            # A session of its own, so that Ctrl-C in the terminal reaches us alone and we stop it in order.
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, cwd=base)
        server = Server(f"http://127.0.0.1:{port}", base, log, process)
        try:
            _wait_until_up(server)
            yield server
        finally:
            _stop(process)


def furnish(base: Path, comfyui: Path) -> None:
    """Make a base folder for ComfyUI with this pack and the small models in it."""
    for name in ("input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir()
    shutil.copy(comfyui / "input" / "example.png", base / "input")
    (base / "models").symlink_to(small_models.ensure_models())
    (base / "custom_nodes" / PACK).symlink_to(host.REPO)


def add_families(base: Path) -> None:
    """Put the small models of other families beside those that are there, and what lets the stock loader read them."""
    shared, own = (base / "models").resolve(), base / "own_models"
    for folder in (shared, whole_families.ensure_models()):
        for file in folder.rglob("*.*"):
            if file.is_file():
                (own / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                (own / file.relative_to(folder)).symlink_to(file)
    (base / "models").unlink()
    own.rename(base / "models")
    (base / "custom_nodes" / "small_sizes.py").symlink_to(host.REPO / "lab" / "small_sizes.py")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ServerError(f"ComfyUI ended while starting (exit {server.process.returncode}):\n{server.log_tail()}")
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{server.url}/system_stats", timeout=10).ok:
                return
        time.sleep(0.2)
    raise ServerError(f"ComfyUI did not answer within {START_SECONDS} s:\n{server.log_tail()}")


def _stop(process: subprocess.Popen) -> None:
    """Stop the server and whatever it started, politely first; a second Ctrl-C while waiting does not spare it."""
    try:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)  # SIGINT is deaf where we were started in the background
            process.wait(10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- the client ---


def upload_image(server: Server, path: Path) -> str:
    """Put a picture into the server's input folder; returns its name there."""
    try:
        with path.open("rb") as file:
            answer = requests.post(f"{server.url}/upload/image", files={"image": (path.name, file)}, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise ServerError(f"the server did not take the picture {path.name}: {error}") from error
    return answer.json()["name"]


def run_graph(server: Server, graph: dict, progress: Progress = lambda done, total: None) -> list[bytes]:
    """Queue an API graph, report the sampler's steps, and return the saved images.

    Raises ServerError with the host's own node errors or message.
    """
    try:
        return asyncio.run(_run_graph(server, graph, progress))
    except aiohttp.ClientError as error:
        raise ServerError(f"the connection to the server broke: {error}") from error


async def _run_graph(server: Server, graph: dict, progress: Progress) -> list[bytes]:
    client_id = uuid.uuid4().hex
    socket_url = f"{server.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.ws_connect(socket_url, max_msg_size=0) as events,
    ):
        prompt_id = await _queue(session, server, graph, client_id)
        await _follow(events, prompt_id, progress)
        async with session.get(f"{server.url}/history/{prompt_id}") as answer:
            history = (await answer.json())[prompt_id]
        return [await _image(session, server, image) for image in _saved_images(history)]


async def _queue(session: aiohttp.ClientSession, server: Server, graph: dict, client_id: str) -> str:
    async with session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": client_id}) as answer:
        body = await answer.json()
    if body.get("error") or body.get("node_errors"):
        raise ServerError(f"ComfyUI refused the graph: {_refusal(body)}")
    return body["prompt_id"]


def _refusal(body: dict) -> str:
    lines = [
        f"{node['class_type']}: {error['message']} ({error['details']})"
        for node in body.get("node_errors", {}).values()
        for error in node["errors"]
    ]
    return "; ".join(lines) or str(body["error"].get("message", body["error"]))


async def _follow(events: aiohttp.ClientWebSocketResponse, prompt_id: str, progress: Progress) -> None:
    async for message in events:
        if message.type != aiohttp.WSMsgType.TEXT:
            continue  # a preview picture
        event = message.json()
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "progress":
            progress(int(data["value"]), int(data["max"]))
        elif kind == "execution_error":
            raise ServerError(
                f"{data['node_type']} failed: {data['exception_type']}: {data['exception_message'].strip()}"
            )
        elif kind == "execution_interrupted":
            raise ServerError("the run was interrupted")
        elif kind == "executing" and data["node"] is None:
            return
    raise ServerError("the server closed the connection while it ran the graph")


def _saved_images(history: dict) -> list[dict]:
    images = [image for output in history["outputs"].values() for image in output.get("images", [])]
    return [image for image in images if image["type"] == "output"]  # not a node's preview


async def _image(session: aiohttp.ClientSession, server: Server, image: dict) -> bytes:
    async with session.get(f"{server.url}/view", params=image) as answer:
        answer.raise_for_status()
        return await answer.read()
