"""The two ways to ask for a picture: a request to the service, or a graph of one's own. Both know what is valid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .... import blocks
from ....inputs import requests as table
from ....inputs.guidance import ADVANCED, BLOCKS, GUIDANCE, NEGATIVE_PROMPT, OFF
from ....inputs.kinds import Flag, Input, Number, Texts, shortened
from ....inputs.presets import PRESET, PRESETS
from ....settings import Settings
from ... import request as asking
from ...graphs import Graph, with_all_inputs
from ...loaders import SEEDS, read_graph, whole_numbers
from .. import BadRequest, as_url

GRAPH = "graph"
MOST_PROBLEMS = 20
_OURS = (GUIDANCE.id, ADVANCED.id)
_INPUTS = {item.name: item for item in (*ADVANCED.widgets, PRESET)}
Values = dict[str, Any]


class BadPlan(BadRequest):
    """What is wrong with a sweep, all of it, in words; where: its file."""

    def __init__(self, where: Path | str, problems: list[str]):
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        super().__init__(f"{where}: " + "\n  ".join(shown))


def unknown(told: Iterable[str], valid: Iterable[str], where: str) -> Iterator[str]:
    """What is not valid among the names, with what was likely meant, or all that is."""
    valid = list(valid)
    for name in told:
        if name not in valid:
            close = get_close_matches(name, valid, 1)
            hint = f"did you mean {close[0]}?" if close else f"valid are {', '.join(valid)}"
            yield f"{where}{name} is unknown; {hint}"


def _split(path: Path, settings: Values, axes: Values) -> None:
    """Raise BadPlan for axes that are no lists, and for what is fixed and varied at once."""
    found = [
        f"axes.{name} {shortened(values)} is not a list of one value or more"
        for name, values in axes.items()
        if not isinstance(values, list) or not values
    ]
    found += [f"{name} is in settings and in axes" for name in axes if name in settings]
    if found:
        raise BadPlan(path, found)


class AsRequest:
    """Fields of the service's request, on the shipped graph, and `preset`, which sets several of them.

    The file's folder is where a picture's name is looked up. TOML has no null: false stands for it.
    """

    def __init__(self, path: Path, told: Values):
        settings, axes = told.get("settings", {}), told.get("axes", {})
        _split(path, settings, axes)
        image = table.IMAGE_URL.name in settings or table.IMAGE_URL.name in axes
        self.folder, self.name = path.parent, "image-to-image" if image else "text-to-image"
        self.pictures: dict[str, str] = {}
        self.fields = {item.name: item for item in (*asking.ENDPOINTS[self.name][1], PRESET)}
        valid = [item.name for item in self.fields.values() if item not in _NOT_VARIED]
        found = [f"{name}: {_ELSEWHERE[name]}" for name in (*settings, *axes) if name in _ELSEWHERE]
        found += unknown((name for name in settings if name not in _ELSEWHERE), valid, "settings.")
        found += unknown((name for name in axes if name not in _ELSEWHERE), valid, "axes.")
        if found:
            raise BadPlan(path, found)
        given = [*settings.items(), *((name, one) for name, values in axes.items() for one in values)]
        if found := [problem for name, value in given if (problem := wrong(self.fields[name], value))]:
            raise BadPlan(path, found)
        self.settings = {name: as_asked(self.fields[name], value) for name, value in settings.items()}
        self.axes = {name: [as_asked(self.fields[name], one) for one in values] for name, values in axes.items()}

    def problems_between(self, point: Values) -> list[str]:
        """What does not go together at this point of the axes."""
        values = self._whole(point)
        return [f"{name} {shortened(values[name.partition('/')[0]])}: {rule}"
                for name, rule in asking.problems_between(values)]  # fmt: skip

    def shown(self, point: Values) -> Values:
        """The values of a point as they stand in the table."""
        return {name: ", ".join(value) if isinstance(value, list) else value for name, value in point.items()}

    def body(self, prompt: str, seed: int, point: Values) -> dict:
        """The request, whole: every default is written out, so that the job's name stands for it."""
        body = self._whole(point) | {table.PROMPT.name: prompt, table.SEED.name: seed}
        if table.IMAGE_URL.name in body:
            body[table.IMAGE_URL.name] = self._picture(body[table.IMAGE_URL.name])
        return body

    def _whole(self, point: Values) -> Values:
        named = {**self.settings, **point}
        named = {**_of_preset(named.get(PRESET.name, PRESET.default)), **named}
        if table.NEGATIVE_PROMPT.name not in named:  # a negative prompt of false is none, whatever else is named
            named = asking.with_negative(named)
        defaults = {item.name: as_asked(item, item.default) for item in self.fields.values() if not item.required}
        return {name: value for name, value in {**defaults, **named}.items() if name not in _LEFT_OUT}

    def _picture(self, name: str) -> str:
        """The picture's bytes where it is a file beside the sweep's, else what was said."""
        if name not in self.pictures:
            try:
                there = (self.folder / name).is_file()
            except (OSError, ValueError):  # a data: URI is too long for a file's name
                there = False
            self.pictures[name] = as_url(self.folder / name) if there else name
        return self.pictures[name]


_NOT_VARIED = (table.PROMPT, table.SEED, *asking.OF_THE_ANSWER)
_LEFT_OUT = {item.name for item in (*asking.OF_THE_ANSWER, PRESET)}
_ELSEWHERE = {table.PROMPT.name: "write prompts = […] above the tables", table.SEED.name: "write seeds = […] there"}


def _of_preset(name: str) -> Values:
    """The fields that a preset sets."""
    values = {
        table.GUIDANCE_FIELDS[one].name: value for one, value in PRESETS[name].items() if one in table.GUIDANCE_FIELDS
    }
    if BLOCKS.name in PRESETS[name]:
        values[table.LAYERS.name] = [PRESETS[name][BLOCKS.name]]
    if NEGATIVE_PROMPT.name in PRESETS[name]:
        values[table.NEGATIVE_PROMPT.name] = None if PRESETS[name][NEGATIVE_PROMPT.name] == OFF else ""
    return values


def as_asked(item: Input, value: Any) -> Any:
    """The value as a request has it, one way for what means the same, as the job's name is made from it."""
    if value is False and item.nullable and not isinstance(item, Flag):
        return None
    if isinstance(item, Texts):
        return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value
    if isinstance(item, Number) and not item.whole and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else value
    return value


def wrong(item: Input, value: Any) -> str | None:
    """What is wrong with a value of a sweep's file, false standing for null."""
    plain = as_asked(item, value)
    problem = None if plain is None else item.problem(plain if isinstance(item, Texts) else value)
    return problem and problem.replace(" or null", " or false, for none")


# Inputs of stock nodes that are whole numbers. A graph does not say so: what is written 1 in it may be 1.0.
_WHOLE = ("width", "height", "batch_size", "steps", "start_at_step", "end_at_step", "seed", "noise_seed")


class AsGraph:
    """A graph of one's own. What is set is named node.input: the node by its id, its title or its class."""

    name = GRAPH

    def __init__(self, path: Path, told: Values):
        self.path = path
        self.graph = self._load(path.parent / told["graph"])
        settings, axes = (self._flat(name, told.get(name, {})) for name in ("settings", "axes"))
        _split(path, settings, axes)
        self.prompt = [self._place(told["prompt_into"])] if told.get("prompt_into") else self._prompt_place()
        self.seed = [self._place(told["seed_into"])] if told.get("seed_into") else self._seed_places()
        self.places = {name: self._place(name) for name in (*settings, *axes)}
        if found := [*self._taken_twice()]:
            raise BadPlan(path, found)
        given = [*settings.items(), *((name, one) for name, values in axes.items() for one in values)]
        if found := [problem for name, value in given if (problem := self._problem(*self.places[name], value))]:
            raise BadPlan(path, found)
        self.settings, self.axes = settings, axes

    def _load(self, file: Path) -> Graph:
        try:
            graph = read_graph(file.read_bytes())
        except (OSError, ValueError) as error:
            raise BadPlan(self.path, [f"graph {str(file)!r} can't be read: {error}"]) from None
        if "SaveImage" not in [node["class_type"] for node in graph.values()]:
            raise BadPlan(self.path, [f"graph {str(file)!r} saves no picture: it needs a Save Image node"])
        return graph

    def _flat(self, where: str, told: Values) -> Values:
        """{node: {input: value}} as {"node.input": value}."""
        if flat := [name for name, inputs in told.items() if not isinstance(inputs, dict)]:
            valid = "with a graph write node.input, such as KSampler.steps"
            raise BadPlan(self.path, [f"{where}.{name} names no input; {valid}" for name in flat])
        return {f"{node}.{name}": value for node, inputs in told.items() for name, value in inputs.items()}

    # --- where a value goes ---

    def _taken_twice(self) -> Iterator[str]:
        """What would not be heard, as something else goes into the same input."""
        names: dict[tuple[str, str], str] = {}
        for name, place in self.places.items():
            if place in self.prompt:
                yield f"{name} is where the prompts go: write prompts = […]"
            elif place in self.seed:
                yield f"{name} is where the seeds go: write seeds = […]"
            elif (other := names.setdefault(place, name)) != name:
                yield f"{other} and {name} are the same input; name it once"
        if both := [place for place in self.prompt if place in self.seed]:
            yield f"{'.'.join(both[0])} is where both the prompts and the seeds go; name two inputs"

    def _place(self, name: str) -> tuple[str, str]:
        """The id and the input of "node.input"."""
        word, _, name_of_input = name.rpartition(".")
        number = self._number(word)
        node = self.graph[number]
        valid = [one for one, value in node["inputs"].items() if not isinstance(value, list)]
        if node["class_type"] in _OURS:
            valid = [*_INPUTS]
        if isinstance(node["inputs"].get(name_of_input), list):
            raise BadPlan(self.path, [f"{name} comes over a link; of this node one can set {', '.join(valid)}"])
        if found := [*unknown([name_of_input], valid, f"{word}.")]:
            raise BadPlan(self.path, found)
        return number, name_of_input

    def _number(self, word: str) -> str:
        """The id of the one node that is meant."""
        if word in self.graph:
            return word
        by_title = [number for number in self.graph if self._title(number) == word]
        found = by_title or [number for number, node in self.graph.items() if node["class_type"] == word]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadPlan(self.path, [f"{word} is {len(found)} nodes; name one by its id: {', '.join(found)}"])
        valid = ", ".join(f"{number} ({self._title(number)})" for number in self.graph)
        raise BadPlan(self.path, [f"{word or 'a node without name'} is no node of the graph; there are {valid}"])

    def _title(self, number: str) -> str:
        node = self.graph[number]
        return node.get("_meta", {}).get("title") or node["class_type"]

    def _prompt_place(self) -> list[tuple[str, str]]:
        texts = [number for number, node in self.graph.items() if isinstance(node["inputs"].get("text"), str)]
        titled = [number for number in texts if self._title(number) == "Prompt"]
        for found in (texts, titled):
            if len(found) == 1:
                return [(found[0], "text")]
        valid = ", ".join(f'"{number}.text" ({self._title(number)})' for number in texts) or "none with a text"
        raise BadPlan(self.path, [f"prompt_into is missing: the graph has several texts or none; there are {valid}"])

    def _seed_places(self) -> list[tuple[str, str]]:
        found = whole_numbers(self.graph, *SEEDS)
        if not found:
            raise BadPlan(self.path, ["seed_into is missing: no node of the graph has a seed or noise_seed"])
        return found

    # --- what may go there ---

    def _problem(self, number: str, name: str, value: Any) -> str | None:
        node = self.graph[number]
        if node["class_type"] in _OURS:
            return _INPUTS[name].problem(value)
        before = node["inputs"][name]
        if name in _WHOLE and isinstance(before, int) and isinstance(value, float):
            return f"{self._title(number)}.{name} {shortened(value)} is no whole number, and ComfyUI would cut it"
        kinds = (int, float) if isinstance(before, int | float) and not isinstance(before, bool) else type(before)
        finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, kinds) and isinstance(value, bool) == isinstance(before, bool) and finite:
            return None
        return f"{self._title(number)}.{name} {shortened(value)} is not like what the graph has there, {before!r}"

    def problems_between(self, point: Values) -> list[str]:
        """What the guidance node would refuse at this point of the axes."""
        graph, found = self.body("", 0, point), []
        for node in graph.values():
            if node["class_type"] in _OURS:
                values = {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}
                try:
                    Settings(**values)
                    blocks.check_spec(values.get(BLOCKS.name, BLOCKS.default))
                except (ValueError, TypeError) as error:
                    found.append(str(error))
        return found

    def shown(self, point: Values) -> Values:
        """The values of a point as they stand in the table."""
        return dict(point)

    def body(self, prompt: str, seed: int, point: Values) -> Graph:
        """The graph with all of it set."""
        graph = with_all_inputs(self.graph)
        given = {self.places[name]: value for name, value in (self.settings | point).items()}
        presets = {place: given.pop(place) for place in list(given) if place[1] == PRESET.name}
        for (number, _), preset in presets.items():
            _set_all(graph[number], preset)
        given |= dict.fromkeys(self.prompt, prompt) | dict.fromkeys(self.seed, seed)
        for (number, name), value in given.items():
            before = graph[number]["inputs"].get(name)
            graph[number]["inputs"][name] = float(value) if isinstance(before, float) else value
        return graph


def _set_all(guidance: dict, preset: str) -> None:
    """Set all inputs of the guidance node as the preset has them; what comes over a link stays."""
    linked = {name: value for name, value in guidance["inputs"].items() if isinstance(value, list)}
    guidance["inputs"] = {**ADVANCED.defaults, **PRESETS[preset], **linked}
