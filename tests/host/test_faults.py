"""Whatever goes wrong in what we run inside a sampling, the picture is there, and one warning.

A fault at every line: a trace raises at the line's first run, in a sampling of its own. What remains are the lines
that do nothing but call, by name, what may fail or what was there before.
"""

import ast
import logging
import re
import sys
from pathlib import Path

import comfy.model_management
import nag_pag_flux.nagpag
import other_families
import pytest
import torch
from nag_pag_flux.lab.toy import small_families
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.patch.plan import PLANS
from other_families import HERE
from sampling import guided, prompt, sample

POSITIVE, NEGATIVE = prompt(1), prompt(2, tokens=14)
PACK = Path(nag_pag_flux.nagpag.__file__).parent
HOOKS = [*PACK.glob("patch/*.py"), PACK / "diagnostics/record.py", PACK / "diagnostics/recording.py"]
# What is only called by those: the maths, and what was asked for. A fault at the first line of each function will do.
CALLED = {str(path) for path in PACK.glob("*.py")}
FILES = {str(path) for path in HOOKS} | CALLED
# The fallback itself, and what does nothing but call by name.
PASS_ON = {
    "attempt",
    "attempt_in_block",
    "_run_in",
    "guided_predictions",
    "predictions",
    "_forward_here",
    "_what_was_there",
    "_end_sampling",
    "_close",
}
# These are given to the host, and pass on what it gave.
GIVEN = {"replacement", "attention", "before", "wrapper"}

SAMPLED = {"steps": 1, "size": (1, 4, 4)}
CASES = {
    "attention": {"blocks": "1[0]", "negative": "softened", "temperature": 2.0},
    "attention, identity + text": {"blocks": "1", "negative": "identity + text", "schedule": "linear fade-out"},
    "output": {"blocks": "0", "reach": "output", "renew_every": 2, "start_percent": 0.0, "end_percent": 0.9},
    "negative prompt": {"blocks": "s0", "reach": "output", "renew_every": 1, "negative_prompt": "sampler's"},
    "prediction": {"blocks": "1", "reach": "prediction", "renew_every": 2, "negative_prompt": "off"},
    "prediction, negative prompt": {
        "blocks": "1",
        "reach": "prediction",
        "renew_every": 2,
        "negative_prompt": "sampler's",
    },
    "attention, negative prompt": {"blocks": "1[0]", "renew_every": 2, "negative_prompt": "sampler's"},
}
RECORDED = ("attention", "output", "prediction, negative prompt")
# Families whose hooks are others: by the attention alone, and with a text that is in no sequence of the picture's.
OTHERS = {
    "Lumina 2": {"blocks": "1", "negative": "identity + text"},
    "Wan 2.2 5B": {"reach": "output", "renew_every": 1, "perturbation": 0.0, "negative_prompt": "sampler's"},
    "HunyuanVideo 1.5": {"reach": "output", "renew_every": 1, "perturbation": 0.0, "negative_prompt": "sampler's"},
}


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO, logger="nag_pag_flux")


class Tracer:
    """Notes each line of ours when it is first run, and raises at one of them."""

    def __init__(self, at=None, error=None):
        self.at, self.error, self.places = at, error, set()

    def __enter__(self):
        sys.settrace(self.called)
        return self

    def __exit__(self, *args):
        sys.settrace(None)

    def called(self, frame, event, arg):
        code = frame.f_code
        if code.co_filename not in FILES or re.sub(r"_\d+$", "", code.co_name) in PASS_ON | GIVEN:
            return None
        if self.at is not None and (code.co_filename, code.co_name) != (self.at[0], self.at[2]):
            return None
        return self.line

    def line(self, frame, event, arg):
        code = frame.f_code
        place = code.co_filename, None if code.co_filename in CALLED else frame.f_lineno, code.co_name
        if event == "line" and place not in self.places:
            self.places.add(place)
            if place == self.at:
                sys.settrace(None)
                raise self.error
        return self.line


def run(model):
    return sample(model, POSITIVE, NEGATIVE, **SAMPLED)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "nag_pag_flux" and r.levelno == logging.WARNING]


def test_what_is_left_out_only_calls_by_name():
    """Beside what it does within `attempt` there is no look-up in it but of what the host calls the block."""
    found, look_ups = set(), set()
    for path in HOOKS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in PASS_ON | GIVEN:
                found.add(node.name)
                inner = {id(part) for f in ast.walk(node) if isinstance(f, ast.Lambda) for part in ast.walk(f)}
                parts = [part for statement in node.body for part in ast.walk(statement)]
                look_ups |= {ast.unparse(p) for p in parts if isinstance(p, ast.Subscript) and id(p) not in inner}
    assert found == PASS_ON | GIVEN
    assert look_ups == {"extra['original_block']", "kwargs['transformer_options']"}


@pytest.fixture(scope="module")
def seen():
    """The lines that an earlier case has been through."""
    return set()


@pytest.mark.parametrize("case", CASES)
def test_a_fault_at_any_line_costs_guidance_and_no_more(shallow, caplog, seen, case):
    model = guided(shallow, **CASES[case])
    sweep(record_model(model, Record()) if case in RECORDED else model, run(shallow), run, caplog, seen)


@pytest.mark.parametrize("case", [case for case in HERE if case.small in OTHERS], ids=str)
def test_so_it_is_with_other_families(tmp_path, caplog, seen, case):
    small_families.make_small(case.small, path := tmp_path / "small.safetensors")
    model = small_families.load_small(case.small, path)
    prompts = other_families.prompt(case, 1), other_families.prompt(case, 2, tokens=14)

    def run(model):
        return other_families.sample(case, model, *prompts, steps=1)

    sweep(guided(model, **OTHERS[case.small]), run(model), run, caplog, seen)


def sweep(model, plain, run, caplog, seen):
    """A fault at each line that no sweep before this one has been through."""
    with Tracer() as tracer:
        whole = run(model)
    assert not warnings(caplog) and not torch.equal(whole, plain)
    places = tracer.places - seen
    seen |= places
    assert len(places) > 10
    wrong = {}
    for place in places:
        caplog.clear()
        for plan in model.model_options["transformer_options"][PLANS]:
            plan.disturbing.clear()  # which is made once, by lines that are to be run each time
        with Tracer(place, ArithmeticError("made to fail")):
            try:
                out = run(model)
            except ArithmeticError:
                out = None
        at, said = f"{Path(place[0]).name}:{place[1]} in {place[2]}", warnings(caplog)
        # Guided where it happens after the deed.
        if out is None or not (torch.equal(out, plain) or torch.equal(out, whole)):
            wrong[at] = "no picture" if out is None else "another picture"
        elif len(said) != 1 or "made to fail" not in said[0]:
            wrong[at] = said
    assert wrong == {}
    caplog.clear()
    assert torch.equal(run(model), whole) and not warnings(caplog)


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), comfy.model_management.InterruptProcessingException()],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_and_interrupts_pass_at_every_function(shallow, error):
    """At one line of each function that is run inside a sampling."""
    model = guided(shallow, **CASES["negative prompt"])
    with Tracer() as tracer:
        run(model)
    first = {}
    for path, number, name in sorted(tracer.places, key=str):
        first.setdefault((path, name), (path, number, name))
    assert len(first) > 30
    for place in first.values():
        with Tracer(place, error), pytest.raises(type(error)):
            run(model)
