"""Whole samplings by the node against the oracle that guides inside the host's own layers."""

import pytest
import torch
from comparing import BLOCKS, assert_same_effect
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED
from nag_pag_flux.nodes.guidance import NAGPAGGuidance, NAGPAGGuidanceAdvanced
from oracle import guided_host
from sampling import guided, latent, load_flux, picture_tokens, prompt, sample

POSITIVE = prompt(1)


def check(model, tokens=None, references=0, on=lambda sigma: True, inputs=None, tolerance=1e-4, **sampling):
    """Sample plain, by the node and by the oracle, in two steps; return the oracle's calls."""
    inputs = inputs or {}
    strengths = {name: inputs[name] for name in ("scale", "tau", "alpha") if name in inputs}
    size = sampling.get("size", (1, 8, 12))
    tokens = tokens or picture_tokens(*size[1:])
    sampling = {"positive": POSITIVE, "steps": 2, **sampling}
    plain = sample(model, **sampling)
    ours = sample(guided(model, **inputs), **sampling)
    with guided_host(BLOCKS, tokens, references, on=on, **strengths) as calls:
        expected = sample(model, **sampling)
    assert_same_effect(ours.float(), expected.float(), plain.float(), tolerance)
    return calls


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_any_batch(flux, batch):
    calls = check(flux, size=(batch, 8, 12))
    assert len(calls) == 2 * len(BLOCKS) and {rows for *_, rows in calls} == {batch}


def test_odd_sizes_are_padded_to_whole_patches(flux):
    check(flux, size=(2, 9, 13))


@pytest.mark.parametrize("inputs", [{"scale": 0.5}, {"tau": 1.0}, {"alpha": 1.0}, {"scale": 10.0, "tau": 10.0}])
def test_strengths(flux, inputs):
    check(flux, inputs=inputs, tolerance=1e-3)


def test_cfg_with_prompts_of_equal_length_in_one_batch(flux):
    calls = check(flux, cfg=2.0, negative=prompt(2), size=(3, 8, 12))
    assert {rows for *_, rows in calls} == {3} and len(calls) == 2 * len(BLOCKS)


def test_cfg_with_prompts_of_unequal_length(flux):
    calls = check(flux, cfg=2.0, negative=prompt(2, tokens=14), size=(2, 8, 12))
    assert {rows for *_, rows in calls} == {0, 2}


def test_cfg_where_the_host_splits_the_work(flux, monkeypatch):
    monkeypatch.setattr(flux.model, "memory_required", lambda *args, **kwargs: 1e18)
    calls = check(flux, cfg=2.0, negative=prompt(2), size=(2, 8, 12))
    assert {rows for *_, rows in calls} == {0, 2}


def test_cfg_leaves_unconditional_rows_alone(flux):
    """The negative prompt's own prediction, as the sampler sees it, is the plain model's to the bit."""
    seen = []

    def watch(args):
        seen.append(args["uncond_denoised"].clone())
        return args["denoised"]

    for model in (flux, guided(flux)):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(watch)
        sample(model, POSITIVE, prompt(2), cfg=2.0, steps=1)
    assert torch.equal(seen[0], seen[1])


def test_two_conditional_prompts(flux):
    check(flux, positive=prompt(1) + prompt(3), cfg=2.0, negative=prompt(2))


def test_areas(flux):
    left, right = prompt(1, area=(8, 6, 0, 0)), prompt(3, area=(8, 6, 0, 6))
    check(flux, positive=left + right, tokens=picture_tokens(8, 6))


@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
def test_reference_latents(flux, method):
    references = [latent(height=6, width=8, seed=20), latent(height=4, width=4, seed=21)]
    positive = prompt(1, reference_latents=references, reference_latents_method=method)
    check(flux, positive=positive, references=12 + 4, size=(2, 8, 12))


def test_attention_mask(flux):
    tokens = 9 + picture_tokens()
    mask = torch.randn(1, tokens, tokens, generator=torch.Generator().manual_seed(0))
    positive = prompt(1, attention_mask=mask, attention_mask_img_shape=(4, 6))
    masked = sample(flux, positive)
    assert not torch.equal(masked, sample(flux, POSITIVE))
    check(flux, positive=positive)


def test_start_and_end_percent(flux):
    sampling = flux.get_model_object("model_sampling")
    start, end = sampling.percent_to_sigma(0.3), sampling.percent_to_sigma(0.7)
    inputs = {"start_percent": 0.3, "end_percent": 0.7}
    calls = check(flux, inputs=inputs, on=lambda sigma: end <= sigma <= start, steps=8)
    assert 0 < len({sigma for _, sigma, _ in calls}) < 8


def test_percent_follows_a_shift_set_after_the_node(flux):
    """ModelSamplingFlux behind our node changes which sigma a percent means."""
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    def shifted(model):
        return ModelSamplingFlux().patch(model, max_shift=3.0, base_shift=0.5, width=1024, height=1024)[0]

    model_sampling = shifted(flux).get_model_object("model_sampling")
    end = model_sampling.percent_to_sigma(0.5)
    ours = sample(shifted(guided(flux, end_percent=0.5)), POSITIVE, steps=8)
    with guided_host(BLOCKS, picture_tokens(), on=lambda sigma: sigma >= end) as calls:
        expected = sample(shifted(flux), POSITIVE, steps=8)
    assert_same_effect(ours, expected, sample(shifted(flux), POSITIVE, steps=8))
    assert 0 < len({sigma for _, sigma, _ in calls}) < 8


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_types(flux_file, dtype, tolerance):
    model = load_flux(flux_file, dtype)
    assert model.model.get_dtype() == dtype
    check(model, size=(2, 8, 12), tolerance=tolerance)


def test_quantised_weights(flux_file):
    """Weights in float8, cast by the host as each layer needs them."""
    model = load_flux(flux_file, torch.float8_e4m3fn)
    assert model.model.diffusion_model.double_blocks[0].img_attn.qkv.weight.dtype == torch.float8_e4m3fn
    check(model, size=(2, 8, 12), tolerance=0.1)


def test_a_lora_loaded_behind_the_node(flux):
    """The host adds LoRA to the weights; a patch of its kind, put on the guided model and on the plain one."""
    key = "diffusion_model.double_blocks.2.img_attn.qkv.weight"
    change = (torch.randn(768, 256, generator=torch.Generator().manual_seed(0)) / 16,)

    def with_lora(model):
        model = model.clone()
        assert model.add_patches({key: change}, 0.5) == [key]
        return model

    ours, plain = sample(with_lora(guided(flux)), POSITIVE), sample(with_lora(flux), POSITIVE)
    with guided_host(BLOCKS, picture_tokens()):
        expected = sample(with_lora(flux), POSITIVE)
    assert_same_effect(ours, expected, plain)
    assert not torch.equal(ours, sample(guided(flux), POSITIVE))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "dpm_2"])
def test_samplers(flux, sampler):
    check(flux, sampler=sampler, tolerance=1e-3)


def test_partial_denoise(flux):
    check(flux, latent_image=latent(), denoise=0.5, steps=4)


def test_two_nodes_in_a_row_on_different_blocks(flux):
    ours = sample(guided(guided(flux, blocks="1"), blocks="2, 3"), POSITIVE)
    assert torch.equal(ours, sample(guided(flux, blocks="1-3"), POSITIVE))


def test_same_seed_same_bits(flux):
    model = guided(flux)
    assert torch.equal(sample(model, POSITIVE), sample(model, POSITIVE))
    assert torch.equal(sample(model, POSITIVE), sample(guided(flux), POSITIVE))


@pytest.mark.parametrize("inputs", [{"scale": 0.0}, {"alpha": 0.0}])
def test_off_is_the_plain_model_to_the_bit(flux, inputs):
    assert torch.equal(sample(guided(flux, **inputs), POSITIVE), sample(flux, POSITIVE))


def test_steps_outside_of_the_window_are_plain_to_the_bit(flux):
    model = guided(flux, start_percent=0.5, end_percent=0.5)
    assert torch.equal(sample(model, POSITIVE), sample(flux, POSITIVE))


def test_the_simple_node_is_the_advanced_one_at_its_defaults(flux):
    """The same latents, bit for bit, at the same settings."""
    simple = NAGPAGGuidance.execute(model=flux, scale=2.0, blocks="1, 3", start_percent=0.1, end_percent=0.9).args[0]
    inputs = {**ADVANCED.defaults, "scale": 2.0, "blocks": "1, 3", "start_percent": 0.1, "end_percent": 0.9}
    advanced = NAGPAGGuidanceAdvanced.execute(model=flux, **inputs).args[0]
    found = sample(simple, POSITIVE, steps=4)
    assert torch.equal(found, sample(advanced, POSITIVE, steps=4))
    assert not torch.equal(found, sample(flux, POSITIVE, steps=4))
