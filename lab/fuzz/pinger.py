"""How long the server says nothing: somebody else asks it for its queue all the time, from a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..server import Server

PAUSE_SECONDS = 0.005
WORTH_TELLING_SECONDS = 0.1


@dataclass(frozen=True)
class Silence:
    """A time without an answer.

    began: by time.monotonic(). busy: seconds of it in which the server's process worked; where others work on the same
    machine, the rest may be theirs.
    """

    began: float
    seconds: float
    busy: float


@dataclass
class Silences:
    """pings: how many were answered. found: those worth telling; complete when the pinger has stopped."""

    pings: int = 0
    found: list[Silence] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """Seconds."""
        return max((one.seconds for one in self.found), default=0.0)

    @property
    def longest_busy(self) -> float:
        """Seconds in which the server's process worked, of the one where these are most."""
        return max((one.busy for one in self.found), default=0.0)


@contextlib.contextmanager
def pinging(server: Server) -> Iterator[Silences]:
    """Ping while this is open."""
    silences, process = Silences(), multiprocessing.get_context("fork")
    ours, theirs = process.Pipe()
    child = process.Process(target=_ping, args=(server, theirs), daemon=True)
    child.start()
    ours.recv()  # its first ping is answered
    try:
        yield silences
    finally:
        ours.send("stop")
        silences.pings, silences.found = ours.recv()
        child.join()


def _ping(server: Server, pipe) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc, timeout=300)
    found, pings = [], 0
    while not pipe.poll(PAUSE_SECONDS):
        began, worked = time.monotonic(), _worked(server.process.pid)
        connection.request("GET", "/prompt")
        connection.getresponse().read()
        seconds = time.monotonic() - began
        if seconds > WORTH_TELLING_SECONDS:
            found.append(Silence(began, seconds, min(seconds, _worked(server.process.pid) - worked)))
        if not pings:
            pipe.send("begun")
        pings += 1
    pipe.recv()
    pipe.send((pings, found))


def _worked(process: int) -> float:
    """Processor seconds of a process."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
