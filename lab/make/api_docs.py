"""Write the table of fields in docs/api.md from the one table of requests."""

from __future__ import annotations

import json

from ...nagpag.inputs import requests as table
from ...nagpag.inputs.kinds import Input
from ...nagpag.service.request import IMAGE_TO_IMAGE
from .. import host

PAGE = host.REPO / "docs" / "api.md"
BEGIN, END = "<!-- fields: made by lab/run.py make_api_docs -->\n", "<!-- end of fields -->\n"


def rows() -> str:
    """The table, as Markdown."""
    lines = ["| field | default | values | |", "|---|---|---|---|"]
    for field in IMAGE_TO_IMAGE:
        name = f"`{field.name}`" + (" (image-to-image)" if field in (table.IMAGE_URL, table.STRENGTH) else "")
        lines.append(f"| {name} | {_default(field)} | {field.rule()} | {field.does} |")
    return "\n".join(lines) + "\n"


def _default(field: Input) -> str:
    if field.required:
        return "**required**"
    if isinstance(field.default, tuple):
        return ", ".join(f"`{item}`" for item in field.default)
    if field.default is None or isinstance(field.default, bool):
        return json.dumps(field.default)
    return str(field.default)


def page() -> str:
    """The page with the table as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + rows() + END + rest.split(END)[1]


def main(arguments: list[str]) -> int:
    """Write it."""
    PAGE.write_text(page())
    return 0
