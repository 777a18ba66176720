"""nagpag guide: any graph, with the guidance node behind its model loaders."""

from __future__ import annotations

import argparse
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from ... import blocks
from ...inputs import requests as table
from ...inputs.guidance import ADVANCED, BLOCKS, GUIDE_UNCONDITIONAL, SCALE
from ...inputs.kinds import Input
from ...settings import Settings
from ..graphs import Graph, saved_anew
from ..loaders import SEEDS, Kinds, Place, enlarged, guided, named, read_graph, texts, whole_numbers
from ..request import layers_as_spec
from . import Client, JobFailed, NoServer, prompts, stopped
from .options import BadInput
from .target import Target

# Over which wires a prompt comes to a sampler or a guider, and the negative one.
_PROMPT, _NEGATIVE = ("positive", "conditioning"), ("negative",)


def guide(options: argparse.Namespace) -> dict[str, Any]:
    """Run it; what came of it. All that is wrong is said before anything is queued."""
    inputs = _of_the_node(options)
    graph = _read(options.graph)
    target = Target.of(options.output or table.GRAPH_OUTPUT.default, pictures=False)
    client = Client(options.server)
    kinds = _kinds(client, graph)
    try:
        made, loaders = with_guidance(graph, kinds, options, inputs)
    except ValueError as error:
        raise BadInput(f"--graph {options.graph}: {error}") from None
    except RecursionError:
        raise BadInput(f"--graph {options.graph}: it has too many nodes in a row, or nests too deeply") from None
    if note := _cfg_note(graph, kinds, options, Settings(**inputs)):
        print(f"nagpag: {note}", file=sys.stderr)
    prompt_id = prompts.queue(client, made)
    told = {"prompt_id": prompt_id, "behind": loaders, "settings": inputs}
    if options.wait is False:
        return {**told, "url": f"{client.server}/history/{prompt_id}"}
    if not options.json:
        print(f"nagpag: queued as {prompt_id}; waiting", file=sys.stderr)
    return {**told, **_waited(client, prompt_id, target)}


def with_guidance(
    graph: Graph, kinds: Kinds, options: argparse.Namespace, inputs: dict[str, Any]
) -> tuple[Graph, list[str]]:
    """The graph that is queued, and the loaders behind which it is guided. Raises ValueError."""
    made, loaders = guided(graph, kinds, **inputs)
    places: dict[Input, list[Place]] = {
        table.GRAPH_PROMPT: _text(graph, kinds, _PROMPT, _NEGATIVE),
        table.GRAPH_NEGATIVE: _text(graph, kinds, _NEGATIVE, _PROMPT),
        table.GRAPH_SEED: whole_numbers(graph, *SEEDS),
        table.GRAPH_STEPS: _steps(graph),
    }
    for item, found in places.items():
        if (value := getattr(options, item.name)) is not None:
            _set(made, item, found, value)
    return saved_anew(made), loaders


def _of_the_node(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked of the guidance node, by its own names."""
    for item in options.items:
        value = getattr(options, item.name)
        if value is not None and (problem := item.problem(value)):
            raise BadInput(problem.removesuffix(" or null"))
    given = {name: getattr(options, item.name) for name, item in table.GRAPH_GUIDANCE.items()}
    inputs = {**ADVANCED.defaults, **{name: value for name, value in given.items() if value is not None}}
    if given[BLOCKS.name] is not None:
        inputs[BLOCKS.name] = layers_as_spec(given[BLOCKS.name])
    try:
        Settings(**inputs)
        blocks.check_spec(inputs[BLOCKS.name])
    except ValueError as error:
        raise BadInput(str(error)) from None
    return inputs


def _read(file: str) -> Graph:
    try:
        return read_graph(Path(file).read_bytes())
    except OSError as error:
        raise BadInput(f"--graph {file}: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"--graph {file}: {error}") from None


def _kinds(client: Client, graph: Graph) -> Kinds:
    """What the server says of these nodes; nothing of those that it lacks."""
    kinds: Kinds = {}
    for kind in dict.fromkeys([ADVANCED.id, *(node["class_type"] for node in graph.values())]):
        kinds |= client._json("GET", f"/object_info/{urllib.parse.quote(kind, safe='')}")
    if ADVANCED.id not in kinds:
        raise NoServer(f"{client.server} has no NAG-PAG pack")
    return kinds


def _cfg_note(graph: Graph, kinds: Kinds, options: argparse.Namespace, settings: Settings) -> str | None:
    """What to know where cfg enlarges guidance, and nothing was said of how much is wanted."""
    given = [getattr(options, table.GRAPH_GUIDANCE[item.name].name) for item in (SCALE, GUIDE_UNCONDITIONAL)]
    if settings.moves_both or given[0] is not None or given[1] or not (found := enlarged(graph, kinds)):
        return None
    number, cfg = max(found, key=lambda one: one[1])
    return (
        f"cfg {cfg:g} of {named(graph, number)} enlarges what guidance does {cfg:g} times: "
        f"--nag-pag-scale {SCALE.default / cfg:.2g} is about what {SCALE.default:g} is at cfg 1"
    )


# --- what is said of the graph's own inputs ---


def _text(graph: Graph, kinds: Kinds, wires: tuple[str, ...], others: tuple[str, ...]) -> list[Place]:
    """The places of a prompt, none that are the other prompt's, too."""
    taken = texts(graph, kinds, others)
    return [place for place in texts(graph, kinds, wires) if place not in taken]


def _steps(graph: Graph) -> list[Place]:
    """Where the sampler's steps stand, but where a sampling is cut into parts by their number."""
    cut = ("start_at_step", "end_at_step")
    return [(number, name) for number, name in whole_numbers(graph, "steps") if not _has(graph, number, cut)]


def _has(graph: Graph, number: str, names: tuple[str, ...]) -> bool:
    return any(name in graph[number]["inputs"] for name in names)


def _set(graph: Graph, item: Input, places: list[Place], value: Any) -> None:
    option = f"--{item.name.replace('_', '-')}"
    if not places:
        raise ValueError(f"it has no place for {option} of its own: change it in the graph")
    if item is not table.GRAPH_SEED and len(places) > 1:
        found = ", ".join(f"{name} of {named(graph, number)}" for number, name in places)
        raise ValueError(f"it has {len(places)} places for {option}: {found}; change them in the graph")
    for number, name in places:
        graph[number]["inputs"][name] = value


# --- the run ---


def _waited(client: Client, prompt_id: str, target: Target) -> dict[str, Any]:
    try:
        state = prompts.ended(client, prompt_id)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stopped(prompts.cancel(client, prompt_id))) from None
    files = prompts.saved(client, state)
    if not files:
        raise JobFailed("the graph ran and saved nothing: it needs a Save Image node, or another that saves")
    return {"seconds": state["seconds"], "files": list(map(str, target.take(files)))}


def words(told: dict[str, Any]) -> str:
    """What came of it, for people."""
    behind = f"guided behind {', '.join(told['behind'])}"
    if "files" not in told:
        return f"{behind}; queued as {told['prompt_id']}; ask {told['url']}"
    return "\n".join([f"{behind}, {told['seconds']:.1f} s", *told["files"]])
