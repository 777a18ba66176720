"""Run a command for as long as who started this lives: python guard.py FOLDER COMMAND …

Its standard input is a pipe that nobody writes to. When the other end is let go, however that happens, it ends the
command with all that it started, so that no ComfyUI outlives its worker and keeps the GPU, and removes the folder.
Where the command ends by itself, or can't be begun, it leaves a file ENDED in the folder. Standard library only, and
importing nothing of ours.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ENDED = "ended"
POLITE_SECONDS = 10


def main(folder: Path, command: list[str]) -> int:
    """Begin; at once 0, as the work goes on in a process that is nobody's child: Ray kills those of its workers."""
    if hasattr(os, "fork") and os.fork():
        return 0
    return _watch(folder, command)


def _watch(folder: Path, command: list[str]) -> int:
    alone = threading.Event()  # who started us is gone
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]} can't be run: {error.strerror}", file=sys.stderr, flush=True)
        (folder / ENDED).touch()
        _wait_until_alone()
        shutil.rmtree(folder, ignore_errors=True)
        return 1
    ending = threading.Thread(target=_end_when_alone, args=(process, alone), daemon=True)
    ending.start()
    status = process.wait()
    if not alone.is_set():
        (folder / ENDED).touch()
    ending.join()
    shutil.rmtree(folder, ignore_errors=True)
    return status


def _wait_until_alone() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass


def _end_when_alone(process: subprocess.Popen, alone: threading.Event) -> None:
    _wait_until_alone()
    alone.set()
    with contextlib.suppress(subprocess.TimeoutExpired):
        _signal(process, signal.SIGTERM)
        process.wait(POLITE_SECONDS)
    _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
    """To the command and what it started, where the system has groups of processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number) if hasattr(os, "killpg") else process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
