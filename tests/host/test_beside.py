"""Where nothing is disturbed, whatever else is on the model gives what it gives alone: h⁺ − h⁻ holds what we disturb.

A perturbation this small is no disturbance, and no scale can make one of it; but every line of a branch runs.
"""

import itertools
import types

import pytest
import torch
from comfy_extras.nodes_nag import NAGuidance
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from comparing import residuals
from core_nodes import applied, found, runs_here
from sampling import guided, prompt, sample

VANISHING = {"perturbation": 1e-30, "renew_every": 2, "scale": 5.0, "tau": 10.0, "alpha": 1.0}
MET = [("before", "output", 3.0), ("behind", "double blocks", 3.0), ("behind", "output", 1.0)]


def naguidance(model):
    return NAGuidance.execute(model, 5.0, 0.5, 1.5).args[0]


def skip_layers(model):
    return SkipLayerGuidanceDiT.execute(model, 3.0, 0.0, 1.0, "2", "1").args[0]


def skip_the_first_and_the_last(model):
    return SkipLayerGuidanceDiT.execute(model, 3.0, 0.0, 1.0, "1", "1").args[0]


def attention_by_kind(model):
    """Sharper attention in the prompt's rows, where there are others beside them."""

    def sharper(q, k, v, extra_options, **kwargs):
        kinds = extra_options["cond_or_uncond"]
        size = len(q) // len(kinds)
        factors = [1.5 if kind == 0 and len(kinds) > 1 else 0.8 for kind in kinds for _ in range(size)]
        return {"q": q * torch.tensor(factors)[:, None, None, None]}

    model = model.clone()
    model.set_model_attn1_patch(sharper)
    return model


def attention_in_and_out(model):
    """One function notes what the other uses; and each second call of all is another one."""
    note, calls = 0.0, 0

    def goes_in(q, k, v, extra_options, **kwargs):
        nonlocal note, calls
        note, calls = q.mean(), calls + 1
        return {}

    def comes_out(out, extra_options):
        return out * (1.2 if calls % 2 else 0.9) + note

    model = model.clone()
    model.set_model_attn1_patch(goes_in)
    model.set_model_attn1_output_patch(comes_out)
    return model


def a_running_mean(model):
    """Each block's attention is mixed with what it was in the step before, which a method keeps."""
    state = types.SimpleNamespace(kept={})

    class Mean:
        def mixed(self, out, extra_options):
            key = extra_options["block_type"], extra_options["block_index"], tuple(extra_options["cond_or_uncond"])
            out = 0.5 * (out + state.kept.get(key, out))
            state.kept[key] = out.clone()
            return out

    model = model.clone()
    model.set_model_attn1_output_patch(Mean().mixed)
    return model


def an_override_across_rows(model):
    def across(func, *args, **kwargs):
        z = func(*args, **kwargs)
        return z + 0.3 * z.mean(dim=0, keepdim=True)

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = across
    return model


def replaced_blocks(model):
    """Blocks that do more than the host's, and call what was there."""
    model = model.clone()
    for slot in (("double_block", 2), ("double_block", 3), ("single_block", 0)):
        there = model.model_options["transformer_options"].get("patches_replace", {}).get("dit", {}).get(slot)

        def more(args, extra, there=there):
            args = {**args, "img": args["img"] * 0.9}
            out = there(args, extra) if there else extra["original_block"](args)
            return {**out, "img": 1.1 * out["img"] + out["img"].mean(dim=0, keepdim=True)}

        model.set_model_patch_replace(more, "dit", *slot)
    return model


def another_text_and_picture(model):
    def adds(inputs):
        return {**inputs, "txt": inputs["txt"] + 1, "img": inputs["img"] * 1.1}

    model = model.clone()
    model.set_model_post_input_patch(adds)
    return model


PATCHES = [
    naguidance,
    skip_layers,
    skip_the_first_and_the_last,
    attention_by_kind,
    attention_in_and_out,
    a_running_mean,
    an_override_across_rows,
    replaced_blocks,
    another_text_and_picture,
]


def both(patch, model, order, **inputs):
    inputs = {"blocks": "1", **VANISHING, **inputs}
    return guided(patch(model), **inputs) if order == "before" else patch(guided(model, **inputs))


@pytest.fixture(scope="module")
def alone(flux64):
    """What a patch gives by itself, each sampled once."""
    kept = {}

    def by_itself(patch, positive, negative, cfg):
        key = patch, cfg, len(negative[0][1]), negative[0][0].sum().item()
        if key not in kept:
            kept[key] = sample(patch(flux64), positive, negative, cfg=cfg)
        return kept[key]

    return by_itself


def assert_same(found, alone):
    assert torch.isfinite(alone).all() and (found - alone).abs().max() <= 1e-4 * alone.abs().max()


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
@pytest.mark.parametrize("order, reach, cfg", MET)
def test_a_patch_has_its_own_effect_once(flux64, alone, patch, order, reach, cfg, caplog):
    prompts = prompt(1, control=residuals(flux64), control_apply_to_uncond=True), prompt(2)
    found = sample(both(patch, flux64, order, reach=reach), *prompts, cfg=cfg)
    assert_same(found, alone(patch, *prompts, cfg))
    assert "WARNING" not in {record.levelname for record in caplog.records}


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
def test_the_prompt_as_its_own_negative_leaves_a_patch_its_effect(flux64, alone, patch):
    inputs = {"reach": "double blocks", "negative_prompt": "sampler's", "perturbation": 0.0}
    found = sample(both(patch, flux64, "behind", **inputs), prompt(1), prompt(1), cfg=3.0)
    assert_same(found, alone(patch, prompt(1), prompt(1), 3.0))


def test_a_negative_prompt_of_another_length_does_not_go_with_a_patch_that_looks_at_the_batch(flux, caplog):
    """Its rows can't stand in one batch with the others; at cfg 1 there are no others."""
    inputs = {"reach": "output", "negative_conditioning": prompt(3, tokens=14), "negative_prompt": "sampler's"}
    ours = guided(naguidance(flux), **inputs)
    assert torch.equal(
        sample(ours, prompt(1), prompt(2), cfg=3.0), sample(naguidance(flux), prompt(1), prompt(2), cfg=3.0)
    )
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "another patch acts on all of a batch" in said and "9 tokens and the negative one 14" in said


@pytest.mark.parametrize(
    "name, met", list(zip(sorted(name for name in found() if runs_here(name)), itertools.cycle(MET), strict=False))
)
def test_every_core_node_has_its_own_effect_once(flux, name, met):
    order, reach, cfg = met
    ours = both(lambda model: applied(name, model), flux, order, reach=reach)
    by_itself, found = (sample(model, prompt(1), prompt(2), cfg=cfg, steps=2) for model in (applied(name, flux), ours))
    assert_same(found, by_itself)
