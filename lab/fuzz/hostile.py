"""Requests that no document describes: bodies that are nearly right, bytes that are no JSON, headers that are none."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ...nagpag.service import request as table
from .specs import specs

# Small for the CPU, and what only the host knows to be valid.
RUNS: dict[str, Any] = {
    "width": 64,
    "height": 64,
    "num_inference_steps": 1,
    "num_images": 1,
    "t5xxl": "clip_l_small.safetensors",
    "clip_type": "sd3",
    "vae": "taef1",
    "diffusion_model": None,
    "clip_l": None,
    "sampler_name": "euler",
    "scheduler": "simple",
    "wait": False,
}
JSON = "application/json"
_FIELDS = {endpoint: [item.name for item in fields] for endpoint, (_, fields) in table.ENDPOINTS.items()}
_ENDPOINTS = st.sampled_from(tuple(table.ENDPOINTS))
_KINDS = (JSON, f"{JSON}; charset=utf-8", f"{JSON}; charset=utf-16", "text/plain", "a/b/c", ";", "", "é")
_CODINGS = ("gzip", "deflate", "identity", "x", "gzip, gzip")
_HOSTS = ("127.0.0.1", "example.com:81", "", "/", "a b", "[::1", "[::1]", "h:99999", "h:x", "a@b", "ü", "?", ":", "..")


@dataclass(frozen=True)
class Sent:
    """A request as bytes. more: headers beside its type and length."""

    path: str
    body: bytes
    method: str = "POST"
    kind: str = JSON
    more: tuple[tuple[str, str], ...] = ()


def _values() -> st.SearchStrategy[Any]:
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, True, 0, -1, 0.5, 1e308, 10**400, 2**64, "", "8", "\ud800", "x" * 20_000, [], {}, [[]]]
    )
    plain = odd | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=50)
    return st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


def _bodies(endpoint: str) -> st.SearchStrategy[dict]:
    """Fields of the endpoint and others with any values. It names no autoencoder, so nothing of it runs."""
    none = st.sampled_from(["widht", "Prompt", "\ud800", "a/~"]) | st.text(max_size=300)
    names = st.sampled_from(_FIELDS[endpoint]) | none
    return st.dictionaries(names, _values(), max_size=60).map(lambda body: {"prompt": "a", **body, "vae": None})


def _layers() -> st.SearchStrategy[Sent]:
    """Fuzzed specs in a request that runs where they are valid."""
    layers = st.lists(specs(), min_size=1, max_size=4)
    asked = layers.map(lambda some: {"prompt": "a", **RUNS, "nag_pag_applied_layers": some})
    return asked.map(lambda body: Sent("/nagpag/text-to-image", json.dumps(body).encode()))


def _dumped(endpoint: str, body: dict) -> Sent:
    return Sent(f"/nagpag/{endpoint}", json.dumps(body).encode())


def _deep(opening: str, depth: int, field: str) -> Sent:
    closing = "".join({"[": "]", "{": "}"}.get(one, "") for one in opening)[::-1]
    inner = '"a":' if opening.endswith("{") else ""
    text = f'{{"{field}": {(opening + inner) * depth}0{closing * depth}}}'
    return Sent("/nagpag/text-to-image", text.encode())


@st.composite
def _mutated(draw: st.DrawFn) -> Sent:
    """Bytes of a request, with some of them changed, and headers that may not fit them."""
    endpoint = draw(_ENDPOINTS)
    body = bytearray(json.dumps({"prompt": "a cat", "width": 64, "seed": 7, "nag_pag_applied_layers": ["8"]}).encode())
    for place, what in draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.binary(max_size=5)), max_size=6)):
        body[place : place + draw(st.integers(0, 3))] = what
    coding = draw(st.none() | st.sampled_from(_CODINGS))
    sent = gzip.compress(bytes(body)) if coding and draw(st.booleans()) else bytes(body)
    more = [("Content-Encoding", coding)] if coding else []
    if draw(st.booleans()):
        more.append(("Host", draw(st.sampled_from(_HOSTS))))
    return Sent(f"/nagpag/{endpoint}", sent, kind=draw(st.sampled_from(_KINDS)), more=tuple(more))


def _many(name: str, times: int) -> Sent:
    """As many unknown fields as the name's length lets a body hold."""
    return _dumped("image-to-image", {f"{name}{i}": i for i in range(times)})


def hostile() -> st.SearchStrategy[Sent]:
    """Any of these."""
    bodies = _ENDPOINTS.flatmap(lambda endpoint: _bodies(endpoint).map(lambda body: _dumped(endpoint, body)))
    deep = st.builds(_deep, st.sampled_from(["[", "{", "[{"]), st.integers(1, 1200), st.sampled_from(["prompt", "x"]))
    many = st.builds(_many, st.sampled_from(["", "widht", "\ud800", "é" * 300]), st.integers(0, 2000))
    return st.one_of(bodies, bodies, _layers(), _layers(), _mutated(), _mutated(), deep, many)
