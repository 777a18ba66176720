"""Refusals and failures as problem JSON (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from aiohttp import web

MOST_SHOWN = 100  # characters of a bad value, or of a field's name, that are repeated
MOST_ERRORS = 40  # bad fields that are listed, which is more than there are fields
MOST_IN_DETAIL = 10  # of these, in the sentence for people
KINDS = {
    "bad-json": (400, "The body is not a JSON object"),
    "bad-fields": (400, "Some fields are not valid"),
    "bad-host": (400, "The Host header names no host"),
    "fetching-off": (403, "This server fetches no pictures"),
    "no-such-job": (404, "There is no such job"),
    "too-slow": (408, "The body came in too slowly"),
    "no-model-files": (409, "Model files are missing"),
    "cancelled": (410, "The job was cancelled"),
    "unknown-end": (410, "How the job ended is not known"),
    "too-large": (413, "The body is too large"),
    "not-json": (415, "The body has to be application/json"),
    "host-refused": (422, "ComfyUI refused the prompt"),
    "unfit": (422, "The request does not fit the model"),
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
        body = json.dumps(self.json(), ensure_ascii=False).encode("utf-8", "replace")
        return web.Response(body=body, status=self.status, content_type="application/problem+json", charset="utf-8")


def field_error(place: str, rule: str, *value: object) -> dict:
    """One bad field: its place (a JSON pointer), the rule, and the value where there is one."""
    error: dict = {"pointer": f"#/{_beginning(place)}", "rule": _printable(rule)}
    return {**error, "value": shown(value[0])} if value else error


def bad_fields(errors: Iterable[dict], unlisted: int = 0) -> Problem:
    """The bad fields of a request, in one problem. unlisted: how many there are beside `errors`."""
    errors = list(errors)
    more = max(len(errors) - MOST_ERRORS, 0) + unlisted
    told = [f"{error['pointer'][2:]}: {error['rule']}" for error in errors[:MOST_IN_DETAIL]]
    rest = len(errors) + unlisted - len(told)
    detail = "; ".join([*told, *([f"and {rest} more"] if rest else [])])
    return Problem("bad-fields", detail, errors=errors[:MOST_ERRORS], **({"more": more} if more else {}))


def shown(value: object) -> object:
    """A bad value as it is repeated: short, and plain JSON whatever was sent.

    What is long is its beginning and its length, a list or an object that is long or deep the number of its values.
    """
    if isinstance(value, (list, dict)) and not _is_flat(value):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} values"
    if isinstance(value, str):
        return _beginning(value)
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(_beginning(text)) if len(text) <= MOST_SHOWN else _beginning(text)


def _is_flat(value: list | dict) -> bool:
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return len(items) <= MOST_SHOWN and not any(
        isinstance(item, (list, dict)) or (isinstance(item, str) and len(item) > MOST_SHOWN) for item in items
    )


def _beginning(text: str) -> str:
    """The text, or the beginning of a long one."""
    return _printable(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text)} characters)")


def _printable(text: str) -> str:
    """Without what JSON would write in six characters, or UTF-8 can't write at all."""
    return "".join(character if character.isprintable() else "�" for character in text)
