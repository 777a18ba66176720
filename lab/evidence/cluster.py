"""Pictures of the evidence made on a Ray cluster: the same parts as on one machine, each by a process of its own.

Every machine of the cluster needs this repository at the same path, and the trained models in its cache: a disk that
they share, named by NAGPAG_CACHE, does both. A machine whose code or models would make other pictures is refused.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import host


class NotMade(RuntimeError):
    """The cluster did not make all that it was asked for; whatever it made is kept."""


HELP = "a Ray cluster that makes the pictures, such as ray://host:10001; local starts one here"
COMMAND = [str(host.REPO / "lab" / "host.py"), "run", "--", str(host.REPO / "lab" / "run.py"), "evidence_job"]


def make(parts: Sequence[Any], address: str) -> None:
    """Make these parts on the cluster at this address, "local" for one that is started here. See `runs.Part`.

    Raises NotMade when all have been tried, where some were not made, or where there is no such cluster.
    """
    failed = {}
    for number, done in tqdm(_done(parts, address), total=len(parts), desc="pictures", unit="part"):
        if "error" in done:
            failed[parts[number].contender.name] = done["error"]
        else:
            _keep(base64.b64decode(done["bytes"]), parts[number].file)
    if failed:
        raise NotMade(f"not made on the cluster: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")


def _done(parts: Sequence[Any], address: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of each part and what came of it, as they are done."""
    command = [str(host.cluster_python()), str(host.REPO / "lab" / "ray_jobs.py"), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as jobs:
        assert jobs.stdin and jobs.stdout
        jobs.stdin.writelines(json.dumps({"command": COMMAND, "given": packed(part)}) + "\n" for part in parts)
        jobs.stdin.close()
        for line in jobs.stdout:
            done = json.loads(line)
            yield done.pop("number"), done
    if jobs.returncode:
        raise NotMade(f"the jobs on the Ray cluster at {address} ended with status {jobs.returncode}")


def packed(part: Any) -> str:
    """A part in words that `job` reads, with the name that its file has here."""
    return f"{part.file.name} {base64.b64encode(pickle.dumps(part)).decode()}"


def _keep(made: bytes, path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".fetched")
    unfinished.write_bytes(made)
    unfinished.rename(path)
