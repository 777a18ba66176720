"""Requests and answers as pydantic models, made from the table in `request`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from ...inputs.kinds import Choice, Described, Flag, Input, Number, Text, Texts
from .. import request as table
from .problems import bad_fields, field_error

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
        wait: bool
        client_id: str | None


def _type(item: Input) -> Any:
    if isinstance(item, Choice):
        kind: Any = Literal[item.options]
    elif isinstance(item, Number):
        kind = int if item.whole else float
    else:
        kind = {Flag: bool, Text: str, Texts: list[str]}[type(item)]
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


def validate(endpoint: str, body: object) -> Request:
    """The request with its defaults. Raises Problem that lists every bad field."""
    fields = {item.name: item for item in table.ENDPOINTS[endpoint][1]}
    try:
        asked = REQUESTS[endpoint].model_validate(body)
    except pydantic.ValidationError as error:
        raise bad_fields(_errors(error, fields)) from None
    values = asked.model_dump()
    if found := table.problems_between(values):
        raise bad_fields(field_error(place, rule, _at(values, place)) for place, rule in found)
    return asked


def _errors(error: pydantic.ValidationError, fields: dict[str, Input]) -> list[dict]:
    found = {}  # by place, as a value may break several rules of ours at once
    for one in error.errors(include_url=False, include_context=False):
        name, place = str(one["loc"][0]), "/".join(_escaped(str(part)) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            found[place] = field_error(place, _unknown(name, fields), one["input"])
        elif one["type"] == "missing":
            found[place] = field_error(place, f"required: {fields[name].rule()}")
        else:
            rule = "a text" if len(one["loc"]) > 1 else fields[name].rule()
            found[place] = field_error(place, rule, one["input"])
    return list(found.values())


def _unknown(name: str, fields: dict[str, Input]) -> str:
    close = get_close_matches(name, fields, 1)
    return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; valid are {', '.join(fields)}"


def _escaped(part: str) -> str:
    return part.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")


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
    """The finished job. settings: every field as it was used. seconds: what the run took, without the queue."""

    prompt_id: str
    seed: int
    images: list[Image]
    settings: dict[str, Any]
    image: Fit | None = None
    seconds: float


class Job(BaseModel):
    """A job as it stands. position: how many wait before it. reason: why it failed or was cancelled."""

    prompt_id: str
    seed: int
    status: Literal["pending", "running", "done", "failed", "cancelled"]
    url: str
    position: int | None = None
    progress: Progress | None = None
    images: list[Image] | None = None
    settings: dict[str, Any] | None = None
    image: Fit | None = None
    seconds: float | None = None
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
