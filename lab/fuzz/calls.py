"""Requests by the thousand to a running server: those that its OpenAPI document describes, and hostile ones."""

from __future__ import annotations

import functools
import json
import logging
import socket
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

from ...nagpag.service import request as table
from ..server import Server
from .hostile import RUNS, Sent, hostile
from .specs import generate

MOST_ANSWER = 64 * 1024  # bytes, beside what was asked back
SECONDS = 60
SLOW_SECONDS = 0.1
FAILED = "urn:nag-pag:job-failed"


@dataclass(frozen=True)
class Answer:
    """status 0: there was none. sent: bytes of the request."""

    status: int
    body: bytes
    sent: int

    @property
    def json(self) -> dict:
        """{} where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Call:
    """A request that was made, to make it again. began, ended: by time.monotonic()."""

    began: float
    ended: float
    words: str
    again: Callable[[], Answer]


@dataclass
class Calls:
    """What came of them. statuses: status → how many. longest: of an answer, in bytes. faults: in words.

    slow: those that may have kept the server silent.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    failed_runs: int = 0
    longest: int = 0
    faults: list[str] = field(default_factory=list)
    slow: list[Call] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many were made."""
        return sum(self.statuses.values())

    def add(self, words: str, send: Callable[[], Answer]) -> Answer:
        """Make this call and look at its answer."""
        began = time.monotonic()
        answer = send()
        call = Call(began, time.monotonic(), words, send)
        self.slow += [call] if call.ended - began > SLOW_SECONDS else []
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        self.longest = max(self.longest, len(answer.body))
        if answer.status >= 500 and answer.json.get("type") == FAILED:
            self.failed_runs += 1
        elif answer.status >= 500 or not answer.status:
            self.faults.append(f"{answer.status} of {words}: {answer.body[:100]!r}")
        if len(answer.body) > MOST_ANSWER + answer.sent:
            self.faults.append(f"{len(answer.body)} bytes of {words}")
        return answer


def try_calls(server: Server, number: int) -> Calls:
    """Make so many requests, one after the other."""
    for name in ("hypothesis", "schemathesis"):
        logging.getLogger(name).setLevel(logging.ERROR)
    calls = Calls()
    described, of_jobs = _of_the_document(server)
    for strategy, send, share in described:
        generate(strategy, functools.partial(send, calls), round(share * number))
    generate(of_jobs, functools.partial(_send_case, calls), round(0.05 * number))
    generate(hostile(), functools.partial(_send_hostile, server, calls), number - calls.number)
    return calls


Strategy = st.SearchStrategy[Any]
Send = Callable[[Calls, Any], object]


def _of_the_document(server: Server) -> tuple[list[tuple[Strategy, Send, float]], Strategy]:
    """From the server's OpenAPI document: bodies, with what sends them and their share, and requests about jobs."""
    api = schemathesis.openapi.from_url(f"{server.url}/nagpag/schema")
    bodies: list[tuple[Strategy, Send, float]] = [
        (api[f"/nagpag/{endpoint}"]["POST"].as_strategy(generation_mode=mode), functools.partial(send, server), share)
        for endpoint in table.ENDPOINTS
        for mode, send, share in SHARES
    ]
    job = "/nagpag/jobs/{prompt_id}"
    of_jobs = ((job, "GET"), (job, "DELETE"), (f"{job}/events", "GET"))
    jobs = [api[path][method].as_strategy() for path, method in of_jobs]
    return bodies, st.one_of(*jobs)


def _send_valid(server: Server, calls: Calls, case: Any) -> None:
    case.body |= RUNS | ({"image_url": "example.png"} if "image_url" in case.body else {})
    _cancel(server, _send_case(calls, case))


def _send_invalid(server: Server, calls: Calls, case: Any) -> None:
    _cancel(server, _send_case(calls, case))


# Of all requests, for each endpoint; few that are valid, as each is drawn.
SHARES = ((GenerationMode.POSITIVE, _send_valid, 0.02), (GenerationMode.NEGATIVE, _send_invalid, 0.23))


def _send_case(calls: Calls, case: Any) -> Answer:
    def send() -> Answer:
        try:
            found = case.call(timeout=SECONDS)
        except Exception as error:  # whatever the client says of a server that does not answer
            return Answer(0, repr(error).encode(), 0)
        return Answer(found.status_code, found.content, len(found.request.body or b"") + len(found.request.url))

    return calls.add(f"{case.method} {case.path}: {repr(case.body)[:100]}", send)


def _send_hostile(server: Server, calls: Calls, sent: Sent) -> None:
    words = f"{sent.method} {sent.path} {sent.kind} {sent.more}: {sent.body[:100]!r}"
    _cancel(server, calls.add(words, lambda: send_bytes(server, sent)))


def _cancel(server: Server, answer: Answer) -> None:
    """Drawing is not what is tried here."""
    if answer.status == 202 and (prompt_id := answer.json.get("prompt_id")):
        requests.delete(f"{server.url}/nagpag/jobs/{prompt_id}", timeout=SECONDS)


def send_bytes(server: Server, sent: Sent) -> Answer:
    """Send a request as it is, whatever it is; the answer, status 0 where there is none."""
    place = urllib.parse.urlsplit(server.url)
    headers = {
        "Host": place.netloc,
        "Content-Type": sent.kind,
        "Content-Length": str(len(sent.body)),
        **dict(sent.more),
    }
    lines = [f"{sent.method} {sent.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8")
    try:
        with socket.create_connection((place.hostname, place.port), timeout=SECONDS) as connection:
            connection.sendall(head + sent.body)
            answer = b"".join(iter(lambda: connection.recv(2**16), b""))
        return Answer(int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2], len(head) + len(sent.body))
    except (OSError, IndexError, ValueError) as error:
        return Answer(0, repr(error).encode(), len(head) + len(sent.body))
