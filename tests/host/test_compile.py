"""torch.compile by the host's own wrapper: same picture, no graph break and no recompile beyond the plain model's."""

import logging
import re
from collections import Counter

import comfy.ldm.flux.math
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from sampling import guided, prompt, sample
from torch._dynamo.utils import counters

POSITIVE = prompt(1)


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch):
    # What the host takes on a GPU. Its attention for the CPU asks for free memory, which breaks the graph by itself.
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    torch._dynamo.reset()
    counters.clear()


def ours_on(model, **inputs):
    return guided(model, **{"blocks": "1, s0", **inputs})


def compiled(model):
    model = model.clone()
    set_torch_compile_wrapper(model, backend="eager", dynamic=False)
    return model


def graphs_and_breaks():
    return counters["stats"]["unique_graphs"], dict(counters["graph_break"])


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_compiled_guidance_is_one_graph(shallow, cfg):
    expected = sample(ours_on(shallow), POSITIVE, cfg=cfg)
    ours = sample(compiled(ours_on(shallow)), POSITIVE, cfg=cfg)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert graphs_and_breaks() == (1, {})


def test_a_window_costs_one_recompile(shallow):
    """Off and on are two graphs; nothing else that changes from step to step may be compiled in."""
    inputs = {"start_percent": 0.3, "end_percent": 0.7}
    expected = sample(ours_on(shallow, **inputs), POSITIVE, steps=8)
    ours = sample(compiled(ours_on(shallow, **inputs)), POSITIVE, steps=8)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert graphs_and_breaks() == (2, {})


@pytest.mark.parametrize("reach", ["double blocks", "output"])
def test_a_branch_is_one_graph(shallow, reach):
    inputs = {"reach": reach, "blocks": "1", "renew_every": 1}
    expected = sample(ours_on(shallow, **inputs), POSITIVE)
    ours = sample(compiled(ours_on(shallow, **inputs)), POSITIVE)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert graphs_and_breaks() == (1, {})


def test_renewal_costs_one_recompile(shallow):
    """A step that computes the branch and a step that reuses it are two graphs."""
    inputs = {"reach": "double blocks", "blocks": "1", "renew_every": 3}
    expected = sample(ours_on(shallow, **inputs), POSITIVE, steps=8)
    ours = sample(compiled(ours_on(shallow, **inputs)), POSITIVE, steps=8)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert graphs_and_breaks() == (2, {})


@pytest.mark.parametrize("every, graphs", [(1, 1), (3, 2)])
def test_a_negative_prompt_costs_no_graph_more(shallow, every, graphs):
    inputs = {"reach": "double blocks", "negative_prompt": "sampler's", "renew_every": every, "blocks": "0, 1"}
    sampling = {"positive": POSITIVE, "negative": prompt(2, tokens=14), "steps": 8}
    expected = sample(ours_on(shallow, **inputs), **sampling)
    ours = sample(compiled(ours_on(shallow, **inputs)), **sampling)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert graphs_and_breaks() == (graphs, {})


@pytest.mark.parametrize(
    "inputs",
    [
        {"schedule": "linear fade-out", "blocks": "0:2, 1[1], s0"},
        {"schedule": "linear fade-out", "blocks": "1:2, s0[1]", "reach": "output", "renew_every": 1},
    ],
    ids=["attention", "output"],
)
def test_a_strength_that_changes_at_each_step_is_one_graph(shallow, inputs):
    expected = sample(ours_on(shallow, **inputs), POSITIVE, steps=8)
    ours = sample(compiled(ours_on(shallow, **inputs)), POSITIVE, steps=8)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert graphs_and_breaks() == (1, {})


def test_a_step_of_strength_0_costs_one_recompile(shallow):
    """The bell is 0 at the first step: off and on are two graphs, as with a window."""
    sample(compiled(ours_on(shallow, schedule="bell")), POSITIVE, steps=6)
    assert graphs_and_breaks() == (2, {})


@pytest.mark.parametrize("inputs", [{}, {"reach": "double blocks", "blocks": "1", "renew_every": 1}])
def test_a_recorded_model_is_one_graph(shallow, inputs):
    from nag_pag_flux.nagpag.diagnostics.record import Record
    from nag_pag_flux.nagpag.diagnostics.recording import record_model

    expected, ours = Record(), Record()
    sample(record_model(ours_on(shallow, **inputs), expected), POSITIVE)
    torch._dynamo.reset()
    sample(compiled(record_model(ours_on(shallow, **inputs), ours)), POSITIVE)
    assert graphs_and_breaks() == (1, {})
    for one, other in zip(ours.recordings[0].rows, expected.recordings[0].rows, strict=True):
        assert one[:6] == other[:6] and one[6:11] == pytest.approx(other[6:11], rel=1e-3, abs=1e-3)


# --- as the host's own node compiles, and beside what breaks the graph ---


@pytest.mark.parametrize(
    "inputs",
    [
        {"start_percent": 0.3, "end_percent": 0.7},
        {"reach": "double blocks", "blocks": "1", "renew_every": 2},
    ],
    ids=["window", "renewal"],
)
def test_the_hosts_node_draws_what_is_asked_for(shallow, inputs, caplog):
    """It has no guards on what patches a model: no step compiled for another model, or another step, is run."""
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

    def compiled_as_its_node_does(model):
        model = model.clone()
        set_torch_compile_wrapper(model, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict})
        return model

    plain = sample(shallow, POSITIVE, steps=4)
    for model in (ours_on(shallow, **inputs), shallow, ours_on(shallow, **inputs, scale=1.0)):
        caplog.clear()
        expected = sample(model, POSITIVE, steps=4)
        ours = sample(compiled_as_its_node_does(model), POSITIVE, steps=4)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
        said = [r.getMessage() for r in caplog.records if r.name == "nag_pag_flux" and r.levelname == "WARNING"]
        assert len(said) == (model is not shallow) and all("torch.compile is left out" in one for one in said)
    assert not torch.equal(expected, plain)


def test_blocks_that_break_the_graph_are_no_versions_of_one(flux, monkeypatch):
    """Where each block is compiled by itself (EasyCache, block caches) one more is no version more of our code.

    Of three blocks, which would be two versions more.
    """
    modules = flux.model.diffusion_model._modules
    monkeypatch.setitem(modules, "double_blocks", modules["double_blocks"][:3])
    monkeypatch.setitem(modules, "single_blocks", modules["single_blocks"][:1])
    versions, of_host = Counter(), Counter()

    class Counting(logging.Handler):
        def emit(self, record):
            found = re.search(r"Recompiling function (\w+) in (\S+):\d+", record.getMessage())
            if found:
                (versions if "nagpag" in found[2] else of_host)[found[1]] += 1

    def breaks(*args, **kwargs):
        torch._dynamo.graph_break()
        return attention_pytorch(*args, **kwargs)

    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", breaks)
    torch._logging.set_logs(recompiles=True)
    logger, handler = logging.getLogger("torch._dynamo.guards.__recompiles"), Counting()
    logger.addHandler(handler)
    try:
        ours = sample(compiled(guided(flux, blocks="0-2")), POSITIVE, steps=2, size=(1, 4, 4))
    finally:
        logger.removeHandler(handler)
        torch._logging.set_logs()
    expected = sample(guided(flux, blocks="0-2"), POSITIVE, steps=2, size=(1, 4, 4))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert of_host and max(versions.values(), default=0) <= 1, versions
