"""What decides numbers has a name: a digest of the syntax trees that compute them.

Comments, docstrings, layout, from where something is imported, and what is only said (log lines, the words of an error)
change nothing in it; a changed formula does.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

# What was made before digests were of syntax trees was named by bytes. These trees make the same, bit for bit.
EARLIER: dict[str, str] = {
    "873d366cbf75": "9ca429b5c39e",  # the small FLUX
    "4caaf4d45321": "4baf76c86146",  # its decoder
    "7ac4226c62a0": "00f7f774a1fa",  # the pictures that it learns from
    "29793a6c59c6": "817033e2cc4b",  # the CNN judge
    "223f7050cecd": "475f8c15e8e2",  # verdicts
    "488a9928e3fd": "b0f754825649",  # what is found again
    "3008a79c7a0f": "0f8110a07ff2",  # guided pictures
}


def digest(sources: Iterable[str], also: str = "", words: Iterable[str] = ()) -> str:
    """The name of what these Python sources compute, 12 hexadecimal digits; the same on every Python from 3.11 on.

    also: what decides it beside the code, such as a recipe. words: functions that only say something, and don't count.
    """
    return _digest(tuple(sources), also, frozenset(words))


@cache  # files are asked for by it thousands of times, and a tree takes some milliseconds
def _digest(sources: tuple[str, ...], also: str, words: frozenset[str]) -> str:
    trees = [_only_what_computes(ast.parse(source), words) for source in sources]
    found = hashlib.sha256("\0".join((also, *map(_written, trees))).encode()).hexdigest()[:12]
    return EARLIER.get(found, found)


def sources(*modules: ModuleType | Path) -> list[str]:
    """The sources of these modules, in this order."""
    paths = (module if isinstance(module, Path) else Path(str(module.__file__)) for module in modules)
    return [path.read_text(encoding="utf-8") for path in paths]


def _only_what_computes(tree: ast.Module, words: frozenset[str]) -> ast.Module:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [statement for statement in statements if not _says_only(statement, words)])
        if isinstance(node, ast.Import | ast.ImportFrom):
            # From where is no part of it; that something goes by another's name is.
            node.names = [alias for alias in node.names if alias.asname]
        if isinstance(node, ast.ImportFrom):
            node.module = node.level = None  # type: ignore[assignment]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
    return tree


def _says_only(statement: ast.AST, words: frozenset[str]) -> bool:
    """True for imports under their own names, texts that stand by themselves (docstrings), log lines, and `words`."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return not any(alias.asname for alias in statement.names)
    if isinstance(statement, ast.FunctionDef):
        return statement.name in words
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Constant):
        return isinstance(value.value, str)
    function = value.func if isinstance(value, ast.Call) else None
    logger = function.value if isinstance(function, ast.Attribute) else None
    return isinstance(logger, ast.Name) and logger.id in ("log", "logging")


def _written(node: object) -> str:
    # Not ast.dump: what it writes of fields that are empty differs from one Python to the next.
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(f'{name}={_written(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_written, node))}]"
    return repr(node)
