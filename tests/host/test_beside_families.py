"""Families beside FLUX: compiled, beside patches that change a block's result in place, and in longer videos."""

import dataclasses
import inspect

import comfy.ldm.hunyuan_video.model as hunyuan
import comfy.ldm.modules.attention
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from families_oracle import SecondForward, disturbed_attention, guided_in_attention
from nag_pag_flux.lab.toy import small_families
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from other_families import HERE, attention_module, prompt, sample
from sampling import guided
from torch._dynamo.utils import counters

FIRST = [case for case in HERE if not case.another]
WITH_BRANCHES = [case for case in FIRST if "output" in case.reaches]
ALL = pytest.mark.parametrize("case", FIRST, ids=str)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A small model, loaded once."""
    loaded, folder = {}, tmp_path_factory.mktemp("families")

    def load(case):
        if case.small not in loaded:
            path = folder / f"{case.small}.safetensors"
            small_families.make_small(case.small, path)
            loaded[case.small] = small_families.load_small(case.small, path)
        return loaded[case.small]

    return load


def same_effect(ours, expected, plain):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3 and (ours - expected).abs().max() <= 1e-3 * effect + 1e-6


# --- torch.compile ---


def compiled(case, model, monkeypatch):
    """By the host's own wrapper, with a GPU's attention: the CPU's asks for free memory, which breaks the graph."""
    for name in case.attention.split():
        monkeypatch.setattr(attention_module(case), name, comfy.ldm.modules.attention.attention_pytorch)
    # The refiner of its text looks it up in a place of its own.
    monkeypatch.setattr(hunyuan, "optimized_attention", comfy.ldm.modules.attention.attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    model = model.clone()
    set_torch_compile_wrapper(model, backend="eager", dynamic=False)
    return model


@ALL
def test_compiled_it_draws_the_same_in_no_more_graphs_than_there_are_kinds_of_steps(case, load, monkeypatch):
    """A step that computes a branch and one that reuses it are two. Of one block, as each takes a while to compile."""
    modules = load(case).model.diffusion_model._modules
    monkeypatch.setitem(modules, case.stack, modules[case.stack][:1])
    branch = {"reach": "output", "negative_prompt": "sampler's", "renew_every": 2}
    inputs, kinds = (branch, 2) if case in WITH_BRANCHES else ({}, 1)
    sampling = {"positive": prompt(case, 1), "negative": prompt(case, 2, 14), "steps": 3}
    expected = sample(case, guided(load(case), blocks="0", **inputs), **sampling)
    ours = sample(case, compiled(case, guided(load(case), blocks="0", **inputs), monkeypatch), **sampling)
    graphs, breaks = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
    assert (expected - sample(case, load(case), **sampling)).abs().max() > 1e-2
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    plain = 1, {}
    if breaks:  # LTX-2's own forward breaks its graph, too
        sample(case, compiled(case, load(case), monkeypatch), **sampling)
        plain = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
    assert (graphs - kinds + 1, breaks) == plain


# --- patches between the blocks ---


def calls_patches(case):
    """Whether its forward does, on this ComfyUI: Wan's came to it later than Wan itself."""
    return '"double_block" in patches' in inspect.getsource(attention_module(case))


PATCHED = [case for case in FIRST if calls_patches(case)]


def added_in_place(model):
    """The model with a patch as ControlNets of other packs are: it adds to what a block gave, and gives that back."""

    def patch(args):
        img, block = args["img"], args["block_index"]
        img += 0.2 * torch.sin(torch.arange(img.shape[-1]) * (block + 1))
        return args

    model = model.clone()
    model.set_model_patch(patch, "double_block")
    return model


@pytest.mark.parametrize("case", PATCHED, ids=str)
def test_what_a_patch_adds_in_place_stays_beside_guided_attention(case, load):
    model, sampling = added_in_place(load(case)), (prompt(case, 1), prompt(case, 2, 14), 2, 3.0)
    ours, plain = sample(case, guided(model, blocks="1-3"), *sampling), sample(case, model, *sampling)
    with guided_in_attention(case, (1, 2, 3), "identity").at_work():
        same_effect(ours, sample(case, model, *sampling), plain)
    assert (plain - sample(case, load(case), *sampling)).abs().max() > 1e-2


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("case", [case for case in PATCHED if case in WITH_BRANCHES], ids=str)
def test_a_branch_goes_through_what_a_patch_adds_in_place(case, load, every):
    model = added_in_place(load(case))
    sampling = (prompt(case, 1), prompt(case, 2, 14), 2, 3.0, 4)
    ours = sample(case, guided(model, blocks="1-2", reach_blocks=1, renew_every=every, perturbation=0.5), *sampling)
    oracle = SecondForward(case, model, 2, disturbed=disturbed_attention(case, (1, 2), "identity", 0.5), every=every)
    same_effect(ours, sample(case, oracle.patched(model), *sampling), sample(case, model, *sampling))


# --- videos ---

VIDEOS = [case for case in FIRST if len(case.grid) == 3 and case.grid[0] > 1]


@pytest.mark.parametrize("case", VIDEOS, ids=str)
def test_what_is_recorded_does_not_grow_with_the_frames_but_for_the_map(case, load):
    """Of each step and block a row of numbers; the map has each frame below the one before."""
    found = {}
    for frames in (2, 5):
        channels, _, *sides = case.latent
        longer = dataclasses.replace(case, latent=(channels, frames, *sides))
        record = Record()
        model = record_model(guided(load(case), blocks="1, 2"), record)
        sample(longer, model, prompt(case, 1), prompt(case, 2), 1, 1.0, 3)
        (found[frames],) = record.recordings
    few, many = found[2], found[5]
    assert [len(row) for row in few.rows] == [len(row) for row in many.rows] and len(few.rows) == 3 * 2
    assert all(isinstance(value, (int, float, str, type(None))) for row in many.rows for value in row)
    height, width = case.grid[1:]
    assert {frames: [tuple(one.shape) for one in found[frames].maps.values()] for frames in found} == {
        2: [(2 * height, width)] * len(few.maps),
        5: [(5 * height, width)] * len(many.maps),
    }
