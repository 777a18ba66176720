"""The short form of `make fuzz`: some of the same specs and requests, and what must hold of each."""

from nag_pag_flux.lab.fuzz import calls, specs
from nag_pag_flux.lab.fuzz.hostile import Sent


def test_specs_are_read_or_refused_by_name():
    found = specs.try_specs(500)
    assert found.faults == [] and found.tried == 500 and 0 < found.read < 500


def test_no_request_gets_a_server_error_or_a_flood(service):
    found = calls.try_calls(service.server, 150)
    assert found.faults == [] and sum(found.statuses.values()) == 150
    assert {202, 400, 404, 415} <= found.statuses.keys()


def test_the_fuzzer_sees_what_is_wrong(service, monkeypatch):
    found = calls.Calls()
    found.add("bare", lambda: calls.Answer(500, b"500 Internal Server Error", 10))
    found.add("long", lambda: calls.Answer(400, b"x" * (calls.MOST_ANSWER + 11), 10))
    found.add("cut", lambda: calls.Answer(0, b"", 10))
    found.add("failed", lambda: calls.Answer(500, b'{"type": "urn:nag-pag:job-failed"}', 10))
    assert len(found.faults) == 3 and found.failed_runs == 1
    monkeypatch.setattr(specs, "check_spec", lambda spec: {}[spec])
    assert len(specs.try_specs(10).faults) >= 10
    assert calls.send_bytes(service.server, Sent("/nagpag/none", b"", "GET")).status == 404
