"""A request's body: its bytes, and the JSON object in them. What can't be read is a Problem, whatever was sent."""

from __future__ import annotations

import asyncio
import json
import math
from typing import NoReturn

import aiohttp
from aiohttp import web

from .held import Share
from .problems import Problem

# Bytes beside the texts: a request of all fields has a few thousand. What has more is no request, and as Python objects
# it would take ten and more times its size.
MOST_BESIDE_TEXTS = 2**16
UNCOUNTED = 2**20  # bytes of a body that needs no share: a request without a picture is never refused for others' sake
SECONDS = 60.0  # for a body to come in, as it holds its share meanwhile


async def read(request: web.Request, most: int, share: Share, seconds: float = SECONDS) -> bytes:
    """The body's bytes, at most so many, of a request that says it is JSON.

    A large one is added to the share as it comes. Raises Problem, Busy.
    """
    if request.content_type != "application/json":
        raise Problem("not-json", f"Content-Type is {request.content_type[:100]!r}; it has to be application/json")
    if (request.content_length or 0) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(seconds):
            return await _all(request.content, most, share)
    except TimeoutError:
        raise Problem("too-slow", f"the body has to come in within {seconds:g} s") from None
    except web.RequestPayloadError:
        raise Problem("bad-json", "the body is not in the Content-Encoding that its header names") from None


async def _all(content: aiohttp.StreamReader, most: int, share: Share) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
        if len(body) > UNCOUNTED:
            share.add(len(body) - share.bytes)
    return bytes(body)


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"the body may have {most} bytes")


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
