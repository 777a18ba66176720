"""The table of what was found: one row per node, one line per pack without any."""

from __future__ import annotations

from ..make.markdown import table
from .row import YES, Row
from .ways import WAYS

HEAD = (
    "pack",
    "node",
    "runs",
    *(f"both act, {name}" for name in WAYS),
    "renewed",
    "scale 0 is theirs",
    "theirs after",
    "said where ours can't",
    "Inspect true",
)


def markdown(rows: dict[str, list[Row] | str]) -> str:
    """By pack its rows, or why there are none."""
    tried = [(pack, row) for pack, found in rows.items() if not isinstance(found, str) for row in found]
    ran = [(pack, row) for pack, row in tried if row.runs == YES]
    idle = [f"- {pack}: {found}" for pack, found in rows.items() if isinstance(found, str)]
    idle += [f"- {pack}, {row.node}: {_cell(row.runs)}{_left(row)}" for pack, row in tried if row.runs != YES]
    parts = [table(HEAD, [_cells(pack, row) for pack, row in ran]), summary(rows)]
    if idle:
        parts.append("Not tried beside ours:\n\n" + "\n".join(idle))
    return "\n\n".join(parts)


def summary(rows: dict[str, list[Row] | str]) -> str:
    """How many nodes ran, and of how many every promise was kept."""
    tried = [row for found in rows.values() if not isinstance(found, str) for row in found]
    ran = [row for row in tried if row.runs == YES]
    kept = sum(row.kept for row in ran)
    return f"{len(tried)} nodes of {len(rows)} packs; {len(ran)} run here; every promise is kept beside {kept} of them."


def _cells(pack: str, row: Row) -> list[str]:
    runs = YES if row.acts else "yes, does nothing as it is set"
    found = [_orders(row.both.get(name, {})) for name in WAYS]
    cells = [runs + _left(row), *found, _renewed(row), row.exact, row.after, row.said, row.inspect]
    return [pack, row.node.replace("|", "/"), *map(_cell, cells)]


def _left(row: Row) -> str:
    return f"; afterwards {row.left}" if row.left else ""


def _orders(found: dict[str, str]) -> str:
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{order}: {words}" for order, words in found.items())


def _renewed(row: Row) -> str:
    """By way with a branch; where the orders differ both, with a comma."""
    found = [row.renewed.get(name, []) for name, way in WAYS.items() if any(way.due)]
    return " / ".join(", ".join(map(str, counts[:1] if len(set(counts)) == 1 else counts)) for counts in found)


def _cell(words: str) -> str:
    return words.replace("|", "/").replace("\n", " ")
