"""Every field's bad values, and bodies that are no request."""

import json

import pytest
import requests
from asking import SMALL
from nag_pag_flux.nagpag.inputs.kinds import Choice, Flag, Number, Text, Texts
from nag_pag_flux.nagpag.service import request as table

FIELDS = {field.name: field for field in table.IMAGE_TO_IMAGE}


def bad_values(field):
    """Values that break the field's rule, whatever kind it is of."""
    numbers = ["5", 5.5, True, []] if getattr(field, "whole", False) else ["5", True, {}]
    wrong = {Text: [5, True, ["a"], {}], Choice: [5, True, ["a"], {}, "sideways"], Number: numbers,
             Flag: [1, "true", 0], Texts: ["8", 8, [8], [None], []]}[type(field)]  # fmt: skip
    found = [*wrong, *([] if field.nullable else [None])]
    if isinstance(field, Number):
        found += [field.minimum - 1, field.maximum + 1, *([field.minimum + 1] if field.multiple_of else [])]
    elif getattr(field, "most", None) is not None:
        found.append(["8"] * (field.most + 1) if isinstance(field, Texts) else "x" * (field.most + 1))
    return found


def refused(answer):
    body = answer.json()
    assert (answer.status_code, body["status"], body["type"]) == (400, 400, "urn:nag-pag:bad-fields"), body
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    return {error["pointer"]: error for error in body["errors"]}


@pytest.mark.parametrize("name", FIELDS)
def test_bad_values_are_refused_with_value_rule_and_place(service, name):
    field = FIELDS[name]
    for value in bad_values(field):
        body = {"prompt": "a cat", "image_url": "example.png", **SMALL, name: value}
        errors = refused(service.raw("image-to-image", json=body))
        assert errors and all(pointer.split("/")[1] == name for pointer in errors), (value, errors)
        error = errors.get(f"#/{name}") or errors[f"#/{name}/0"]
        if f"#/{name}" in errors:
            assert error["rule"] == field.rule()
        expected = value[0] if f"#/{name}/0" in errors else value
        shown = error["value"]
        assert shown == expected or (isinstance(shown, str) and "characters" in shown), (value, shown)


def test_all_bad_fields_are_listed_at_once(service):
    bad = {name: bad_values(field)[0] for name, field in FIELDS.items()}
    errors = refused(service.raw("image-to-image", json=bad))
    assert {pointer.split("/")[1] for pointer in errors} == set(FIELDS)


def test_required_fields_are_named(service):
    assert refused(service.raw("image-to-image", json={})).keys() == {"#/prompt", "#/image_url"}


def test_unknown_fields_are_refused_by_name(service):
    errors = refused(service.raw(json={"prompt": "a", "widht": 64, "zzz": 1, "a/b~": 1}))
    assert "did you mean width" in errors["#/widht"]["rule"] and errors["#/widht"]["value"] == 64
    assert "valid are prompt, negative_prompt, width" in errors["#/zzz"]["rule"]
    assert "#/a~1b~0" in errors
    errors = refused(service.raw(json={"prompt": "a", "image_url": "example.png"}))
    assert errors.keys() == {"#/image_url"}  # of the other endpoint


def test_layers_have_their_place_and_the_grammars_own_words(service):
    errors = refused(service.post(nag_pag_applied_layers=["8", "transformer_blocks.x", "12", "9-7"]))
    assert errors.keys() == {"#/nag_pag_applied_layers/1", "#/nag_pag_applied_layers/3"}
    assert '"transformer_blocks.x" is not a block' in errors["#/nag_pag_applied_layers/1"]["rule"]
    assert errors["#/nag_pag_applied_layers/3"]["value"] == "9-7"
    assert refused(service.post(nag_pag_applied_layers=["auto", "8"])).keys() == {"#/nag_pag_applied_layers"}


def test_start_after_end(service):
    errors = refused(service.post(nag_pag_start_percent=0.7, nag_pag_end_percent=0.2))
    assert errors["#/nag_pag_start_percent"]["value"] == 0.7


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'"text"', b"[]", b"null", b'{"prompt": NaN}', b'{"prompt": "a", "guidance_scale": Infinity}',
        b'{"prompt": "a", "guidance_scale": 1e999}',
     b"\xff\xfe", b"[" * 60_000, b'{"seed": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_bodies_that_are_no_json_object(service, body):
    answer = service.raw(data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["type"] == "urn:nag-pag:bad-json"


def test_texts_that_are_no_unicode(service):
    answer = service.raw(data='{"prompt": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert refused(answer).keys() == {"#/prompt"}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
@pytest.mark.parametrize("endpoint", table.ENDPOINTS)
def test_only_json_is_taken(service, endpoint, kind):
    """text/plain is what a page of another site can send without being asked."""
    headers = {"Content-Type": kind} if kind else {}
    answer = service.raw(endpoint, data=json.dumps({"prompt": "a"}).encode(), headers=headers)
    assert answer.status_code == 415 and answer.json()["type"] == "urn:nag-pag:not-json"
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert service.raw(endpoint, data=b"{", headers=charset).status_code == 400


def test_too_large(service):
    body = json.dumps({"prompt": "a" * table.MOST_BODY["text-to-image"]})
    headers = {"Content-Type": "application/json"}
    assert service.raw(data=body, headers=headers).status_code == 413
    assert service.raw(data=iter([body.encode()]), headers=headers).status_code == 413  # chunked: no length is told


def test_a_page_of_another_site_is_refused_by_the_host(service):
    headers = {"Origin": "http://evil.example", "Content-Type": "application/json"}
    assert service.raw(data='{"prompt": "a"}', headers=headers).status_code == 403


def test_nothing_was_queued(service):
    assert not service.queued()
    assert requests.get(f"{service.url}/nagpag/jobs/x", timeout=30).status_code == 404
