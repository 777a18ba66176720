"""ComfyUI's own nodes beside ours that nobody tried before: guided where it should be, theirs to the bit at scale 0."""

import gc
import logging

import comfy.ldm.flux.math
import comfy.sample
import comfy.samplers
import folder_paths
import nodes
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy_extras import nodes_hooks, nodes_model_patch, nodes_torch_compile
from comfy_extras.nodes_model_merging_model_specific import ModelMergeFlux1
from nag_pag_flux.lab.toy.small_models import Weights, make_flux
from safetensors.torch import load_file, save_file
from sampling import guided, latent, load_flux, prompt, sample
from torch._dynamo.utils import counters

POSITIVE, NEGATIVE = prompt(1), prompt(2)
REACHES = [{}, {"reach": "double blocks", "renew_every": 2}]


def run_node(cls, **inputs):
    """A node called as the host calls it, of either schema; its first output."""
    if hasattr(cls, "define_schema"):
        return cls.execute(**inputs).args[0]
    return getattr(cls(), cls.FUNCTION)(**inputs)[0]


# --- TorchCompileModel ---


@pytest.fixture
def compile_model(monkeypatch):
    """The node, with a backend that runs the captured graph as it is: capturing is what guidance could break."""
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    return lambda model: run_node(nodes_torch_compile.TorchCompileModel, model=model, backend="eager")


@pytest.mark.parametrize("ours_last", [True, False])
@pytest.mark.parametrize("inputs", REACHES)
def test_torch_compile_model_draws_the_same(flux, compile_model, inputs, ours_last):
    expected = sample(guided(flux, **inputs), POSITIVE, steps=5)
    model = guided(compile_model(flux), **inputs) if ours_last else compile_model(guided(flux, **inputs))
    torch.testing.assert_close(sample(model, POSITIVE, steps=5), expected, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] and not counters["graph_break"]


if __name__ == "__main__":
    pass
