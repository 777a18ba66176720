"""What an unknown node is given: its own declared defaults, first choices, and small tensors for its sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .packs import Node

CONTEXT_DIM, VEC_DIM, TOKENS = 64, 32, 9
LATENT = (1, 16, 8, 12)


class Unfillable(Exception):
    """Which input nothing is known for, and why."""


def prompt(seed: int) -> list:
    """A conditioning as CLIPTextEncode and FluxGuidance make it; another seed is another prompt."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, TOKENS, CONTEXT_DIM, generator=generator)
    pooled = torch.randn(1, VEC_DIM, generator=generator)
    return [[context, {"pooled_output": pooled, "guidance": 3.5}]]


SOCKETS: dict[str, Callable[[], Any]] = {
    "CONDITIONING": lambda: prompt(3),
    "LATENT": lambda: {"samples": torch.zeros(LATENT)},
    "IMAGE": lambda: torch.full((1, 8 * LATENT[2], 8 * LATENT[3], 3), 0.5),
    "MASK": lambda: torch.ones(1, 8 * LATENT[2], 8 * LATENT[3]),
    "SIGMAS": lambda: torch.linspace(1.0, 0.0, 7),
}
# By node: what is set otherwise than its default, for those that do nothing as they come out of the menu.
SETTINGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("settings.json").read_text())
WIDGETS: dict[str, Any] = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}


def fill(node: Node) -> dict[str, Any]:
    """The inputs of a node but its MODELs, as an untouched node in the editor would send them, but for SETTINGS.

    Sockets that are optional stay empty. Raises Unfillable where a required one can't be filled.
    """
    declared = node.cls.INPUT_TYPES()
    values: dict[str, Any] = {}
    for required, kind in ((True, "required"), (False, "optional")):
        for name, spec in declared.get(kind, {}).items():
            if name not in node.models:
                _put(values, name, tuple(spec), required)
    return values | SETTINGS.get(node.name, {})


def _put(values: dict[str, Any], name: str, spec: tuple, required: bool) -> None:
    kind, options = spec[0], (spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {})
    if isinstance(kind, list | tuple):
        kind, options = "COMBO", {**options, "options": list(kind)}
    if kind == "COMFY_DYNAMICCOMBO_V3":
        _put_dynamic(values, name, options["options"][0])
    elif kind == "COMBO":
        choices = options.get("options") or []
        if not choices and required:
            raise Unfillable(f"nothing to choose from for {name}")
        values[name] = options.get("default", choices[0] if choices else None)
    elif kind in WIDGETS:
        if required or not options.get("forceInput"):
            values[name] = options.get("default", options.get("min", WIDGETS[kind]))
    elif required:
        if kind not in SOCKETS:
            raise Unfillable(f"{name} wants a {kind}")
        values[name] = SOCKETS[kind]()


def _put_dynamic(values: dict[str, Any], name: str, option: dict) -> None:
    """A choice that brings inputs of its own: the host knows them by both names."""
    values[name] = option["key"]
    for required, kind in ((True, "required"), (False, "optional")):
        for nested, spec in option["inputs"].get(kind, {}).items():
            _put(values, f"{name}.{nested}", tuple(spec), required)
