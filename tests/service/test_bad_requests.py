"""Every field's bad values, and bodies that are no request."""

import gzip
import json
import zlib

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
        long = isinstance(shown, str) and shown.endswith((" characters)", " values"))
        assert shown == expected or long, (value, shown)


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


def test_all_faults_of_a_body_are_in_one_answer(service):
    """What is no block, what does not go together and what is no field, beside fields that are wrong by themselves."""
    wrong = {"nag_pag_applied_layers": ["8", 8, "8-", "[", "\ud800"], "width": 65, "widht": 64, "seed": True}
    window = {"nag_pag_start_percent": 0.7, "nag_pag_end_percent": 0.2}
    errors = refused(service.raw(json={**wrong, **window}))
    layers = {f"#/nag_pag_applied_layers/{i}" for i in (1, 2, 3, 4)}
    others = {"#/width", "#/widht", "#/nag_pag_start_percent", "#/seed", "#/prompt"}
    assert errors.keys() == layers | others
    assert '"8-" is not a block' in errors["#/nag_pag_applied_layers/2"]["rule"]
    assert "of at most 10000 characters" in errors["#/nag_pag_applied_layers/1"]["rule"]


def test_the_longest_layer_and_the_longest_list_of_them(service):
    errors = refused(service.post(nag_pag_applied_layers=["8" + " " * 10_000]))
    assert "a text of at most 10000 characters" in errors["#/nag_pag_applied_layers/0"]["rule"]
    errors = refused(service.post(nag_pag_applied_layers=["8" + " " * 9_000, "9" + " " * 9_000]))
    assert errors["#/nag_pag_applied_layers"]["rule"] == "at most 10000 characters in all"


LIMIT = 2**16  # of an answer, beside what was asked back
DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    "body",
    [
        {f"field {i}": i for i in range(4_000)},
        {f"{i}" + "\0" * 5_000: "\0" * 5_000 for i in range(90)},
        {"widht" + "\U0001f600" * i: ["\x01" * 199] * 3 for i in range(90)},
        {"prompt": 5, "nag_pag_applied_layers": ["\x02" * 9_000] * 100},
        {"prompt": 5, "nag_pag_applied_layers": ["8:" + "\U0001f600" * 60] * 100},
        {"prompt": 5, "nag_pag_applied_layers": [[]] * 15_000},
        {"prompt": ["\x03"] * 9_000, "seed": {"\x04" * i: i for i in range(300)}, "width": 10**4000},
    ],
    ids=["unknown", "long names", "close names", "long layers", "wide layers", "many layers", "long values"],
)
def test_an_answer_is_not_many_times_the_request(service, body):
    answer = service.raw("image-to-image", json=body)
    errors = answer.json()["errors"]
    assert answer.status_code == 400 and len(answer.content) < LIMIT and 0 < len(errors) <= 40
    listed = sum("valid are prompt" in error["rule"] for error in errors)
    assert listed <= 1 and answer.json()["detail"].count("valid are prompt") == listed
    faults = len(body) if len(body) >= 90 else 0
    assert len(errors) + answer.json().get("more", 0) >= faults
    assert f"and {answer.json().get('more', 0) + len(errors) - 10} more" in answer.json()["detail"] or len(errors) <= 10


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ' + DEEP + b"}",
        b'{"prompt": ' + DEEP + b"}",
        b'{"nag_pag_applied_layers": ' + DEEP + b', "prompt": 5}',
        b'{"\\ud800": 1}',
        b'{"\\ud800": {"\\udfff": "\\ud800"}}',
    ],
    ids=["unknown field", "text", "list", "lone surrogate", "several"],
)
def test_what_is_deep_or_no_unicode_is_refused_like_all_else(service, body):
    errors = refused(service.raw(data=body, headers={"Content-Type": "application/json"}))
    assert "#/prompt" in errors


@pytest.mark.parametrize("filling", [b'{"a":', b"[0,", b'","', b" ", b"{}", b"\n"], ids=repr)
@pytest.mark.parametrize("endpoint", table.ENDPOINTS)
def test_what_is_large_beside_its_texts_is_refused_unread(service, endpoint, filling):
    answer = service.raw(endpoint, data=filling * 10**5, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "beside its texts" in answer.json()["detail"]


def test_texts_may_hold_whatever_stands_for_structure_outside_of_them(service):
    text = '\\"[{,:' * 1_600
    answer = service.post(prompt=text, sampler_name="none")
    assert answer.status_code == 422  # read whole, and refused by ComfyUI for its sampler


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_content_coding_that_the_body_is_not_in(service, coding):
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = service.raw(data=b'{"prompt": "a"}', headers=headers)
    assert answer.status_code == 400 and answer.json()["type"] == "urn:nag-pag:bad-json"
    packed = gzip.compress(b'{"prompt": 5}') if coding == "gzip" else zlib.compress(b'{"prompt": 5}')
    assert refused(service.raw(data=packed, headers=headers)).keys() == {"#/prompt"}


@pytest.mark.parametrize(
    "host", ["", "/", "a b", "a/b", "a@b", "host:port", "host:99999", "[::1", ":80", "?", "\xfc.example"]
)
def test_a_host_header_that_is_none_is_refused_before_anything_is_queued(service, host):
    """The answer could not say the job's URL."""
    before = requests.get(f"{service.url}/history", timeout=30).json().keys()
    answer = service.raw(json={"prompt": "a cat", **SMALL, "wait": False}, headers={"Host": host.encode("latin-1")})
    assert answer.status_code == 400 and answer.json()["type"] == "urn:nag-pag:bad-host"
    assert not service.queued() and requests.get(f"{service.url}/history", timeout=30).json().keys() == before


@pytest.mark.parametrize("host", ["example.com", "example.com:81", "[::1]:8188", "10.0.0.7", "under_score"])
def test_the_job_is_where_the_host_header_says(service, host):
    answer = service.raw(json={"prompt": "a cat", **SMALL, "wait": False}, headers={"Host": host})
    assert answer.json()["url"].startswith(f"http://{host}/nagpag/jobs/")
    service.cancel(answer.json()["prompt_id"])


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
