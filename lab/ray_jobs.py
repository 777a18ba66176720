"""Run commands on a Ray cluster, one a core: python lab/ray_jobs.py ADDRESS < jobs > done

Runs in the environment with Ray (host.cluster_python), which has nothing of ComfyUI's. A job is a line of JSON with a
command, what it reads, and a file that it makes; a line of what is done has the job's number and the file's bytes, or
the last words of the command. A worker that is lost is Ray's to replace: it does the job again.
"""

from __future__ import annotations

import base64
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray

REPO = Path(__file__).resolve().parents[1]


@ray.remote(num_cpus=1, max_retries=3)
def run(job: dict) -> dict:
    """One job, on whichever machine: the command prints the path of its file last."""
    done = subprocess.run([sys.executable, *job["command"]], input=job["given"], capture_output=True, text=True)
    if done.returncode:
        return {"error": " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])}
    made = Path(done.stdout.strip().splitlines()[-1])
    return {"bytes": base64.b64encode(made.read_bytes()).decode()}


def main(address: str) -> None:
    """Hand out all jobs, and print each as soon as it is done."""
    jobs = [json.loads(line) for line in sys.stdin]
    sys.path.insert(0, str(REPO))
    cluster = importlib.import_module("nagpag.service.client.sweep.cluster")
    try:
        cluster.connect(address)
    except cluster.NoServer as error:
        sys.exit(f"evidence: {error}")
    waiting = {run.remote(job): number for number, job in enumerate(jobs)}
    while waiting:
        (one, *_), _ = ray.wait(list(waiting), num_returns=1)
        print(json.dumps({"number": waiting.pop(one), **outcome(one)}), flush=True)


def outcome(job: Any) -> dict:
    """What came of a job; one that was lost again and again takes no other with it."""
    try:
        return ray.get(job)
    except Exception as error:  # what went wrong in a job comes back as a class that Ray makes of its error's
        return {"error": (str(error).strip() or type(error).__name__).splitlines()[-1]}


if __name__ == "__main__":
    main(sys.argv[1])
