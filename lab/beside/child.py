"""A pack's own process: it becomes a ComfyUI, imports the pack, and tries node after node."""

from __future__ import annotations

import dataclasses
import json
import signal
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from .packs import CORE, NotImported, import_nodes, start_host
from .row import NEXT_IN_ANOTHER
from .small import load, make_small
from .trial import baselines, try_node


def try_pack(packs: Path, name: str, wanted: list[str], start: int, out: Path, seconds: int) -> int:
    """Try the nodes from number `start` on; a line of JSON for the list of nodes, and for each of their rows.

    wanted: patterns of nodes' names; seconds: what importing, and each node, may take; then the process is ended.
    """
    signal.alarm(seconds)
    start_host(packs.resolve())
    with tempfile.TemporaryDirectory() as folder, out.open("w", buffering=1) as lines:
        try:
            nodes = import_nodes(None if name == CORE else packs.resolve() / name)
        except NotImported as reason:
            print(json.dumps(str(reason)), file=lines)
            return 1
        nodes = [node for node in nodes if any(fnmatch(node.name, pattern) for pattern in wanted)]
        print(json.dumps([node.name for node in nodes]), file=lines)
        if not nodes[start:]:
            return 0
        base = baselines(load(make_small(Path(folder))))
        for node in nodes[start:]:
            signal.alarm(seconds)
            row = try_node(node, base)
            print(json.dumps(dataclasses.asdict(row)), file=lines)
            if row.left:
                return NEXT_IN_ANOTHER
    return 0
