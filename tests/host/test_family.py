"""The other models of the family: FLUX.2 and Chroma, small, of random weights, through the host's own loader."""

import logging

import comfy.model_detection
import comfy.sample
import pytest
import torch
from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from family import CHROMA, FLUX2, load
from oracle import guided_host
from own_forward import OwnForward
from sampling import guided, prompt


@pytest.fixture(scope="module")
def flux2():
    return load(Flux, FLUX2)


@pytest.fixture(scope="module")
def chroma():
    """The loader takes Chroma's sizes of the small network that makes its modulations as given; ours are smaller."""
    with pytest.MonkeyPatch.context() as patched:
        detect = comfy.model_detection.detect_unet_config
        smaller = {"out_dim": 256, "hidden_dim": 64}
        patched.setattr(comfy.model_detection, "detect_unet_config", lambda *a, **k: {**detect(*a, **k), **smaller})
        yield load(Chroma, CHROMA)


def sample(model, cfg=2.0, steps=1, **extra):
    """Two pictures, CFG with prompts of equal length: both kinds in one batch."""
    start = torch.zeros(2, model.model.latent_format.latent_channels, 8, 12)
    noise = comfy.sample.prepare_noise(start, 7)
    prompts = prompt(1, **extra), prompt(2, **extra)
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", *prompts, start, disable_pbar=True, seed=7)


REFERENCE = {"reference_latents": [torch.randn(1, 128, 4, 6, generator=torch.Generator().manual_seed(3))]}
CASES = [("flux2", 96, 0, {}), ("flux2", 96, 24, REFERENCE), ("chroma", 24, 0, {})]


@pytest.fixture(scope="module")
def plain():
    """What a model draws by itself, drawn once."""
    drawn = {}

    def plain(name, model, extra, steps=1):
        key = name, steps, *extra
        if key not in drawn:
            drawn[key] = sample(model, steps=steps, **extra)
        return drawn[key]

    return plain


@pytest.mark.parametrize("name, tokens, references, extra", CASES)
def test_attention_is_guided_as_the_oracle_does_it(request, plain, name, tokens, references, extra):
    model, blocks = request.getfixturevalue(name), (1, 2, 3, ("single", 1))
    ours = sample(guided(model, blocks="1-3, s1"), **extra)
    with guided_host(blocks, tokens, references) as calls:
        expected = sample(model, **extra)
    effect = (expected - plain(name, model, extra)).abs().max()
    assert len(calls) == len(blocks) and effect > 1e-3
    assert (ours - expected).abs().max() <= 1e-3 * effect + 1e-6


@pytest.mark.parametrize("name, extra", [("flux2", {}), ("flux2", REFERENCE), ("chroma", {})])
@pytest.mark.parametrize("reach", ["double blocks", "output"])
def test_a_branch_is_the_same_whether_or_not_the_host_splits_the_work(request, plain, monkeypatch, name, extra, reach):
    """Modulations and references come cut to the branch's rows, in whatever form a model has them.

    In two steps: one that computes the branch, and one that reuses it.
    """
    model = request.getfixturevalue(name)
    together = sample(guided(model, blocks="1", reach=reach), steps=2, **extra)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e18)
    apart = sample(guided(model, blocks="1", reach=reach), steps=2, **extra)
    effect = (apart - plain(name, model, extra, 2)).abs().max()
    assert effect > 1e-3 and (together - apart).abs().max() <= 1e-3 * effect


AT_ZERO = {**REFERENCE, "reference_latents_method": "index_timestep_zero"}
# The host pads FLUX.2's texts to 512 tokens, so that only longer ones differ in length, and pictures are dear.
NEGATIVES = [
    ("flux2", 96, {}, 515, 1),
    ("flux2", 96, REFERENCE, 515, 2),
    ("flux2", 96, AT_ZERO, 9, 1),
    ("chroma", 24, {}, 9, 2),
    ("chroma", 24, {}, 13, 2),
]


@pytest.mark.parametrize("name, tokens, extra, length, batch", NEGATIVES)
@pytest.mark.parametrize("reach, merge", [("double blocks", 3), ("output", 5)])
def test_a_negative_prompt_is_carried_as_its_own_forward_would(
    request, name, tokens, extra, reach, merge, length, batch
):
    """FLUX.2's text has positions of its own, and neither family has a pooled vector."""
    model, negative = request.getfixturevalue(name), prompt(3, tokens=length)
    ours, plain = (sample_at_cfg_1(one, extra, negative, batch) for one in (carrying(model, reach), model))
    expected = sample_at_cfg_1(OwnForward(model, negative, merge, tokens).patched(model), extra, negative, batch)
    effect = (expected - plain).abs().max()
    assert effect > 1e-3 and (ours - expected).abs().max() <= 1e-3 * effect


def carrying(model, reach):
    inputs = {"scale": 3.0, "tau": 1.5, "alpha": 0.15, "perturbation": 0.0, "reach": reach, "renew_every": 1}
    return guided(model, negative_prompt="sampler's", **inputs)


def sample_at_cfg_1(model, extra, negative, batch=1):
    start = torch.zeros(batch, model.model.latent_format.latent_channels, 8, 12)
    noise = comfy.sample.prepare_noise(start, 7)
    return comfy.sample.sample(
        *(model, noise, 1, 1.0, "euler", "simple", prompt(1, **extra), negative, start), disable_pbar=True, seed=7
    )


def test_lengths_that_differ_beside_references_at_timestep_zero(flux2, caplog):
    """There the host's single blocks know the picture's place by the prompt's own length."""
    negative = prompt(3, tokens=515)
    plain = sample_at_cfg_1(flux2, AT_ZERO, negative)
    expected = sample_at_cfg_1(OwnForward(flux2, negative, 3, 96).patched(flux2), AT_ZERO, negative)
    ours = sample_at_cfg_1(carrying(flux2, "double blocks"), AT_ZERO, negative)
    effect = (expected - plain).abs().max()
    assert effect > 1e-3 and (ours - expected).abs().max() <= 1e-3 * effect
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert torch.equal(sample_at_cfg_1(carrying(flux2, "output"), AT_ZERO, negative), plain)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "the prompt has 512 tokens and the negative one 515. Take reach double blocks" in said
