"""Whatever goes wrong in what we run inside a sampling, the picture is there, and one warning.

A fault at every line: a trace raises at the line's first run, in a sampling of its own. What remains are the lines
that do nothing but call, by name, what may fail or what was there before.
"""

import logging
import sys
from pathlib import Path

import nag_pag_flux.nagpag
import pytest
import torch
from sampling import guided, prompt, sample

POSITIVE, NEGATIVE = prompt(1), prompt(2, tokens=14)
PACK = Path(nag_pag_flux.nagpag.__file__).parent
FILES = {str(path) for path in (*PACK.glob("patch/*.py"), *PACK.glob("*.py"))}
# The fallback itself, and what does nothing but call by name.
PASS_ON = {"attempt", "attempt_in_block", "_forward_here", "replacement", "attention", "before", "_what_was_there"}
HOOKS = {"wrapper"}
BELONGS_TO_THE_SAMPLING = {"wrappers.py", "report.py", "run.py", "plan.py"}

SAMPLED = {"steps": 1, "size": (1, 4, 4)}
CASES = {
    "attention": {"blocks": "1[0]", "negative": "softened", "temperature": 2.0},
    "attention, identity + text": {"blocks": "1", "negative": "identity + text", "schedule": "linear fade-in"},
    "output": {"blocks": "1", "reach": "output", "renew_every": 2, "start_percent": 0.0, "end_percent": 0.9},
    "negative prompt": {"blocks": "s0", "reach": "output", "renew_every": 1, "negative_prompt": "sampler's"},
}


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO, logger="nag_pag_flux")


class Tracer:
    """Notes each line of ours when it is first run, and raises at one of them."""

    def __init__(self, at=None, error=None):
        self.at, self.error, self.lines = at, error, {}

    def __enter__(self):
        sys.settrace(self.called)
        return self

    def __exit__(self, *args):
        sys.settrace(None)

    def called(self, frame, event, arg):
        code = frame.f_code
        if code.co_filename not in FILES or code.co_name in PASS_ON | HOOKS:
            return None
        return self.line

    def line(self, frame, event, arg):
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and place not in self.lines:
            self.lines[place] = frame.f_code.co_name
            if place == self.at:
                raise self.error
        return self.line


def run(model):
    return sample(model, POSITIVE, NEGATIVE, **SAMPLED)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "nag_pag_flux" and r.levelno == logging.WARNING]


@pytest.fixture(scope="module")
def seen():
    """The lines that an earlier case has been through."""
    return set()


@pytest.mark.parametrize("case", CASES)
def test_a_fault_at_any_line_costs_guidance_and_no_more(flux, caplog, seen, case):
    model, plain = guided(flux, **CASES[case]), run(flux)
    with Tracer() as tracer:
        whole = run(model)
    assert not warnings(caplog) and not torch.equal(whole, plain)
    lines = {place: name for place, name in tracer.lines.items() if place not in seen}
    seen |= set(lines)
    assert len(lines) > 10
    wrong = {}
    for (path, number), name in lines.items():
        caplog.clear()
        with Tracer((path, number), ArithmeticError("made to fail")) as tracer:
            out = run(model)
        at, said = f"{Path(path).name}:{number} in {name}", warnings(caplog)
        # What comes after the forward can cost the words about it alone.
        allowed = [plain, whole] if Path(path).name in BELONGS_TO_THE_SAMPLING else [plain]
        if not any(torch.equal(out, one) for one in allowed):
            wrong[at] = "another picture"
        if len(said) != 1 or "made to fail" not in said[0]:
            wrong[at] = said
    assert wrong == {}
    caplog.clear()
    assert torch.equal(run(model), whole) and not warnings(caplog)
