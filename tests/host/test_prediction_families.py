"""Reach prediction with every family beside FLUX, against the host's own classifier-free guidance and the oracle's
attention, disturbed in a second evaluation."""

import dataclasses

import comfy.context_windows
import comfy.samplers
import pytest
import torch
from by_prediction import in_windows
from families_oracle import disturbed_attention
from nag_pag_flux.lab.toy import small_families
from other_families import HERE, noise_mask, prompt, sample
from sampling import guided

# A push by the whole difference at every step, without a limit, is classifier-free guidance.
AT_PREDICTION = {"reach": "prediction", "blocks": "auto", "tau": 10.0, "alpha": 1.0, "renew_every": 1}
FIRST = pytest.mark.parametrize("case", [case for case in HERE if not case.another], ids=str)
ALL = pytest.mark.parametrize("case", HERE, ids=str)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A small model, made and loaded once for each type."""
    folder, loaded = tmp_path_factory.mktemp("families"), {}

    def load(case, dtype=torch.float32):
        path = folder / f"{case.small}.safetensors"
        if not path.exists():
            small_families.make_small(case.small, path)
        if (case.small, dtype) not in loaded:
            loaded[case.small, dtype] = small_families.load_small(case.small, path, dtype)
        return loaded[case.small, dtype]

    return load


def extras(case):
    return case.reference or {}


def same_effect(ours, expected, plain, tolerance):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


@ALL
def test_with_a_negative_prompt_it_is_cfg(case, load):
    """Of references, given frames, keyframes, and a video's sound beside it the host makes what it makes with cfg."""
    model, prompts = load(case), (prompt(case, 1, **extras(case)), prompt(case, 2, 14, **extras(case)))
    ours = guided(model, **AT_PREDICTION, negative_prompt="sampler's", scale=1.5)
    plain, expected = (sample(case, model, *prompts, 1, cfg) for cfg in (1.0, 2.5))
    same_effect(sample(case, ours, *prompts), expected, plain, 1e-4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.1)], ids=str)
@FIRST
def test_beside_cfg_and_in_a_batch_the_strengths_add_up(case, load, dtype, tolerance):
    model, prompts = load(case, dtype), (prompt(case, 1), prompt(case, 2, 5))
    ours = guided(model, **AT_PREDICTION, negative_prompt="sampler's", scale=1.5)
    plain, expected = (sample(case, model, *prompts, 2, cfg) for cfg in (3.0, 4.5))
    same_effect(sample(case, ours, *prompts, 2, 3.0), expected, plain, tolerance)


WINDOWED = [case for case in HERE if case.small in ("LTXV", "Wan 2.1") and not case.another]
if hasattr(comfy.context_windows, "WindowingState"):
    WINDOWED += [case for case in HERE if case.small == "LTX-2" and not case.another]
else:
    print("\ntests/host/test_prediction_families.py: no windows of picture and sound, which this ComfyUI does not have")


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("case", WINDOWED, ids=str)
def test_in_context_windows_over_the_frames(case, load, cfg, caplog):
    """Where ComfyUI cuts picture and sound into them: at cfg 1 that can't be done by us, and is said."""
    case = dataclasses.replace(case, latent=(case.latent[0], 6, *case.latent[2:]))
    model, prompts = load(case), (prompt(case, 1), prompt(case, 2))
    ours = guided(model, **AT_PREDICTION, negative_prompt="sampler's", scale=1.5)
    plain, expected, found = (
        sample(case, in_windows(one, 3, 1, dim=2), *prompts, 1, strength)
        for one, strength in ((model, cfg), (model, cfg + 1.5), (ours, cfg))
    )
    if case.audio and cfg == 1:
        assert torch.equal(found, plain)
        assert "picture and sound in one latent can't be cut to context windows here, unless cfg is abo" in caplog.text
    else:
        same_effect(found, expected, plain, 1e-4)


class SecondEvaluation:
    """Before cfg: what the host predicts of the prompt, pushed away from that with an attention disturbed."""

    def __init__(self, attention, scale):
        self.attention, self.scale = attention, scale

    def patched(self, model):
        model = model.clone()
        model.set_model_sampler_pre_cfg_function(self.push)
        return model

    def push(self, given):
        first, *others = given["conds_out"]
        arguments = given["model"], given["conds"][:1], given["input"], given["timestep"], given["model_options"]
        with self.attention.at_work():
            (disturbed,) = comfy.samplers.calc_cond_batch(*arguments)
        return [first + self.scale * (first - disturbed), *others]


DISTURBED = [
    *((case, 1.0, 1, torch.float32, 1e-3) for case in HERE),
    *((case, 3.0, 2, torch.bfloat16, 0.2) for case in HERE if not case.another),
]


@pytest.mark.parametrize("case, cfg, batch, dtype, tolerance", DISTURBED, ids=str)
def test_without_one_the_chosen_blocks_attention_is_disturbed(case, load, cfg, batch, dtype, tolerance):
    """Of the picture being made alone."""
    extra, behind, ahead = (extras(case), case.behind, case.ahead) if cfg == 1 else ({}, 0, 0)
    model, prompts = load(case, dtype), (prompt(case, 1, **extra), prompt(case, 2, 12))
    own = {"blocks": "1-2", "negative": "identity + text", "perturbation": 0.5, "scale": 1.5}
    ours = guided(model, **{**AT_PREDICTION, **own})
    attention = disturbed_attention(case, (1, 2), "identity + text", 0.5, behind, ahead)
    expected, plain = (
        sample(case, one, *prompts, batch, cfg) for one in (SecondEvaluation(attention, 1.5).patched(model), model)
    )
    assert {block for block, _ in attention.calls} == {1, 2}
    same_effect(sample(case, ours, *prompts, batch, cfg), expected, plain, tolerance)


@FIRST
def test_one_line_says_what_was_done(case, load, caplog):
    caplog.set_level("INFO", logger="nag_pag_flux")
    model, prompts = load(case), (prompt(case, 1), prompt(case, 2))
    for inputs, said in (
        ({"negative_prompt": "sampler's"}, "NAG-PAG guided by a negative prompt: 2 steps, branch merged at"),
        ({"blocks": "1-3"}, f"NAG-PAG guided {case.kind}blocks 1, 2, 3: 2 steps, branch merged at the prediction"),
        ({"blocks": "1-3", "start_percent": 0.98, "end_percent": 0.99}, "no step of this sampling lay between"),
    ):
        caplog.clear()
        sample(case, guided(model, **{**AT_PREDICTION, **inputs}), *prompts)
        told = [record for record in caplog.records if record.name == "nag_pag_flux"]
        assert said in told[-1].getMessage() and not [one for one in told if one.levelname == "WARNING"]


def test_it_asks_for_no_frame_to_be_made_where_a_negative_prompt_is_carried(load, caplog):
    """A branch beside the blocks has nothing to guide where all frames are given."""
    for case in (case for case in HERE if case.small in ("HunyuanVideo", "Kandinsky 5") and case.given):
        text = {**case.of_text, "concat_mask": torch.zeros(1, 1, 1, 6, 10)}
        one = dataclasses.replace(case, latent=(16, 1, 6, 10), mask=noise_mask(0), of_text=text)
        ours = guided(load(one), **AT_PREDICTION, negative_prompt="sampler's")
        sample(one, ours, prompt(one, 1), prompt(one, 2, 12), steps=1)
    assert not [record for record in caplog.records if record.name == "nag_pag_flux" and record.levelname == "WARNING"]


def test_a_prompt_with_an_attention_mask_goes_with_a_negative_prompt(load):
    """Which blocks of these families take none of."""
    for small in ("Qwen-Image", "HunyuanVideo"):
        case = next(case for case in HERE if case.small == small)
        mask = (torch.arange(9) < 5).long().unsqueeze(0)
        prompts = prompt(case, 1, attention_mask=mask), prompt(case, 2, 12)
        ours = guided(load(case), **AT_PREDICTION, negative_prompt="sampler's", scale=1.5)
        plain, expected = (sample(case, load(case), *prompts, 1, cfg) for cfg in (1.0, 2.5))
        same_effect(sample(case, ours, *prompts), expected, plain, 1e-4)
