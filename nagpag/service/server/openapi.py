"""The OpenAPI document of the service, from the same models that read requests and shape answers."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from . import schema
from .problems import KINDS

_REFS = "#/components/schemas/{model}"
_ANSWERS = (schema.Accepted, schema.Answer, schema.Job, schema.ModelFiles, schema.ProblemJson)
_COMMON = tuple(kind for kind in KINDS if kind not in ("no-such-job", "fetching-off"))
_OF_JOB = ("bad-host", "no-such-job")


@functools.cache
def document() -> dict:
    """OpenAPI 3.1."""
    models: Any = [(model, "validation") for model in schema.REQUESTS.values()]
    models += [(model, "serialization") for model in _ANSWERS]
    _, definitions = models_json_schema(models, ref_template=_REFS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "NAG-PAG for FLUX",
            "version": "1",
            "description": "Text to image and image to image with NAG-PAG guidance, on ComfyUI's own server.",
        },
        "paths": {
            "/nagpag/text-to-image": {"post": _make("text-to-image", "Make pictures from a prompt")},
            "/nagpag/image-to-image": {
                "post": _make("image-to-image", "Make pictures from a picture and a prompt", "fetching-off")
            },
            "/nagpag/jobs/{prompt_id}": {
                "get": _of_job("How a job stands", {"200": _content("The job", schema.Job)}),
                "delete": _of_job(
                    "Cancel this job and no other; one that has ended stays as it is",
                    {
                        "200": _content("The job, which has ended", schema.Job),
                        "202": _content("The job, which is being stopped", schema.Job),
                    },
                ),
            },
            "/nagpag/jobs/{prompt_id}/events": {
                "get": _of_job(
                    "The job as server-sent events, each time it changes, to its end",
                    {"200": _plain("Events", "text/event-stream", "string")},
                )
            },
            "/nagpag/models": {
                "get": {
                    "summary": "Which model files there are, and which would be picked",
                    "responses": {"200": _models()},
                }
            },
            "/nagpag/schema": {
                "get": {
                    "summary": "This document",
                    "responses": {"200": _plain("OpenAPI", "application/json", "object")},
                }
            },
        },
        "components": {"schemas": definitions["$defs"]},
    }


def _make(endpoint: str, summary: str, *kinds: str) -> dict:
    request = {"application/json": {"schema": {"$ref": _REFS.format(model=schema.REQUESTS[endpoint].__name__)}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": request},
        "responses": {
            "200": _content("The finished job", schema.Answer),
            "202": _content("The job is queued (with wait false)", schema.Accepted),
            **_problems(*_COMMON, *kinds),
        },
    }


def _of_job(summary: str, responses: dict) -> dict:
    where = {"name": "prompt_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {"summary": summary, "parameters": [where], "responses": {**responses, **_problems(*_OF_JOB)}}


def _plain(description: str, media: str, kind: str) -> dict:
    return {"description": description, "content": {media: {"schema": {"type": kind}}}}


def _models() -> dict:
    found = {"type": "object", "additionalProperties": {"$ref": _REFS.format(model=schema.ModelFiles.__name__)}}
    return {"description": "By request field", "content": {"application/json": {"schema": found}}}


def _content(description: str, model: type[BaseModel]) -> dict:
    found = {"schema": {"$ref": _REFS.format(model=model.__name__)}}
    return {"description": description, "content": {"application/json": found}}


def _problems(*kinds: str) -> dict:
    """By status, each with the titles of all kinds that have it."""
    found = {"application/problem+json": {"schema": {"$ref": _REFS.format(model=schema.ProblemJson.__name__)}}}
    titles: dict[int, list[str]] = {}
    for kind in kinds:
        titles.setdefault(KINDS[kind][0], []).append(KINDS[kind][1])
    return {str(status): {"description": "; or ".join(titles[status]), "content": found} for status in sorted(titles)}
