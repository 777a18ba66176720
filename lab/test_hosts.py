"""The host tests on every supported ComfyUI, oldest to newest, each from the registry in its own environment."""

from __future__ import annotations

import os
import re
import subprocess

from . import host


def main(arguments: list[str]) -> int:
    """Run them all and print a table; the exit status."""
    rows = [(version, *_run(version)) for version in arguments or host.RELEASES]
    print("\nComfyUI  result")
    for version, ok, summary in rows:
        print(f"{version:7}  {'ok    ' if ok else 'FAILED'}  {summary}")
    return 0 if all(ok for _, ok, _ in rows) else 1


def _run(version: str) -> tuple[bool, str]:
    host.say(f"ComfyUI {version}")
    try:
        found = host.pinned_host(version)
    except host.HostError as error:
        return False, str(error)
    env = {**os.environ, "COMFYUI_PATH": str(found.path), "COMFYUI_PYTHON": str(found.python)}
    command = [str(found.python.parent / "pytest"), "tests/host", "-q", "--tb=short"]
    done = subprocess.run(command, cwd=host.REPO, env=env, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-6000:])
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    return done.returncode == 0, re.sub(r"^=+ | =+$", "", last)
