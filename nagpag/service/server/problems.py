"""Refusals and failures as problem JSON (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from aiohttp import web

MOST_SHOWN = 200  # characters of a bad value that are repeated
KINDS = {
    "bad-json": (400, "The body is not a JSON object"),
    "bad-fields": (400, "Some fields are not valid"),
    "fetching-off": (403, "This server fetches no pictures"),
    "no-such-job": (404, "There is no such job"),
    "no-model-files": (409, "Model files are missing"),
    "cancelled": (410, "The job was cancelled"),
    "too-large": (413, "The body is too large"),
    "not-json": (415, "The body has to be application/json"),
    "host-refused": (422, "ComfyUI refused the prompt"),
    "job-failed": (500, "The job failed"),
    "busy": (503, "The server has as many pictures in hand as it takes at once"),
}


class Problem(Exception):
    """A request that can't be answered as asked. kind: a key of KINDS. members: further members of the JSON."""

    def __init__(self, kind: str, detail: str, **members: object):
        super().__init__(detail)
        self.kind, self.detail, self.members = kind, detail, members

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]

    def json(self) -> dict:
        """The problem as RFC 9457 writes it."""
        status, title = KINDS[self.kind]
        found = {"type": f"urn:nag-pag:{self.kind}", "title": title, "status": status, "detail": self.detail}
        return {**found, **self.members}

    def response(self) -> web.Response:
        """The problem as an answer."""
        return web.Response(text=json.dumps(self.json()), status=self.status, content_type="application/problem+json")


def field_error(place: str, rule: str, *value: object) -> dict:
    """One bad field: its place (a JSON pointer), the rule, and the value where there is one."""
    error: dict = {"pointer": f"#/{place}", "rule": rule}
    return {**error, "value": shown(value[0])} if value else error


def bad_fields(errors: Iterable[dict]) -> Problem:
    """All bad fields of a request, in one problem."""
    errors = list(errors)
    detail = "; ".join(f"{error['pointer'][2:]}: {error['rule']}" for error in errors)
    return Problem("bad-fields", detail, errors=errors)


def shown(value: object) -> object:
    """A bad value as it is repeated: short, and plain JSON whatever was sent."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = text.encode("utf-8", "replace").decode()
    if len(text) > MOST_SHOWN:
        return f"{text[:MOST_SHOWN]}… ({len(text)} characters)"
    return text if isinstance(value, str) else value
