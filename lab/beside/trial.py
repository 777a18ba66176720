"""One node of another pack beside ours, in both orders and four ways of ours: what acts, what is said, what stays."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .filling import Unfillable, fill
from .packs import Node, without_paths
from .row import YES, Row
from .small import Said, fresh, inspected, ours, sample, theirs
from .ways import CFGS, STEPS, WAYS

LAST, FIRST = "ours last", "ours first"  # loader → theirs → ours, loader → ours → theirs


@dataclass(frozen=True)
class Baselines:
    """What the model draws without another pack: by cfg plain, and with ours alone by way."""

    loaded: Any
    plain: dict[float, Tensor]
    alone: dict[str, Tensor]


@dataclass(frozen=True)
class Neighbour:
    """A node with its inputs, and by cfg what it draws without ours, whether that is another picture, and again so."""

    node: Node
    inputs: dict[str, Any]
    drawn: dict[float, Tensor]
    acts: dict[float, bool]
    repeats: dict[float, bool]


def baselines(loaded: Any) -> Baselines:
    """Drawn once; they show, too, that ours acts on this model at all."""
    plain = {cfg: sample(fresh(loaded), cfg) for cfg in CFGS}
    alone = {name: sample(ours(fresh(loaded), name), way.cfg) for name, way in WAYS.items()}
    if any(torch.equal(plain[WAYS[name].cfg], drawn) for name, drawn in alone.items()):
        raise RuntimeError("ours does nothing on the small model: no trial would tell anything")
    return Baselines(loaded, plain, alone)


def try_node(node: Node, base: Baselines) -> Row:
    """Everything about one node. Whatever it raises is a word in its row."""
    gc.collect()  # of the last node's models
    row = Row(node.name)
    try:
        inputs = fill(node)
    except Unfillable as reason:
        row.runs = f"not tried: {reason}"
        return row
    try:
        patched = theirs(fresh(base.loaded), node, inputs)
        beside = _alone(patched, node, inputs, base)
    except Exception as error:
        row.runs = f"not by itself: {_words(error)}"
    else:
        row.runs, row.acts = YES, any(beside.acts.values())
        _beside(row, beside, base)
        row.exact = _exact(beside, base)
        row.after = _after(patched, beside)
    row.left = _left(base)
    return row


def _alone(patched: Any, node: Node, inputs: dict[str, Any], base: Baselines) -> Neighbour:
    first, again = ({cfg: sample(patched, cfg) for cfg in CFGS} for _ in range(2))
    acts = {cfg: not torch.equal(first[cfg], base.plain[cfg]) for cfg in CFGS}
    return Neighbour(node, inputs, again, acts, {cfg: torch.equal(first[cfg], again[cfg]) for cfg in CFGS})


def _beside(row: Row, beside: Neighbour, base: Baselines) -> None:
    """Ours and theirs on one model, in each way and order."""
    quiet: list[str] = []
    inspect: set[str] = set()
    for name in WAYS:
        if name == "attention" and not row.acts:
            continue  # nothing of theirs to get along with: the other ways show that it stays so
        cells = row.both[name] = {}
        for order in (LAST, FIRST):
            try:
                cells[order] = _tried(row, beside, base, name, order, quiet, inspect)
            except Exception as error:
                cells[order] = f"fails: {_words(error)}"
    row.said = f"NO: silent in {'; '.join(quiet)}" if quiet else YES
    row.inspect = f"NO: {'; '.join(sorted(inspect))}" if inspect else YES


def _tried(
    row: Row, beside: Neighbour, base: Baselines, name: str, order: str, quiet: list[str], inspect: set[str]
) -> str:
    """Which of the two acts; what was not said, or falsely, goes to quiet and inspect."""
    way = WAYS[name]
    model = _both(beside, base, name, order)
    told = inspected(model)
    inspect |= _false_words(row, told)
    with Said() as heard:
        found = sample(model, way.cfg)
    here = not torch.equal(found, beside.drawn[way.cfg])
    there = not beside.acts[way.cfg] or not torch.equal(found, base.alone[name])
    steps, renewed = _counts(heard.lines)
    row.renewed.setdefault(name, []).append(renewed)
    warned = _warned(heard.lines)
    if not here and not warned:
        quiet.append(f"{name}, {order}")
    if "nothing that is known" in told and not warned and not (steps == STEPS and renewed in way.due):
        inspect.add(f"guided at {steps} of {STEPS} steps, renewed at {renewed} ({name}): unsaid")
    missing = [who for who, acts in (("ours does not act", here), ("theirs does not act", there)) if not acts]
    return " and ".join(missing) or YES


def _both(beside: Neighbour, base: Baselines, name: str, order: str, **settings: Any) -> Any:
    model = fresh(base.loaded)
    if order == LAST:
        return ours(theirs(model, beside.node, beside.inputs), name, **settings)
    return theirs(ours(model, name, **settings), beside.node, beside.inputs)


def _exact(beside: Neighbour, base: Baselines) -> str:
    """Whether scale 0 draws what theirs draws alone, to the bit, in both orders and at each cfg."""

    def same(order: str) -> bool:
        model = _both(beside, base, "prediction", order, scale=0.0)
        return all(torch.equal(sample(model, cfg), beside.drawn[cfg]) for cfg in CFGS)

    return _held(lambda: all([same(LAST), same(FIRST)]), beside)


def _after(patched: Any, beside: Neighbour) -> str:
    """Whether their model draws what it drew before ours was put on it and has sampled."""

    def same() -> bool:
        for name, way in WAYS.items():
            sample(ours(patched, name), way.cfg)
        return all(torch.equal(sample(patched, cfg), beside.drawn[cfg]) for cfg in CFGS)

    return _held(same, beside)


def _held(same: Callable[[], bool], beside: Neighbour) -> str:
    try:
        if same():
            return YES
    except Exception as error:
        return f"NO: {_words(error)}"
    return "NO" if all(beside.repeats.values()) else "theirs does not repeat itself"


def _left(base: Baselines) -> str:
    """Whether a fresh model still draws what it drew before this node was tried."""
    try:
        same = torch.equal(sample(fresh(base.loaded), 2.0), base.plain[2.0])
    except Exception as error:
        return f"a fresh plain model fails: {_words(error)}"
    return "" if same else "a fresh plain model draws something else"


# --- words ---


def _counts(lines: list[tuple[int, str]]) -> tuple[int, int]:
    """Guided steps and renewals, as the line at the end says them."""
    text = " ".join(line for _, line in lines)
    steps, renewed = (re.search(pattern, text) for pattern in (r": (\d+) steps", r"computed at (\d+) of them"))
    return (int(steps[1]) if steps else 0), (int(renewed[1]) if renewed else 0)


def _warned(lines: list[tuple[int, str]]) -> bool:
    return any(level >= logging.WARNING or "guided nothing" in line for level, line in lines)


def _false_words(row: Row, text: str) -> set[str]:
    """What is wrong with Inspect's words whatever the sampling shows."""
    found = set()
    others = [line for line in _section(text, "On this model") if not line.strip().startswith("NAG-PAG")]
    if row.acts and others in ([], ["  nothing"]):
        found.add("theirs acts, and it lists nothing")
    if without_paths(text) != text:
        found.add("prints a path")
    return found


def _section(text: str, title: str) -> list[str]:
    lines = text.splitlines()
    after = lines[lines.index(title) + 1 :]
    return after[: after.index("")] if "" in after else after


def _words(error: BaseException) -> str:
    """An error in a few words, without where on this machine it was raised."""
    text = without_paths((str(error).strip().splitlines() or [""])[0])
    return f"{type(error).__name__}{f': {text[:90]}' if text else ''}"
