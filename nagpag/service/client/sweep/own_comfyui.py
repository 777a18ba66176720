"""A ComfyUI of a worker's own, on the machine that this runs on: started, waited for, and ended with its starter."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from .. import Client, NoServer
from . import guard

START_SECONDS = 600.0
LOG = "comfyui.log"


class OwnComfyUI:
    """A ComfyUI that runs from a given folder on a free port. cluster: the table [cluster] of a sweep, whole.

    What it writes is in a folder of its own: several run from the same one. Its models and its input folder are that
    folder's. It ends when this process does, or when this is closed. Raises NoServer where it does not start.
    """

    def __init__(self, cluster: dict[str, Any]):
        self.folder = Path(tempfile.mkdtemp(prefix="nagpag-worker-"))
        self.pipe: IO[bytes] | None = None
        try:
            port = _free_port()
            self.url = f"http://127.0.0.1:{port}"
            self._start(_command(cluster, port, self.folder))
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    def _start(self, command: list[str]) -> None:
        guarded = [sys.executable, guard.__file__, str(self.folder), *command]
        with (self.folder / LOG).open("wb") as log:
            begun = subprocess.Popen(
                guarded,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,
            )
        self.pipe = begun.stdin
        if hasattr(os, "fork"):  # else the guard itself goes on
            begun.wait()

    def _wait_until_up(self) -> None:
        client, deadline = Client(self.url), time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if (self.folder / guard.ENDED).exists():
                raise NoServer(f"ComfyUI ended while starting: {self._log_tail()}")
            try:
                client._json("GET", "/system_stats")
                return
            except NoServer:
                time.sleep(0.5)
        raise NoServer(f"ComfyUI did not answer within {START_SECONDS:g} s: {self._log_tail()}")

    def _log_tail(self, lines: int = 15) -> str:
        return "\n".join((self.folder / LOG).read_text(errors="replace").splitlines()[-lines:])

    def close(self) -> None:
        """End it; its guard removes what it wrote."""
        if self.pipe:
            self.pipe.close()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def _command(cluster: dict[str, Any], port: int, folder: Path) -> list[str]:
    comfyui = Path(cluster["comfyui"])
    if not (comfyui / "main.py").is_file():
        raise NoServer(f"{comfyui} on {socket.gethostname()} is no ComfyUI folder: it has no main.py")
    python = _python(cluster["python"], comfyui)
    if not shutil.which(python):
        raise NoServer(f"{python} on {socket.gethostname()} is no Python that can be run; see python under [cluster]")
    for name in ("output", "temp", "user"):
        (folder / name).mkdir()
    command = [python, str(comfyui / "main.py"), "--port", str(port)]
    command += [word for name in ("output", "temp", "user") for word in (f"--{name}-directory", str(folder / name))]
    return [*command, "--database-url", f"sqlite:///{folder}/comfyui.db", "--disable-auto-launch", *cluster["options"]]


def _python(named: str | None, comfyui: Path) -> str:
    """The one that is named, that of an environment in the folder, or our own."""
    if named:
        return named
    inside = [comfyui / env / place for env in (".venv", "venv") for place in ("bin/python", "Scripts/python.exe")]
    return str(next((python for python in inside if python.is_file()), sys.executable))


def _environment() -> dict[str, str]:
    """Ours, but for where Python looks for modules: nothing of the cluster's gets into ComfyUI's Python."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
