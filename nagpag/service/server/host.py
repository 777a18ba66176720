"""All that the service asks of ComfyUI in this process: its queue, its progress, its folders, its LoadImage.

What it does in ComfyUI's name (queueing) goes through ComfyUI's own HTTP instead, see `routes`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from comfy.model_management import interrupt_current_processing as interrupt_processing
from comfy_execution.progress import get_progress_state
from server import PromptServer


@dataclass(frozen=True)
class Snapshot:
    """The queue at one moment: what runs (ids), waits (id → how many before it) and has finished (id → history)."""

    running: frozenset[str]
    pending: dict[str, int]
    history: dict[str, dict]


def snapshot(ids: set[str]) -> Snapshot:
    """The queue at this moment; of the history only these ids."""
    queue = PromptServer.instance.prompt_queue
    with queue.mutex:
        running = frozenset(item[1] for item in queue.currently_running.values())
        pending = {item[1]: place for place, item in enumerate(sorted(queue.queue, key=lambda item: item[0]))}
        return Snapshot(running, pending, {one: queue.history[one] for one in ids & queue.history.keys()})


def dequeue(prompt_id: str) -> bool:
    """Take a waiting prompt out of the queue; False where it does not wait."""
    return PromptServer.instance.prompt_queue.delete_queue_item(lambda item: item[1] == prompt_id)


def interrupt(prompt_id: str) -> None:
    """Interrupt this prompt if it is the one that runs, and no other.

    Asked and done under the queue's lock: the prompt can't end and another begin in between. What is left of the
    signal when a prompt ends by itself, ComfyUI clears before the next.
    """
    queue = PromptServer.instance.prompt_queue
    with queue.mutex:
        if any(item[1] == prompt_id for item in queue.currently_running.values()):
            interrupt_processing()


def choices(kind: str, name: str) -> list[str]:
    """What a node's input may be, where it is one of several."""
    nodes = importlib.import_module("nodes")  # by name, as below
    parts = nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES().values()
    kinds: Any = next((part[name] for part in parts if name in part), ([],))
    options = kinds[1].get("options", []) if kinds[0] == "COMBO" else kinds[0]  # as the nodes of today say it, or older
    return list(map(str, options)) if isinstance(options, list) else []


def progress(prompt_id: str) -> dict[str, tuple[float, float]]:
    """Node id → (value, max) of the nodes of this prompt that have begun; empty where another prompt runs."""
    state = get_progress_state()
    if state.prompt_id != prompt_id:
        return {}
    return {node: (entry["value"], entry["max"]) for node, entry in list(state.nodes.items())}


def input_folder() -> Path:
    """Where LoadImage reads."""
    return Path(folder_paths.get_input_directory())


def load_image(name: str) -> Any:
    """What the stock LoadImage makes of this file of the input folder: an array, (pictures, height, width, RGB).

    From 0 to 1. Raises whatever its decoders raise.
    """
    nodes = importlib.import_module("nodes")  # by name: there is a folder of that name in this pack, too
    pictures, *_ = nodes.LoadImage().load_image(name)
    return pictures.cpu().numpy()


def installed(folder: str) -> list[str]:
    """The file names that the stock loaders offer from this folder of models; [] where there is no such folder."""
    return folder_paths.get_filename_list(folder)


def model_path(folder: str, name: str) -> Path | None:
    """Where a file of models lies."""
    path = folder_paths.get_full_path(folder, name)
    return Path(path) if path else None
