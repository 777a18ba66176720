"""Workers on a Ray cluster, each with a ComfyUI and a GPU of its own. The only module that imports Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from .. import JobFailed, NoServer, ServiceError
from .board import Drawn, Lost
from .own_comfyui import OwnComfyUI
from .plan import Job
from .ways import BadPlan
from .workers import OnServer

PACKAGE = Path(__file__).resolve().parents[3]  # this package, which travels to the machines of the cluster
PATIENCE = 10.0  # seconds to be heard at an address
MOST_STARTS = 3  # that fail one after another, of one worker


class Drawer:
    """The actor: a ComfyUI on its machine, and who asks it."""

    def __init__(self, cluster: dict[str, Any]):
        self.comfyui = OwnComfyUI(cluster)
        self.server = OnServer(self.comfyui.url)

    def where(self) -> str:
        """Its machine and process."""
        return f"{socket.gethostname()}, process {os.getpid()}"

    def models(self) -> dict[str, dict]:
        """The model files that its ComfyUI has."""
        return self.server.client.models()

    def draw(self, job: Job) -> tuple[str, Any]:
        """What came of a job: drawn, or how and why not."""
        try:
            drawn = self.server.draw(job, lambda share: None)
            return "drawn", (drawn.pictures, drawn.told)
        except Lost as error:
            return "lost", (str(error), {})
        except ServiceError as error:
            return "failed", (str(error), error.problem)


class OnRay:
    """Draws in an actor; one that is lost is replaced."""

    def __init__(self, number: int, cluster: dict[str, Any]):
        self.number, self.cluster = number, cluster
        self.name = f"worker {number}"
        self.start()

    def start(self) -> None:
        """Ask for an actor; it is there when its machine has a GPU free and ComfyUI is up."""
        gpus = float(self.cluster["gpus"])
        # Nothing of Ray's own is tried again: the board knows what is done.
        made = ray.remote(Drawer).options(num_gpus=gpus, num_cpus=0, max_restarts=0, max_task_retries=0)
        self.actor: Any = made.remote(self.cluster)
        self.told: Any = self.actor.where.remote()

    def ready(self, over: Callable[[float], bool]) -> bool:
        """Wait until the actor is up, and for another where it is gone; NoServer where that fails again and again."""
        error: Exception | None = None
        for _ in range(MOST_STARTS):
            while not ray.wait([self.told], timeout=0.5)[0]:
                if over(0.0):
                    return False
            try:
                ray.get(self.told)
                # A second look, as what is known of an actor that was lost just now may be of before.
                self.name = f"worker {self.number} ({ray.get(self.actor.where.remote())})"
                return True
            except RayError as raised:
                error = raised
            self.stop()
            self.start()
        raise NoServer(f"{self.name} does not start: {_reason(error)}")

    def models(self) -> dict[str, dict] | None:
        """The model files that its ComfyUI has; None: it is not up yet, or did not start, which `ready` tells."""
        if not ray.wait([self.told], timeout=0)[0]:
            return None
        try:
            return ray.get(self.actor.models.remote())
        except RayError:
            return None

    def draw(self, job: Job, progress: Callable[[float], None]) -> Drawn:
        """Draw it in the actor. Raises Lost, or ServiceError."""
        try:
            kind, (found, told) = ray.get(self.actor.draw.remote(job))
        except RayError as error:
            raise Lost(_reason(error)) from error
        if kind == "lost":
            self.stop()  # its ComfyUI is gone; another actor starts another
            raise Lost(found)
        if kind == "failed":
            raise JobFailed(found, told)
        return Drawn(found, told, self.name)

    def stop(self) -> None:
        """End the actor, and with it its ComfyUI and what it draws."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self.actor)


def _reason(error: Exception | None) -> str:
    """The last words of Ray's long ones."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def workers(address: str, cluster: dict[str, Any] | None) -> Iterator[list[OnRay]]:
    """Workers on the cluster at this address, "local" for one on this machine alone; they end with this."""
    if cluster is None:
        raise BadPlan("--ray", ['the sweep has no table [cluster] that says where ComfyUI is: comfyui = "/its/folder"'])
    connect(address, runtime_env={"py_modules": [str(PACKAGE)]})
    made: list[OnRay] = []
    try:
        made += [OnRay(number, cluster) for number in range(1, _count(cluster) + 1)]
        print(f"nagpag: starting {len(made)} ComfyUIs on the cluster at {address} …", file=sys.stderr, flush=True)
        _wait_for_one(made)
        yield made
    finally:
        for worker in made:
            worker.stop()
        ray.shutdown()


def _wait_for_one(made: list[OnRay]) -> None:
    """Until a worker is up. Raises NoServer where none comes."""
    waiting = [worker.told for worker in made]
    error: Exception | None = None
    while waiting:
        (settled, *_), waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(settled)
            return
        except RayError as raised:
            error = raised
    raise NoServer(f"no worker starts: {_reason(error)}")


def connect(address: str, **options: Any) -> None:
    """To the cluster at this address, or to one that is started here ("local"). options: of ray.init.

    Raises NoServer that says why there is none.
    """
    if address != "local":
        _heard(address)
        return _init(address, **options)
    # Nothing is reported to Ray's makers, and ComfyUI is not put behind all other processes.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray gives up where one of its own processes takes more than 15 s to start (ray-project/ray, issue 65983), as on a
    # busy machine; by the next time its files have been read.
    for _ in range(MOST_STARTS - 1):
        with contextlib.suppress(NoServer):
            return _init(address, include_dashboard=False, **options)
        ray.shutdown()
    return _init(address, include_dashboard=False, **options)


def _heard(address: str) -> None:
    """Raise NoServer where nothing listens at host:port; Ray itself would go on asking for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # auto, or the name of another kind of cluster
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise NoServer(f"no Ray cluster at {address}: {_reason(error)}") from error


def _init(address: str, **options: Any) -> None:
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # what Ray raises here is of many kinds, a bare Exception among them
        raise NoServer(f"no Ray cluster at {address}: {_reason(error)}") from error


def _count(cluster: dict[str, Any]) -> int:
    if cluster["workers"]:
        return cluster["workers"]
    gpus, each = ray.cluster_resources().get("GPU", 0), cluster["gpus"]
    if not each or gpus < each:
        raise BadPlan("cluster", [f"workers is missing, and the cluster has {gpus:g} GPUs: say how many to start"])
    return int(gpus // each)
