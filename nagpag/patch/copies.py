"""What other patches keep from one call to the next, copied for a negative stream: it writes into nothing but its own.

A patch may keep tensors of a block (core FluxKVCache keeps the references' keys and values), count its calls, or note
something in its input function for its output function. A negative stream calls the same functions with a state of its
own: what the positive stream's is before a block, and what this stream itself has kept beside it.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections import defaultdict
from types import CellType, CodeType, FunctionType, MethodType, SimpleNamespace
from typing import Any

from torch import Tensor

# A list of patches, one of them, a cell of its closure, an object in there, its container, what that holds; what is
# further away, larger, or of these is somebody else's. Tensors are never copied, only what refers to them.
DEEP, MANY = 6, 1000
FOREIGN = ("torch", "comfy", *sys.stdlib_module_names)
OURS = (__package__ or "").rpartition(".")[0]


class Copies:
    """The copies that one negative stream has, from forward to forward of a sampling."""

    def __init__(self) -> None:
        # By the identity of an original: itself, its copy, and what it held when the positive stream had passed, too.
        self._known: dict[int, tuple[Any, Any, dict]] = {}
        self._fresh: set[int] = set()
        self._used: set[int] = set()
        # Whether any of them may change from call to call; else they are what they were when the forward began.
        self.keep = False

    def begin(self) -> None:
        """A forward or a block begins: what is asked for from here on follows the positive stream's state anew."""
        self._fresh.clear()

    def of(self, value: Any, depth: int = 0) -> Any:
        """A function, or a container of functions, that keeps to this stream; itself where it keeps nothing."""
        if isinstance(value, MethodType):
            return MethodType(self.of(value.__func__, depth), self.of(value.__self__, depth))
        if isinstance(value, functools.partial):
            return functools.partial(self.of(value.func, depth), *value.args, **value.keywords)
        if depth > DEEP or not _may_keep(value):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = value, self._blank(value), {}
        self._used.add(id(value))
        original, own, ended = self._known[id(value)]
        if id(value) not in self._fresh:
            self.keep |= _may_change(value)
            self._fresh.add(id(value))  # before its parts, which may lead back to it
            had, parts = _parts(own), _parts(original)
            _fill(own, {key: self._part(part, had.get(key), ended.get(key), depth) for key, part in parts.items()})
        return own

    def _part(self, part: Any, own: Any, ended: Any, depth: int) -> Any:
        # What this stream kept stands for what the positive stream kept beside it, for as long as that is there.
        return own if ended is part and _holds_tensors(own) else self.of(part, depth + 1)

    def _blank(self, value: Any) -> Any:
        """A copy to be filled; a function's has its own cells, which others of its closure share."""
        if isinstance(value, CellType):
            return CellType()
        if isinstance(value, defaultdict):
            return defaultdict(value.default_factory)
        if not isinstance(value, FunctionType):
            # No code of another pack's is run for it: an object may not want to be copied, or give itself.
            kind: Any = type(value)
            return kind.__new__(kind)
        cells = (self._known.setdefault(id(cell), (cell, CellType(), {}))[1] for cell in value.__closure__ or ())
        own = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells))
        own.__kwdefaults__ = value.__kwdefaults__
        own.__dict__.update(value.__dict__)
        return own

    def end(self) -> None:
        """The positive stream has passed what this one did: from here on, what both kept stands beside each other."""
        if not self._fresh:
            return
        self._fresh.clear()
        for original, _, ended in self._known.values():
            ended.clear()
            ended.update({key: part for key, part in _parts(original).items() if _holds_tensors(part)})

    def forget(self) -> None:
        """The forward has ended: let go of what it did not ask for, as a node may make its functions anew each step."""
        if self._used:
            self._known = {key: known for key, known in self._known.items() if key in self._used}
            self._used = set()


def _may_keep(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, (FunctionType, CellType)):
        return isinstance(value, CellType) or value.__closure__ is not None or bool(value.__defaults__)
    if isinstance(value, (dict, list, set)):
        return len(value) <= MANY and kind.__module__ in ("builtins", "collections")
    if isinstance(value, type) or hasattr(value, "__del__") or kind.__module__.startswith(OURS):
        return False
    if isinstance(value, SimpleNamespace):
        return True
    # Of an object the whole family counts: a pack's own module is torch's, and no state of a patch. One that is made in
    # a way of its own (a singleton), or that has slots, is left as it is.
    family = kind.__mro__[:-1]
    plain = kind.__new__ is object.__new__ and not any("__slots__" in vars(each) for each in family)
    return plain and hasattr(value, "__dict__") and {k.__module__.split(".")[0] for k in family}.isdisjoint(FOREIGN)


def _may_change(value: Any) -> bool:
    """Whether it is a container, or a function that binds a name of its closure anew."""
    if not isinstance(value, FunctionType):
        return not isinstance(value, CellType)
    return _binds_anew(value.__code__)


@functools.lru_cache(1000)
def _binds_anew(code: CodeType) -> bool:
    return any(s.opname == "STORE_DEREF" and s.argval in code.co_freevars for s in dis.get_instructions(code))


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensors, value))
    return isinstance(value, Tensor)


def _parts(value: Any) -> dict:
    """What it holds, by key, place, or name."""
    if isinstance(value, FunctionType):
        defaults = {f"default {i}": default for i, default in enumerate(value.__defaults__ or ())}
        return {**dict(enumerate(value.__closure__ or ())), **defaults}
    if isinstance(value, CellType):
        return {0: value.cell_contents} if _is_filled(value) else {}
    if isinstance(value, dict):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, (list, set)) else dict(vars(value))


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _fill(own: Any, parts: dict) -> None:
    if isinstance(own, FunctionType):  # its cells are copies already
        own.__defaults__ = tuple(part for name, part in parts.items() if isinstance(name, str)) or None
    elif isinstance(own, CellType):
        if parts:
            own.cell_contents = parts[0]
    elif isinstance(own, list):
        own[:] = parts.values()
    elif isinstance(own, set):
        own.clear()
        own.update(parts.values())
    else:
        held = own if isinstance(own, dict) else vars(own)
        held.clear()
        held.update(parts)
