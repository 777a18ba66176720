"""A job of the evidence on a machine of a cluster: makes one part, which standard input names; see `cluster`."""

from __future__ import annotations

import base64
import pickle
import sys

from . import runs


def main(arguments: list[str]) -> int:
    """Make the part unless it is there, and print where its file is."""
    name, words = sys.stdin.read().split()
    part = pickle.loads(base64.b64decode(words))
    if part.file.name != name:
        print(f"evidence: the code or the models here make {part.file.name}, not {name}", file=sys.stderr)
        return 1
    if not part.file.exists():
        runs.make_part(part)
    print(part.file)
    return 0
