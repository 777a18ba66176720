"""One node of another pack beside ours, in both orders and two reaches: what acts, what is said, what stays."""

from __future__ import annotations

import gc
import logging
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .filling import Unfillable, fill
from .packs import Node, without_paths
from .row import YES, Row
from .small import REACHES, STEPS, Said, fresh, inspected, ours, sample, theirs

LAST, FIRST = "ours last", "ours first"  # loader → theirs → ours, loader → ours → theirs
DUE = -(-STEPS // 4)  # renewals of the longer reach, every 4th step


@dataclass(frozen=True)
class Baselines:
    """What the model draws without another pack: plain, and with ours alone in each reach."""

    loaded: Any
    plain: Tensor
    alone: dict[str, Tensor]


def baselines(loaded: Any) -> Baselines:
    """Drawn once; they show, too, that ours acts on this model at all."""
    plain = sample(fresh(loaded))
    alone = {reach: sample(ours(fresh(loaded), reach)) for reach in REACHES}
    if any(torch.equal(plain, drawn) for drawn in alone.values()):
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
        drawn, again = sample(patched), sample(patched)
        row.runs, row.acts = YES, not torch.equal(drawn, base.plain)
    except Exception as error:
        row.runs = f"not by itself: {_words(error)}"
    else:
        _beside(row, node, inputs, base, drawn, torch.equal(drawn, again))
        row.after = _after(patched, again, torch.equal(drawn, again))
    row.left = _left(base)
    return row


def _beside(row: Row, node: Node, inputs: dict[str, Any], base: Baselines, drawn: Tensor, repeats: bool) -> None:
    """Ours and theirs on one model: fills in all but what stays."""
    quiet: list[str] = []
    inspect: set[str] = set()
    for reach, cells in (("attention", row.attention), ("longer", row.longer)):
        if reach == "attention" and not row.acts:
            continue  # nothing of theirs to get along with: one reach shows that it stays so
        for order in (LAST, FIRST):
            try:
                model = _both(node, inputs, base, reach, order)
                inspect |= _false_words(row, inspected(model))
                with Said() as heard:
                    found = sample(model)
            except Exception as error:
                cells[order] = f"fails: {_words(error)}"
                continue
            here = not torch.equal(found, drawn)
            there = not row.acts or not torch.equal(found, base.alone[reach])
            cells[order] = (
                YES
                if here and there
                else " and ".join(
                    name for name, acts in (("ours does not act", here), ("theirs does not act", there)) if not acts
                )
            )
            steps, renewed = _counts(heard.lines)
            complete = steps == STEPS and (reach == "attention" or renewed == DUE)
            if reach == "longer":
                row.renewed = f"{row.renewed}, {renewed}" if row.renewed else str(renewed)
            if not here and not _warned(heard.lines):
                quiet.append(f"{reach}, {order}")
            if "nothing that is known" in inspected(model) and not complete and not _warned(heard.lines):
                inspect.add(f"guided at {steps} of {STEPS} steps, renewed at {renewed}: unsaid")
    row.said = f"NO: silent in {'; '.join(quiet)}" if quiet else YES
    row.inspect = f"NO: {'; '.join(sorted(inspect))}" if inspect else YES
    row.exact = _exact(node, inputs, base, drawn, repeats)


def _both(node: Node, inputs: dict[str, Any], base: Baselines, reach: str, order: str, **settings: Any) -> Any:
    model = fresh(base.loaded)
    if order == LAST:
        return ours(theirs(model, node, inputs), reach, **settings)
    return theirs(ours(model, reach, **settings), node, inputs)


def _exact(node: Node, inputs: dict[str, Any], base: Baselines, drawn: Tensor, repeats: bool) -> str:
    """Whether scale 0 draws what theirs draws alone, to the bit, in both orders."""
    try:
        same = [torch.equal(sample(_both(node, inputs, base, "longer", o, scale=0.0)), drawn) for o in (LAST, FIRST)]
    except Exception as error:
        return f"NO: {_words(error)}"
    if all(same):
        return YES
    return "NO" if repeats else "theirs does not repeat itself"


def _after(patched: Any, before: Tensor, repeats: bool) -> str:
    """Whether their model draws what it drew `before`, when ours was put on it and has sampled."""
    try:
        sample(ours(patched, "longer"))
        same = torch.equal(sample(patched), before)
    except Exception as error:
        return f"NO: {_words(error)}"
    if same:
        return YES
    return "NO" if repeats else "theirs does not repeat itself"


def _left(base: Baselines) -> str:
    """Whether a fresh model still draws what it drew before this node was tried."""
    try:
        same = torch.equal(sample(fresh(base.loaded)), base.plain)
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
