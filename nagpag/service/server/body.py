"""A request's body: its bytes, and the JSON object in them. What can't be read is a Problem, whatever was sent."""

from __future__ import annotations

import json
import math
from typing import NoReturn

from aiohttp import web

from .held import Share
from .problems import Problem

# Bytes beside the texts: a request of all fields has a few thousand. What has more is no request, and as Python objects
# it would take ten and more times its size.
MOST_BESIDE_TEXTS = 2**16


async def read(request: web.Request, most: int, share: Share) -> bytes:
    """The body's bytes, at most so many, of a request that says it is JSON, added to the share as they come."""
    if request.content_type != "application/json":
        raise Problem("not-json", f"Content-Type is {request.content_type[:100]!r}; it has to be application/json")
    too_large = Problem("too-large", f"the body may have {most} bytes")
    if (request.content_length or 0) > most:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            share.add(len(chunk))
            body += chunk
            if len(body) > most:
                raise too_large
    except web.RequestPayloadError:
        raise Problem("bad-json", "the body is not in the Content-Encoding that its header names") from None
    return bytes(body)


def parse(body: bytes) -> dict:
    """The JSON object that the body is; numbers are finite."""
    _check_size(body)
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Problem("bad-json", f"the body is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise Problem("bad-json", f"the body has to be a JSON object with the fields, not a {type(value).__name__}")
    return value


def _check_size(body: bytes) -> None:
    """Refuse what is large beside its texts, before anything is made of it."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # no quote in it is part of a text
    beside = plain.count(b'"')
    if beside <= MOST_BESIDE_TEXTS:
        beside += sum(map(len, plain.split(b'"')[::2]))
    if beside > MOST_BESIDE_TEXTS:
        raise Problem("too-large", f"beside its texts the body may have {MOST_BESIDE_TEXTS} bytes")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name[:50]} is not a number that can be taken")
