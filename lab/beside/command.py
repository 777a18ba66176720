"""make test-beside PACKS=folder: every node in a folder of packs that takes and returns a MODEL, beside ours.

Each is run on a small FLUX in both orders, and a table says what happened. The host's own nodes come first. Every pack
runs in a process of its own: one that hangs, ends the process or changes the host is a row, and the rest go on. It runs
the packs' code: give it only packs that you would run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import host
from ..in_host import enter_host
from .packs import CORE, pack_folders, without_paths
from .row import NEXT_IN_ANOTHER, Row
from .table import markdown, summary

SECONDS = 600  # for one node, or for importing a pack


def main(arguments: list[str]) -> int:
    """Run the trials, print the table; 0 where every promise is kept."""
    parser = argparse.ArgumentParser(prog="make test-beside", description=__doc__)
    parser.add_argument("packs", type=Path, help="a folder of packs, as custom_nodes is")
    parser.add_argument("--only", nargs="*", default=[], help="packs by their folder's name (ComfyUI: its own nodes)")
    parser.add_argument("--nodes", nargs="*", default=["*"], help="nodes by name; * stands for anything")
    parser.add_argument("--write", type=Path, help="a file to write the table to, too")
    parser.add_argument("--child", nargs=3, metavar=("PACK", "START", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        enter_host()
        from .child import try_pack  # it imports the host

        name, start, out = options.child
        return try_pack(options.packs, name, options.nodes, int(start), Path(out), SECONDS)
    if not options.packs.is_dir():
        print(f"test-beside: {options.packs} is no folder of packs (make test-beside PACKS=folder)", file=sys.stderr)
        return 2
    names = [CORE, *(path.name for path in pack_folders(options.packs))]
    if unknown := [name for name in options.only if name not in names]:
        print(f"test-beside: no pack {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    rows: dict[str, list[Row] | str] = {}
    for name in options.only or names:
        rows[name] = _rows(options.packs, name, options.nodes)
        host.say(f"{name}: {rows[name] if isinstance(rows[name], str) else summary({name: rows[name]})}")
        if options.write:  # so far, as it takes a while
            options.write.write_text(markdown(rows) + "\n")
    print(markdown(rows))
    found = [row for rows_of_one in rows.values() if not isinstance(rows_of_one, str) for row in rows_of_one]
    return 0 if all(row.kept for row in found) else 1


def _rows(packs: Path, name: str, nodes: list[str]) -> list[Row] | str:
    """A pack's rows, or why there are none; as many processes as it takes."""
    rows: list[Row] = []
    while True:
        found = _run_child(packs, name, nodes, len(rows))
        if isinstance(found, str):
            return found
        more, names, status, last = found
        rows += more
        if len(rows) < len(names) and status != NEXT_IN_ANOTHER:
            rows.append(Row(names[len(rows)], runs=f"not tried to the end: {_ending(status, last)}"))
        if len(rows) >= len(names):
            return rows or "no node that takes and returns a MODEL"


def _run_child(packs: Path, name: str, nodes: list[str], start: int) -> tuple[list[Row], list[str], int, str] | str:
    """Its rows, the names of all nodes, how it ended and its last words; or why the pack has none."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "rows", Path(folder) / "log"
        command = [sys.executable, str(host.REPO / "lab" / "run.py"), "beside", str(packs), "--nodes", *nodes]
        with log.open("w") as said:
            child = [*command, "--child", name, str(start), str(out)]
            status = subprocess.run(child, stdout=said, stderr=subprocess.STDOUT).returncode
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        last = without_paths((log.read_text(errors="replace").strip().splitlines() or [""])[-1])[:120]
    if not lines:
        return f"not imported: {_ending(status, last)}"
    if isinstance(lines[0], str):
        return f"not imported: {lines[0]}"
    return [Row(**line) for line in lines[1:]], lines[0], status, last


def _ending(status: int, last: str) -> str:
    return f"takes longer than {SECONDS} s" if status == -signal.SIGALRM else f"ends the process ({status}): {last}"
