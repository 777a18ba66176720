"""ComfyUI's own TorchCompileModel beside reach prediction: what is compiled stays, and no graph of another step is run.

That node drops torch's guards on the options that patches travel in.
"""

import logging

import comfy.ldm.flux.math
import pytest
import torch
from by_prediction import basic_guider, cfg_guider, draw
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_torch_compile import TorchCompileModel, set_torch_compile_wrapper, skip_torch_compile_dict
from sampling import guided, prompt
from torch._dynamo.utils import counters

LOGGER = "nag_pag_flux"
NEGATIVES = {"equal": prompt(2), "longer": prompt(2, tokens=14)}
AT_PREDICTION = {
    "blocks": "0-1",
    "reach": "prediction",
    "negative_prompt": "sampler's",
    "perturbation": 1.0,
    "tau": 1.75,
    "alpha": 0.4,
    "renew_every": 3,
    "start_percent": 0.2,
}


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch, caplog):
    # What the host takes on a GPU. Its attention for the CPU asks for free memory, which breaks the graph by itself.
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    caplog.set_level(logging.INFO, logger=LOGGER)


class Compiled:
    """The node's work, with a backend that counts how often a graph is run; and the forwards of the model."""

    def __init__(self, keys=("diffusion_model",)):
        self.keys, self.ran, self.forwards = list(keys), 0, 0

    def backend(self, graph, inputs):
        def run(*args):
            self.ran += 1
            return graph(*args)

        return run

    def on(self, model):
        model = model.clone()
        model.add_wrapper(WrappersMP.APPLY_MODEL, self.count)
        options = {"guard_filter_fn": skip_torch_compile_dict}
        set_torch_compile_wrapper(model, backend=self.backend, options=options, keys=self.keys)
        return model

    def count(self, executor, *args, **kwargs):
        self.forwards += 1
        return executor(*args, **kwargs)


def ours_on(model, **inputs):
    return guided(model, **{**AT_PREDICTION, **inputs})


def in_order(compiled, model, ours_first, **inputs):
    return compiled.on(ours_on(model, **inputs)) if ours_first else ours_on(compiled.on(model), **inputs)


def left_out(caplog):
    """How often it was said; nothing else is warned of."""
    said = [r.getMessage() for r in caplog.records if r.name == LOGGER and r.levelno == logging.WARNING]
    return sum("torch.compile is left out where guidance works inside the model" in one for one in said)


def close(found, expected, plain):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3 and (found - expected).abs().max() <= 1e-3 * effect


def test_the_stand_in_is_what_the_node_does(shallow):
    """So that it may have another backend than those that the node lists."""
    by_node = TorchCompileModel.execute(shallow, "inductor").args[0].model_options["torch_compile_kwargs"]
    by_hand = Compiled().on(shallow).model_options["torch_compile_kwargs"]
    assert {**by_node, "backend": None} == {**by_hand, "backend": None}


@pytest.mark.parametrize(
    "negative, cfg, ours_first",
    [("equal", 1.0, True), ("longer", 1.0, False), ("equal", 2.0, False), ("longer", 2.0, True)],
)
def test_each_forward_runs_what_is_compiled(shallow, negative, cfg, ours_first, caplog):
    """Also where the plain model was compiled and drawn with before."""

    def drawn(model):
        return draw(cfg_guider(model, negative=NEGATIVES[negative], cfg=cfg), steps=6)

    compiled, plain = Compiled(), drawn(shallow)
    drawn(compiled.on(shallow))
    close(drawn(in_order(compiled, shallow, ours_first)), drawn(ours_on(shallow)), plain)
    assert compiled.ran == compiled.forwards > 0 and not left_out(caplog)


def test_blocks_that_are_compiled_by_themselves_stay_too(shallow, caplog):
    """As KJNodes' compile nodes do."""
    blocks = [f"diffusion_model.double_blocks.{i}" for i in range(2)]
    compiled, plain = Compiled(blocks), draw(cfg_guider(shallow))
    found = draw(cfg_guider(in_order(compiled, shallow, ours_first=False)))
    close(found, draw(cfg_guider(ours_on(shallow))), plain)
    assert compiled.ran == 2 * compiled.forwards > 0 and not left_out(caplog)


@pytest.mark.parametrize("ours_first", [True, False])
def test_from_one_sampling_to_the_next_no_graph_is_taken_for_another(shallow, ours_first, caplog):
    """One patched model, with a negative prompt and without: there the evaluations that are disturbed run eagerly."""
    compiled, eager = Compiled(), ours_on(shallow)
    model = in_order(compiled, shallow, ours_first)
    for guider, disturbed in ((cfg_guider, 0), (basic_guider, 2), (cfg_guider, 0), (basic_guider, 2)):
        compiled.ran = compiled.forwards = 0
        caplog.clear()
        found = draw(guider(model), steps=6)
        assert left_out(caplog) == (disturbed > 0) and compiled.forwards - compiled.ran == disturbed
        close(found, draw(guider(eager), steps=6), draw(guider(shallow), steps=6))


def losing(guider, step):
    """A guider whose negative prompt is gone after the so manieth evaluation."""
    plain, calls = guider.predict_noise, []

    def predict_noise(*args, **kwargs):
        calls.append(None)
        if len(calls) >= step:
            guider.conds["negative"] = []
        return plain(*args, **kwargs)

    guider.predict_noise = predict_noise
    return guider


def test_a_negative_prompt_that_is_gone_on_the_way_leaves_no_wrong_graph(shallow, caplog):
    compiled, inputs = Compiled(), {"renew_every": 1}
    model = in_order(compiled, shallow, True, **inputs)
    found, whole = draw(losing(cfg_guider(model), 3), steps=6), draw(cfg_guider(ours_on(shallow, **inputs)), steps=6)
    assert left_out(caplog) == 1 and compiled.forwards - compiled.ran == 3
    expected = draw(losing(cfg_guider(ours_on(shallow, **inputs)), 3), steps=6)
    close(found, expected, draw(cfg_guider(shallow), steps=6))
    close(found, expected, whole)


def test_two_of_ours_both_leave_it(shallow, caplog):
    inputs = {"negative_prompt": "off", "scale": 1.0}
    compiled, plain = Compiled(), draw(cfg_guider(shallow))
    found = draw(cfg_guider(in_order(compiled, ours_on(shallow, **inputs), False)))
    close(found, draw(cfg_guider(ours_on(ours_on(shallow, **inputs)))), plain)
    assert 0 < compiled.forwards - compiled.ran < compiled.ran and left_out(caplog) == 1


def test_with_a_backend_that_rewrites_the_graph(shallow, caplog):
    """As inductor has it before it writes code, which takes minutes on a busy machine."""
    model = ours_on(shallow)
    options = {"guard_filter_fn": skip_torch_compile_dict}
    set_torch_compile_wrapper(model, backend="aot_eager", options=options, keys=["diffusion_model.single_blocks.0"])
    close(draw(cfg_guider(model)), draw(cfg_guider(ours_on(shallow))), draw(cfg_guider(shallow)))
    assert counters["stats"]["unique_graphs"] > 0 and not left_out(caplog)
