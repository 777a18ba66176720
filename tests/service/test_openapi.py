"""Schemathesis over the OpenAPI document, against the live server."""

import pytest
import requests
import schemathesis
from asking import SMALL
from hypothesis import HealthCheck, given, settings
from nag_pag_flux.nagpag.inputs.kinds import Number
from nag_pag_flux.nagpag.service import request as table
from nag_pag_flux.nagpag.service.server import openapi
from nag_pag_flux.nagpag.service.server.problems import KINDS
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

# What is valid by the schema may still be refused by the host, or by the fence: no check wants a 2xx for it.
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]


OPERATIONS = [("POST", f"/nagpag/{name}") for name in table.ENDPOINTS]
OPERATIONS += [(method, "/nagpag/jobs/{prompt_id}") for method in ("GET", "DELETE")]
OPERATIONS += [("GET", "/nagpag/jobs/{prompt_id}/events"), ("GET", "/nagpag/models")]
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
# Any text may stand for a job's id, so only bodies can be invalid.
TRIED = [(*one, VALID) for one in OPERATIONS] + [(*one, INVALID) for one in OPERATIONS if one[0] == "POST"]
# Small for the CPU, and what only the host knows to be valid.
RUNS = SMALL | {"num_inference_steps": 1, "num_images": 1, "wait": False, "nag_pag_applied_layers": ["8"],
                "sampler_name": "euler", "scheduler": "simple", "diffusion_model": None, "clip_l": None}  # fmt: skip


@pytest.fixture(scope="module")
def api(service):
    return schemathesis.openapi.from_url(f"{service.url}/nagpag/schema")


def test_every_operation_is_tried(api):
    found = {(one.ok().method.upper(), one.ok().path) for one in api.get_all_operations()}
    assert found == set(OPERATIONS)  # all but the document itself, which it leaves out


@pytest.mark.parametrize("method, path, mode", TRIED, ids=str)
def test_the_service_is_as_its_document_says(service, api, method, path, mode):
    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy(generation_mode=mode))
    def holds(case):
        if mode is VALID and method == "POST":
            case.body |= RUNS | ({"image_url": "example.png"} if "image_url" in case.body else {})
        answer = case.call(timeout=60)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code == 202 and method == "POST":
            service.cancel(answer.json()["prompt_id"])

    holds()


def test_the_document_has_every_field_with_its_default_and_range(service):
    document = requests.get(f"{service.url}/nagpag/schema", timeout=30).json()
    assert document["openapi"].startswith("3.1")
    for model, (_, fields) in zip(("TextToImage", "ImageToImage"), table.ENDPOINTS.values(), strict=True):
        found = document["components"]["schemas"][model]
        assert found["additionalProperties"] is False and list(found["properties"]) == [field.name for field in fields]
        assert found["required"] == [field.name for field in fields if field.required]
        for field in fields:
            told = found["properties"][field.name]
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            assert field.required or told["default"] == default
            one = told["anyOf"][0] if field.nullable else told
            if isinstance(field, Number):
                assert (one["minimum"], one["maximum"]) == (field.minimum, field.maximum), field.name
            assert field.does in told["description"]
            assert one.get("multipleOf") == getattr(field, "multiple_of", None)
    assert {f"/nagpag/{name}" for name in table.ENDPOINTS} < set(document["paths"])


def test_every_problem_that_can_come_is_told_under_its_status():
    paths = openapi.document()["paths"]
    told = {
        (path, method): {(int(status), title) for status, one in answer["responses"].items()
                         for title in one["description"].split("; or ") if int(status) >= 400}
        for path, methods in paths.items() for method, answer in methods.items()
    }  # fmt: skip
    without = {"text-to-image": {"no-such-job", "fetching-off"}, "image-to-image": {"no-such-job"}}
    for endpoint, never in without.items():
        expected = {entry for kind, entry in KINDS.items() if kind not in never}
        assert told[f"/nagpag/{endpoint}", "post"] == expected
    for method, path in (one for one in OPERATIONS if "jobs" in one[1]):
        assert told[path, method.lower()] == {KINDS["bad-host"], KINDS["no-such-job"]}
    unfit = paths["/nagpag/text-to-image"]["post"]["responses"]["422"]["description"]
    assert unfit == "ComfyUI refused the prompt; or The request does not fit the model"
