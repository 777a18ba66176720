"""The options of the command line, made from the table of inputs, and what is said of those that are none."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from ...inputs import requests as table
from ...inputs import sweep as sweeps
from ...inputs.kinds import Choice, Flag, Input, Number, Texts, shortened
from . import DEFAULT_SERVER, SERVER_VARIABLE

BAD_INPUT = 2
_HELP = "{} --help lists what there is"
_METAVARS = {
    table.OUTPUT.name: "PATH",
    table.SERVER.name: "URL",
    table.LAYERS.name: "LAYER",
    table.GRAPH.name: "FILE",
    sweeps.RAY.name: "ADDRESS",
}


class BadInput(Exception):
    """What the user gave is not usable, in words."""


class Parser(argparse.ArgumentParser):
    """One whose errors are the fault and where the help is, without all options before it."""

    def error(self, message: str) -> NoReturn:
        """Leave with what is wrong."""
        self.exit(BAD_INPUT, f"nagpag: {message}\n{_HELP.format(self.prog)}\n")


def add_command(commands: Any, name: str, about: str, run: Callable, *items: Input) -> argparse.ArgumentParser:
    """A command that `run` does, with --json and an option for each of these inputs."""
    command = commands.add_parser(name, help=about, description=about)
    if items:  # short: all of them in brackets would be a page before the first word of help
        needed = [f"--{_option(item)} {_metavar(item)}" for item in items if item.required]
        command.usage = " ".join([command.prog, *needed, "[options]"])
    command.set_defaults(run=run, command=command.prog, items=(*items, table.JSON))
    for item in (*items, table.JSON):
        _add_option(command, item)
    return command


def add_path(command: argparse.ArgumentParser, item: Input) -> None:
    """Add an input as an argument without dashes, a path."""
    word = item.name.upper() if item.required else f"[{item.name.upper()}]"
    command.usage = f"{command.usage or f'{command.prog} [options]'} {word}"
    nargs = None if item.required else "?"
    command.add_argument(item.name, type=Path, nargs=nargs, metavar=item.name.upper(), help=item.does)


def _add_option(command: argparse.ArgumentParser, item: Input) -> None:
    """Add an input as an option; one that was not given is not sent, so that the server's own default holds."""
    about = f"A picture's file on this machine, or: {item.does}" if item is table.IMAGE_URL else item.does
    default = "required" if item.required else f"default: {_shown(item)}"
    # What is missing is said in refuse_unknown, behind what was mistyped.
    common: dict[str, Any] = {"default": None, "help": f"{about} {item.rule()}; {default}".replace("%", "%%")}
    if item in (table.COMPARE, table.JSON):
        common |= {"action": "store_true", "default": item.default}
    elif isinstance(item, Flag):
        common["action"] = argparse.BooleanOptionalAction
    elif item is sweeps.SERVERS:
        common |= {"action": "append", "metavar": _metavar(item)}
    elif isinstance(item, Texts):
        common |= {"nargs": "+", "metavar": _metavar(item)}
    else:
        common |= {"type": functools.partial(_read, item), "metavar": _metavar(item)}
    command.add_argument(f"--{_option(item)}", **common)


def _metavar(item: Input) -> str:
    if isinstance(item, Choice):
        return "|".join(item.options)
    return _METAVARS.get(item.name, "TEXT" if _kind(item) is str else _kind(item).__name__.upper())


def _read(item: Input, word: str) -> Any:
    try:
        return _kind(item)(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(word)} is not {item.rule()}") from None


def _kind(item: Input) -> type:
    return (int if item.whole else float) if isinstance(item, Number) else str


def _option(item: Input) -> str:
    return item.name.replace("_", "-")


def _shown(item: Input) -> str:
    if item in (table.SERVER, sweeps.SERVERS):
        return f"{SERVER_VARIABLE}, else {DEFAULT_SERVER}"
    default = item.default
    return "null" if default is None else " ".join(default) if isinstance(default, tuple) else str(default)


def refuse_unknown(options: argparse.Namespace, unknown: list[str]) -> None:
    """Say what is no option, and what it may have been meant for; then what is missing."""
    names = [word.partition("=")[0] for word in unknown if word.startswith("-")] or unknown[:1]
    faults = [f"{name} is no option{_meant(name, options.items)}" for name in names]
    missing = [_option(item) for item in options.items if item.required and getattr(options, item.name) is None]
    if not faults and missing:
        faults = [f"--{', --'.join(missing)} is missing"]
    if faults:
        raise BadInput("\n  ".join([*faults, _HELP.format(options.command)]))


def _meant(name: str, items: Iterable[Input]) -> str:
    """The options that may be meant: under the name that ComfyUI's own nodes have for it, or a part of the name."""
    wanted = name.lstrip("-").replace("-", "_").removeprefix("nag_pag_")
    if wanted == table.GRAPH.name:
        return f"; nagpag guide --{wanted} FILE takes one"
    named = [item.name for item in items if item.target and item.target[1] == wanted]
    parts = [item.name for item in items if wanted and wanted in item.name]
    found = named or parts or difflib.get_close_matches(name.lstrip("-"), [_option(item) for item in items])
    return f"; did you mean --{' or --'.join(found[:3])}?".replace("_", "-") if found else ""
