"""Packs as people have them in custom_nodes, and the nodes in them that take a MODEL and return one."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORE = "ComfyUI"  # the host's own nodes, as a pack


class NotImported(Exception):
    """Why a pack could not be imported, in the host's words."""


@dataclass(frozen=True)
class Node:
    """A node that takes and returns a MODEL. models: its inputs that take one; place: the output that is one."""

    name: str
    cls: Any
    models: tuple[str, ...]
    place: int


def pack_folders(folder: Path) -> list[Path]:
    """The packs in a folder, as the host finds them: folders with an __init__.py, and single files; without ours."""
    found = [path for path in sorted(folder.iterdir()) if (path / "__init__.py").is_file() or path.suffix == ".py"]
    return [path for path in found if not (path / "nagpag" / "patch").is_dir()]


def start_host(custom_nodes: Path) -> None:
    """Make this process a ComfyUI that packs can be imported into, with a server that does not listen."""
    import folder_paths
    import server

    folder_paths.add_model_folder_path("custom_nodes", str(custom_nodes), is_default=True)
    sys.path.insert(0, str(Path(folder_paths.__file__).parent / "comfy"))  # as the host does before it imports packs
    server.PromptServer(asyncio.new_event_loop()).add_routes()


def import_nodes(pack: Path | None) -> list[Node]:
    """Import a pack through the host; its MODEL nodes by name. None: the host's own."""
    nodes = importlib.import_module("nodes")  # the host's; a checker of types would take it for our folder
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    try:
        if pack is None:
            asyncio.run(nodes.init_builtin_extra_nodes())
            before = {}
        elif not asyncio.run(nodes.load_custom_node(str(pack), module_parent="custom_nodes")):
            raise NotImported(_reason(heard.messages, pack))
    finally:
        logging.getLogger().removeHandler(heard)
    classes = nodes.NODE_CLASS_MAPPINGS
    return model_nodes({name: cls for name, cls in classes.items() if before.get(name) is not cls})


def model_nodes(classes: dict[str, Any]) -> list[Node]:
    """Those that take and return a MODEL, by name. One whose inputs can't even be asked for is not among them."""
    found = []
    for name in sorted(classes):
        returned = list(getattr(classes[name], "RETURN_TYPES", ()))
        models = _model_inputs(classes[name])
        if models and "MODEL" in returned:
            found.append(Node(name, classes[name], models, returned.index("MODEL")))
    return found


def _model_inputs(cls: Any) -> tuple[str, ...]:
    try:
        inputs = cls.INPUT_TYPES()
    except Exception:  # a stranger's code: whatever it raises, its node is not one that can be run
        return ()
    required = inputs.get("required", {})
    optional = inputs.get("optional", {})
    in_required = tuple(name for name, spec in required.items() if spec[0] == "MODEL")
    return in_required or tuple(name for name, spec in optional.items() if spec[0] == "MODEL")[:1]


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _reason(messages: list[str], pack: Path) -> str:
    last = messages[-1] if messages else "it has no nodes"
    words = re.sub(r"^Cannot import .* module for custom nodes: ", "", last.replace(str(pack), pack.name))
    return without_paths(words.strip().splitlines()[-1])


def without_paths(text: str) -> str:
    """Without where on this machine something lies."""
    return re.sub(r"(?:/[\w.+-]+){2,}", "…", text)
