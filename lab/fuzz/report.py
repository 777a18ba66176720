"""Fuzz the grammar and a real server, and write the figures into docs/reliability.md.

lab/run.py fuzz [specs [requests [prompts]]]: how many of each; 100000, 20000 and 1000 if they are not named.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from .. import host
from ..make.markdown import table
from ..server import Server, ServerError, running_server
from .calls import MOST_ANSWER, Call, Calls, try_calls
from .hostile import RUNS
from .pinger import Silence, Silences, pinging
from .specs import Specs, try_specs

NUMBERS = (100_000, 20_000, 1000)
FIRST = 100  # prompts, after which memory is looked at first
MOST_SILENCE = 0.25  # seconds
REPLAYS = 3
PAGE = host.REPO / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: made by make fuzz -->\n", "<!-- end of figures -->\n"


@dataclass(frozen=True)
class Memory:
    """MiB that the server's process has after some prompts, and after the last where ComfyUI's history is cleared."""

    prompts: tuple[int, ...]
    resident: tuple[float, ...]
    cleared: float


@dataclass(frozen=True)
class Figures:
    """All that was found. ours: silences that come again when their requests do, with these requests."""

    specs: Specs
    calls: Calls
    silences: Silences
    ours: list[tuple[float, str]]
    memory: Memory


def main(arguments: list[str]) -> int:
    """Fuzz and write; the exit status is 1 where anything was found that should not be."""
    numbers = [*map(int, arguments), *NUMBERS[len(arguments) :]]
    try:
        figures = measure(*numbers)
    except ServerError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1
    text = "\n".join(lines(figures))
    print(text)
    if tuple(numbers) == NUMBERS:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{text}\n{END}{rest.split(END)[1]}")
    found = [*figures.specs.faults, *figures.calls.faults, *(f"{one[0]:.3f} s of {one[1]}" for one in figures.ours)]
    print("\n".join(found[:50]), file=sys.stderr)
    return 1 if found else 0


def measure(specs: int, calls: int, prompts: int) -> Figures:
    """Try so many of each, on a server of its own."""
    host.say(f"reading {specs} block specs")
    read = try_specs(specs)
    host.say(f"making {calls} requests")
    with running_server() as server:
        _draw(server, 0)  # so that the models are loaded before anything is timed
        with pinging(server) as silences:
            made = try_calls(server, calls)
        ours = [*_ours(server, silences.found, made.slow)]
        host.say(f"drawing {prompts} small pictures")
        return Figures(read, made, silences, ours, _memory(server, prompts))


# --- silence ---


def _ours(server: Server, silences: list[Silence], calls: list[Call]) -> Iterator[tuple[float, str]]:
    """Those of the requests in a long silence that make one each time they are made."""
    for silence in silences:
        if silence.busy > MOST_SILENCE:
            for call in calls:
                if call.began < silence.began + silence.seconds and call.ended > silence.began:
                    least = min(_silence_of(server, call) for _ in range(REPLAYS))
                    if least > MOST_SILENCE:
                        yield least, call.words


def _silence_of(server: Server, call: Call) -> float:
    with pinging(server) as again:
        call.again()
        time.sleep(0.1)
    return again.longest_busy


# --- memory ---


def _draw(server: Server, seed: int) -> None:
    body = {"prompt": f"prompt {seed}", **RUNS, "seed": seed, "wait": True}
    answer = requests.post(f"{server.url}/nagpag/text-to-image", json=body, timeout=600)
    if not answer.ok:
        raise ServerError(f"a prompt was not drawn: {answer.text[:300]}\n{server.log_tail()}")


def _memory(server: Server, prompts: int) -> Memory:
    """Draw so many small pictures, each a prompt of its own; the memory after the first hundred and after all."""
    at, resident = tuple(sorted({min(FIRST, prompts), prompts})), []
    for number in range(1, prompts + 1):
        _draw(server, number)
        if number in at:
            resident.append(_resident(server))
    requests.post(f"{server.url}/history", json={"clear": True}, timeout=60)
    return Memory(at, tuple(resident), _resident(server))


def _resident(server: Server) -> float:
    time.sleep(1)
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- words ---


def lines(figures: Figures) -> Iterator[str]:
    """The figures, for the terminal and for the page."""
    specs, calls, silences, memory = figures.specs, figures.calls, figures.silences, figures.memory
    machine = f"{platform.machine()} CPU with {os.cpu_count()} cores and a load of {os.getloadavg()[2]:.0f}"
    yield f"Made by `make fuzz`, with ComfyUI {host.DEFAULT}, on a machine of {machine}.\n"
    counted = ", ".join(f"{number} × {status or 'no answer'}" for status, number in sorted(calls.statuses.items()))
    after = ", ".join(f"{size:.0f} MiB after {at}" for at, size in zip(memory.prompts, memory.resident, strict=True))
    rows = [
        ("block specs", f"{specs.tried}, of which {specs.read} mean something on FLUX.1"),
        ("longest spec", f"{specs.longest} characters"),
        ("slowest spec", f"{1000 * specs.slowest:.0f} ms of processor, read twice"),
        ("requests", f"{calls.number}: {counted}"),
        ("5xx but for a failed run", f"{_server_errors(calls)} ({calls.failed_runs} failed runs)"),
        ("longest answer", f"{calls.longest} bytes; the limit is {MOST_ANSWER} and what was asked back"),
        ("pings meanwhile", f"{silences.pings}"),
        ("longest silence", f"{1000 * silences.longest:.0f} ms"),
        ("of a silence, the server at work", f"at most {1000 * silences.longest_busy:.0f} ms"),
        ("silences over 250 ms that come again with their request", f"{len(figures.ours)}"),
        ("memory over prompts", f"{after}; {memory.cleared:.0f} MiB with ComfyUI's history cleared"),
        ("faults", f"{len(specs.faults) + len(calls.faults)}"),
    ]
    yield table(("", "found"), rows)


def _server_errors(calls: Calls) -> int:
    return sum(number for status, number in calls.statuses.items() if status >= 500) - calls.failed_runs
