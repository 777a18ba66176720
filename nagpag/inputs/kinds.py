"""Typed descriptions: of an input of a node, a field of a request, an option of the command line, and of a node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

MOST_QUOTED = 200
SEEDS = 2**64  # a seed is below it, as in the host's KSampler
# Of an input without a default: nothing runs without it.
REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()


LINKED = "linked"  # as web/idle_inputs.js has it


@dataclass(frozen=True)
class Need:
    """What another input has to be for this one to do anything: one of `options`, or a number above `above`.

    Of a socket LINKED among the options stands for whatever is connected.
    """

    name: str
    options: tuple[Any, ...] = ()
    above: float | None = None

    def met(self, value: Any) -> bool:
        """Whether that input's value lets this one work."""
        if LINKED in self.options:
            return value is not None
        return value in self.options if self.above is None else value > self.above


@dataclass(frozen=True, kw_only=True)
class Described(ABC):
    """What all kinds of inputs have.

    does: what turning it does, for people. default: REQUIRED, or what it is where it is not given; None makes null a
    valid value. advanced: put away at first, where a face can put things away. needs: it does something only where one
    of these is met. target: the class of the node in a shipped graph and that node's input, where a request's value
    goes.
    """

    name: str
    does: str
    default: Any = REQUIRED
    advanced: bool = False
    needs: tuple[Need, ...] = ()
    target: tuple[str, str] | None = None

    @property
    def required(self) -> bool:
        """True where nothing runs without it."""
        return self.default is REQUIRED

    @property
    def nullable(self) -> bool:
        """True where null is a valid value."""
        return self.default is None

    def rule(self) -> str:
        """What is valid, in words."""
        return self._values() + (" or null" if self.nullable else "")

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None."""
        return None if self._takes(value) else f"{self.name} {shortened(value)} is not {self.rule()}"

    @abstractmethod
    def _values(self) -> str: ...

    @abstractmethod
    def _takes(self, value: Any) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Number(Described):
    """A number; bounds are inclusive. whole: without a fraction. step: of a widget's arrows."""

    minimum: float
    maximum: float
    step: float = 1
    whole: bool = False
    multiple_of: int | None = None

    def _values(self) -> str:
        multiple = f", a multiple of {self.multiple_of}" if self.multiple_of else ""
        return f"a {'whole ' if self.whole else ''}number from {plain(self.minimum)} to {plain(self.maximum)}{multiple}"

    def _takes(self, value: Any) -> bool:
        kinds = int if self.whole else (int, float)
        # True is an int to Python. NaN is in no range, and an int too large for a float can be compared all the same.
        number = isinstance(value, kinds) and not isinstance(value, bool) and self.minimum <= value <= self.maximum
        return number and not (self.multiple_of and value % self.multiple_of)


def shortened(value: object) -> str:
    """What was given, as it is quoted to people: at most MOST_QUOTED characters of it."""
    try:
        text = repr(value)
    except ValueError:  # digits that Python refuses to write out
        text = f"a {type(value).__name__} of too many digits"
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


def plain(number: float) -> str:
    """A number as people write it: "1", not "1.0"."""
    return str(int(number)) if number == int(number) else str(number)


@dataclass(frozen=True, kw_only=True)
class Choice(Described):
    """One of a few words."""

    options: tuple[str, ...]

    def _values(self) -> str:
        return "one of " + ", ".join(map(repr, self.options))

    def _takes(self, value: Any) -> bool:
        return value in self.options


@dataclass(frozen=True, kw_only=True)
class Flag(Described):
    """Yes or no."""

    def _values(self) -> str:
        return "true or false"

    def _takes(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Text(Described):
    """A text; what it may say is checked where it is read. least, most: characters. lines: written in several lines."""

    least: int | None = None
    most: int | None = None
    lines: bool = False

    def _values(self) -> str:
        return "a text" if self.most is None else f"a text of at most {self.most} characters"

    def _takes(self, value: Any) -> bool:
        return isinstance(value, str) and (self.most is None or len(value) <= self.most)


@dataclass(frozen=True, kw_only=True)
class Texts(Described):
    """A list of texts; least, most: how many. longest: characters of each."""

    least: int
    most: int
    longest: int

    def _values(self) -> str:
        return f"a list of {self.least} to {self.most} texts of at most {self.longest} characters"

    def _takes(self, value: Any) -> bool:
        texts = isinstance(value, (list, tuple)) and self.least <= len(value) <= self.most
        return texts and all(isinstance(text, str) and len(text) <= self.longest for text in value)


@dataclass(frozen=True, kw_only=True)
class Socket(Described):
    """What comes or goes over a link in a graph: no value of its own. kind: ComfyUI's word for its type.

    A default of None: it may be left unconnected.
    """

    kind: str

    def _values(self) -> str:
        return self.kind

    def _takes(self, value: Any) -> bool:
        return True


Input = Number | Choice | Flag | Text | Texts | Socket


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node as people meet it: its inputs and outputs in the order in which they are shown."""

    id: str
    title: str
    description: str
    aliases: tuple[str, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Socket, ...]

    @property
    def widgets(self) -> tuple[Input, ...]:
        """The inputs that have a value on the node itself, in its order, as a saved workflow lists them."""
        return tuple(item for item in self.inputs if not isinstance(item, Socket))

    @property
    def defaults(self) -> dict[str, Any]:
        """What a new node has in its widgets."""
        return {item.name: item.default for item in self.widgets}

    def input(self, name: str) -> Input:
        """The input of this name."""
        return next(item for item in self.inputs if item.name == name)
