"""Requests and answers as pydantic models, made from the table in `request`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ...inputs.kinds import Choice, Described, Flag, Input, Number, Text, Texts
from ...inputs.requests import LAYERS
from .. import request as table
from .problems import MOST_ERRORS, MOST_SHOWN, bad_fields, field_error

# --- requests ---


class Request(BaseModel):
    """A request, whole: every field of its endpoint has a value. What is asked does not change; a copy does."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    if TYPE_CHECKING:  # the fields come from the table; these are what the server itself reads
        seed: int | None
        width: int
        height: int
        image_url: str
        negative_prompt: str | None
        num_images: int
        numbers: bool
        wait: bool
        client_id: str | None


def _type(item: Input) -> Any:
    if isinstance(item, Choice):
        kind: Any = Literal[item.options]
    elif isinstance(item, Number):
        kind = int if item.whole else float
    elif isinstance(item, Texts):
        kind = list[Annotated[str, StringConstraints(max_length=item.longest)]]
    else:
        kind = {Flag: bool, Text: str}[type(item)]
    return kind | None if item.nullable else kind


def _limits(item: Described) -> dict[str, Any]:
    if isinstance(item, Number):
        finite = {} if item.whole else {"allow_inf_nan": False}
        return {"ge": item.minimum, "le": item.maximum, "multiple_of": item.multiple_of, **finite}
    if isinstance(item, Text | Texts):
        return {"min_length": item.least, "max_length": item.most}
    return {}


def _bounded(item: Input) -> Any:
    default = ... if item.required else list(item.default) if isinstance(item.default, tuple) else item.default
    given: dict[str, Any] = {name: limit for name, limit in _limits(item).items() if limit is not None}
    return Annotated[_type(item), Field(description=f"{item.does} ({item.rule()})", **given)], default


def _model(name: str, fields: tuple[Input, ...]) -> type[Request]:
    made: dict[str, Any] = {item.name: _bounded(item) for item in fields}
    return pydantic.create_model(name, __base__=Request, **made)


REQUESTS = {
    "text-to-image": _model("TextToImage", table.TEXT_TO_IMAGE),
    "image-to-image": _model("ImageToImage", table.IMAGE_TO_IMAGE),
}


def validate(endpoint: str, body: dict) -> Request:
    """The request with its defaults. Raises Problem that lists all that is wrong with it."""
    fields = {item.name: item for item in table.ENDPOINTS[endpoint][1]}
    body = table.with_negative(body)
    known = {name: value for name, value in body.items() if name in fields}
    unknown = [name for name in body if name not in fields]  # pydantic would stumble over some names
    asked, found = _read(endpoint, known, fields)
    given = {item.name: known.get(item.name, item.default) for item in fields.values()}
    bad = found.keys() - {LAYERS.name}  # of the layers those that are texts can be read all the same
    for place, rule in table.problems_between({name: value for name, value in given.items() if name not in bad}):
        found.setdefault(place, field_error(place, rule, _at(given, place)))
    if found or unknown:
        listed = _unknown(body, unknown[:MOST_ERRORS], fields)
        raise bad_fields([*found.values(), *listed], len(unknown) - len(listed))
    assert asked
    return asked


def _read(endpoint: str, known: dict, fields: dict[str, Input]) -> tuple[Request | None, dict[str, dict]]:
    """The request, or None and the errors by their place: a value may break several of pydantic's rules at once."""
    try:
        return REQUESTS[endpoint].model_validate(known), {}
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
    return None, {"/".join(map(str, one["loc"])): _error(one, fields) for one in found}


def _error(one: Any, fields: dict[str, Input]) -> dict:
    item, place = fields[one["loc"][0]], "/".join(map(str, one["loc"]))
    if one["type"] == "missing":
        return field_error(place, f"required: {item.rule()}")
    if isinstance(item, Texts) and len(one["loc"]) > 1:  # one of them
        return field_error(place, f"a text of at most {item.longest} characters", one["input"])
    return field_error(place, item.rule(), one["input"])


def _unknown(body: dict, names: list[str], fields: dict[str, Input]) -> list[dict]:
    """The errors of these names; the first that resembles no field lists the fields."""
    rule = f"unknown field; valid are {', '.join(fields)}"
    errors = []
    for name in names:
        if close := get_close_matches(name[:MOST_SHOWN], fields, 1):
            errors.append(field_error(_escaped(name), f"unknown field; did you mean {close[0]}?", body[name]))
        else:
            errors.append(field_error(_escaped(name), rule, body[name]))
            rule = "unknown field"
    return errors


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _at(values: dict, place: str) -> object:
    name, _, index = place.partition("/")
    return values[name][int(index)] if index else values[name]


# --- answers ---


class Image(BaseModel):
    """A picture on the server; url gives its bytes."""

    filename: str
    subfolder: str
    type: str
    url: str


class Fit(BaseModel):
    """What was made of the picture that came in: `kept`, cut from its centre, was scaled to `to`: (width, height)."""

    file: str
    size: tuple[int, int]
    kept: tuple[int, int]
    to: tuple[int, int]
    method: str


class Progress(BaseModel):
    """Steps of the sampler; 0 of n before it begins."""

    step: int
    steps: int


class Failure(BaseModel):
    """The node that failed, and its message."""

    node_id: str
    node: str
    message: str


class Accepted(BaseModel):
    """The job is queued; `url` tells how it goes on."""

    prompt_id: str
    seed: int
    url: str


class Answer(BaseModel):
    """The finished job. settings: every field as it was used. seconds: what the run took, without the queue.

    numbers: what guidance did, as NAG-PAG Plot tells it.
    """

    prompt_id: str
    seed: int
    images: list[Image]
    settings: dict[str, Any]
    image: Fit | None = None
    seconds: float
    numbers: dict[str, Any] | None = None


class Job(BaseModel):
    """A job as it stands. position: how many wait before it. reason: why it failed or was cancelled, or is unknown.

    unknown: it is gone from ComfyUI's queue and from its history, which somebody cleared.
    """

    prompt_id: str
    seed: int
    status: Literal["pending", "running", "done", "failed", "cancelled", "unknown"]
    url: str
    position: int | None = None
    progress: Progress | None = None
    images: list[Image] | None = None
    settings: dict[str, Any] | None = None
    image: Fit | None = None
    seconds: float | None = None
    numbers: dict[str, Any] | None = None
    reason: str | None = None
    error: Failure | None = None


class ModelFiles(BaseModel):
    """One kind of model file: what would be picked (null: none is installed), what there is, the official file."""

    picked: str | None
    installed: list[str]
    folder: str
    official: str
    link: str


class FieldError(BaseModel):
    """One bad field."""

    pointer: str
    rule: str
    value: Any = None


class ProblemJson(BaseModel):
    """A problem as RFC 9457 has it, with members of its kind."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
    more: int | None = None  # bad fields that are not listed
