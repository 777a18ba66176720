"""Wan with references in its context, as the host's Bernini node gives them: behind the video in its own sequence."""

import dataclasses

import comfy.sd
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_bernini import BerniniConditioning
from families_oracle import SecondForward, disturbed_attention, guided_in_attention
from nag_pag_flux.lab.toy import small_families, whole_families
from other_families import WAN, prompt, sample
from sampling import guided

# Behind a video of 3 × 5 × 7 tokens stand another of its size and two pictures of 4 × 4.
CASE = dataclasses.replace(WAN, behind=105 + 2 * 16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("wan") / "wan.safetensors"
    small_families.make_small(WAN.small, path)
    return small_families.load_small(WAN.small, path)


@pytest.fixture(scope="module")
def prompts():
    """A prompt and a negative one, both with the references, by the host's own node and the small autoencoder."""
    state = comfy.utils.load_torch_file(str(whole_families.ensure_models() / whole_families.VAE_FILE))
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    video = torch.rand(9, 72, 104, 3, generator=torch.Generator().manual_seed(4))
    both = BerniniConditioning.execute(
        *(prompt(CASE, 1), prompt(CASE, 2), comfy.sd.VAE(sd=state), 104, 72, 9, 1),
        source_video=video,
        reference_images={"reference_image_0": pictures},
    ).args[:2]
    latents = both[0][0][1]["context_latents"]
    assert [tuple(one.shape[-3:]) for one in latents] == [CASE.latent[1:], (1, 8, 8), (1, 8, 8)]
    return both


def same_effect(ours, expected, plain):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3 and (ours - expected).abs().max() <= 1e-3 * effect + 1e-6


@pytest.mark.parametrize("negative", ["identity", "mean"])
def test_in_the_attention_they_are_left_alone(model, prompts, negative):
    sampling = (*prompts, 2, 3.0)
    ours, plain = (
        sample(CASE, guided(model, blocks="1-3", negative=negative), *sampling),
        sample(CASE, model, *sampling),
    )
    with guided_in_attention(CASE, (1, 2, 3), negative, CASE.behind).at_work():
        same_effect(ours, sample(CASE, model, *sampling), plain)
    without = sample(CASE, model, prompt(CASE, 1), prompt(CASE, 2), 2, 3.0)
    assert (plain - without).abs().max() > 1e-3


@pytest.mark.parametrize("carries", [False, True])
def test_a_branch_has_them_too(model, prompts, carries):
    sampling = (*prompts, 2, 3.0)
    if carries:
        inputs = {"reach": "output", "renew_every": 1, "perturbation": 0.0, "negative_prompt": "sampler's"}
        oracle = SecondForward(CASE, model, 3, negative=prompt(CASE, 2))
    else:
        inputs = {"blocks": "1-2", "reach_blocks": 1, "renew_every": 1, "perturbation": 0.5}
        disturbed = disturbed_attention(CASE, (1, 2), "identity", 0.5, CASE.behind)
        oracle = SecondForward(CASE, model, 2, disturbed=disturbed)
    ours = sample(CASE, guided(model, **inputs), *sampling)
    same_effect(ours, sample(CASE, oracle.patched(model), *sampling), sample(CASE, model, *sampling))
