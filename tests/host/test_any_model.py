"""Models of no family: they are guided at their prediction, by a negative prompt, and say what does not work."""

import comfy.sample
import comfy.samplers
import comfy.supported_models
import other_models
import pytest
import torch
from comfy.ldm.flux.model import Flux
from comfy.nested_tensor import NestedTensor
from nag_pag_flux.nagpag.calibration.search import guided_by
from nag_pag_flux.nagpag.diagnostics.inspect import inspect_model
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.patch import find_model
from nag_pag_flux.nagpag.patch.families import FAMILIES
from nag_pag_flux.nagpag.settings import Settings
from other_models import ELSEWHERE, HERE
from sampling import guided
from sampling import prompt as flux_prompt
from sampling import sample as sample_flux
from unets import UNETS, load, prompt, sample

AT_PREDICTION = {"reach": "prediction", "blocks": "auto", "negative_prompt": "sampler's"}
# A push by the whole difference at every step, without a limit, is classifier-free guidance.
CFG = {**AT_PREDICTION, "tau": 10.0, "alpha": 1.0, "renew_every": 1, "scale": 1.5}
PROMPTS = prompt(1), prompt(2, 5)
FLUX_PROMPTS = flux_prompt(1), flux_prompt(2, 5)


@pytest.fixture(scope="module", params=UNETS)
def unet(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp("unets") / "unet.safetensors")


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    return load("SD15", tmp_path_factory.mktemp("unets") / "unet.safetensors")


def same_effect(ours, expected, plain, tolerance=1e-4):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


def said_by_us(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "nag_pag_flux"]


@pytest.mark.parametrize("batch, cfg", [(1, 1.0), (2, 3.0)])
def test_a_unet_at_every_step_without_a_limit_has_cfg(unet, caplog, batch, cfg):
    caplog.set_level("INFO", logger="nag_pag_flux")
    ours = sample(guided(unet, **CFG), *PROMPTS, batch, cfg)
    plain, expected = (sample(unet, *PROMPTS, batch, strength) for strength in (cfg, cfg + 1.5))
    same_effect(ours, expected, plain)
    said = "guided by a negative prompt: 2 steps, branch merged at the prediction and computed at 2 of them"
    assert said in said_by_us(caplog)[-1]


@pytest.fixture(scope="module", params=HERE, ids=str)
def other(request):
    return request.param, other_models.load(request.param)


@pytest.mark.parametrize("batch, cfg", [(1, 1.0), (2, 3.0)])
def test_what_else_comfyui_samples_has_cfg(other, batch, cfg):
    """Whatever it predicts, of whatever latent: pictures, videos, sound, shapes, or two things at once."""
    case, model = other
    assert find_model(model).why == f"its class is {type(model.model.diffusion_model).__name__}"
    prompts = other_models.prompt(case, 1), other_models.prompt(case, 2)
    ours = other_models.sample(case, guided(model, **CFG), *prompts, batch, cfg)
    plain, expected = (other_models.sample(case, model, *prompts, batch, c) for c in (cfg, cfg + 1.5))
    same_effect(ours, expected, plain, 1e-3)


def test_no_model_of_comfyui_is_forgotten():
    known = {case.kind for case in other_models.CASES} | set(ELSEWHERE.split())
    assert {kind.__name__ for kind in comfy.supported_models.models} <= known


def test_the_nodes_own_negative_prompt_does_as_well(sd15):
    ours = guided(sd15, **{**CFG, "negative_prompt": "off"}, negative_conditioning=PROMPTS[1])
    same_effect(sample(ours, PROMPTS[0], prompt(9)), sample(sd15, *PROMPTS, 1, 2.5), sample(sd15, *PROMPTS))


def test_a_step_that_renews_costs_one_whole_pass(sd15):
    """As Inspect says."""
    model, rows = sd15.clone(), []

    def counted(apply_model, given):
        rows.append(len(given["input"]))
        return apply_model(given["input"], given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(counted)
    out = sample(guided(model, **AT_PREDICTION, renew_every=4), *PROMPTS, steps=8)
    assert sum(rows) == 8 + 2 and not torch.equal(out, sample(sd15, *PROMPTS, steps=8))


def test_scale_0_is_the_plain_model_to_the_bit(sd15):
    plain = sample(sd15, *PROMPTS)
    for inputs in ({"scale": 0.0}, {"scale": 0.0, "reach": "output"}, {"alpha": 0.0, "negative_prompt": "off"}):
        assert torch.equal(sample(guided(sd15, **{**AT_PREDICTION, **inputs}), *PROMPTS), plain)


def test_a_record_shows_the_prediction(sd15):
    record = Record()
    sample(record_model(guided(sd15, **AT_PREDICTION), record), *PROMPTS)
    (recording,) = record.recordings
    assert recording.blocks() == [(0, "prediction")] and [map.shape for map in recording.maps.values()] == [(8, 12)]


@pytest.mark.parametrize("case", [one for one in HERE if len(one.latents) > 1], ids=str)
def test_a_latent_of_several_parts_finds_its_own_record(case):
    model, record, drawn = other_models.load(case), Record(), []
    patched = record_model(guided(model, **AT_PREDICTION), record)
    for seed in (1, 3):
        parts = NestedTensor([torch.zeros(2, *latent) for latent in case.latents])
        asked = other_models.prompt(case, seed), other_models.prompt(case, 2), parts
        noise = comfy.sample.prepare_noise(parts, 7)
        how = {"denoise": 0.5, "disable_pbar": True, "seed": 7}
        drawn.append(comfy.sample.sample(patched, noise, 2, 1.0, "euler", "simple", *asked, **how))
    assert [record.of(one) for one in drawn] == [(recording, True) for recording in record.recordings]
    other = NestedTensor([part + 1 for part in drawn[0].unbind()])
    assert record.of(other) == (record.recordings[1], False)


REFUSED = {
    'blocks "8, 12"': {"blocks": "8, 12"},
    'blocks "all"': {"blocks": "all"},
    "reach attention": {"reach": "attention", "negative_prompt": "off"},
    "reach output": {"reach": "output"},
    "reach_blocks 2": {"reach_blocks": 2},
    "negative_prompt off": {"negative_prompt": "off"},
}


@pytest.mark.parametrize("said, inputs", REFUSED.items(), ids=REFUSED)
def test_what_needs_blocks_is_refused_with_what_does_not(sd15, said, inputs):
    with pytest.raises(ValueError, match="its class is UNetModel") as refused:
        guided(sd15, **{**AT_PREDICTION, **inputs})
    told = str(refused.value)
    assert f"can't guide this model with {said}: " in told
    assert all(family.models in told for family in FAMILIES)
    assert told.endswith("Any other model works with reach prediction and a negative prompt")


def test_calibrate_is_for_flux(sd15):
    with pytest.raises(ValueError, match="works with FLUX.1 .*; this model is none of these: its class is UNetModel"):
        guided_by(sd15, "auto", "0.2", Settings(reach="output"))


def without_negative(model):
    """As SamplerCustomAdvanced with a BasicGuider samples."""
    from comfy_extras.nodes_custom_sampler import Guider_Basic

    guider, latent = Guider_Basic(model), torch.zeros(1, 4, 8, 12)
    guider.set_conds(PROMPTS[0])
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    return guider.sample(
        comfy.sample.prepare_noise(latent, 7), latent, comfy.samplers.sampler_object("euler"), sigmas, seed=7
    )


def zeros():
    return [[torch.zeros(1, 9, 48), {"pooled_output": torch.zeros(1, 1280)}]]


def test_torch_compile_stays_as_nothing_of_ours_is_in_the_model(sd15, caplog):
    """Where blocks are replaced ComfyUI's own node for it is left out, with a warning."""
    model = guided(sd15, **AT_PREDICTION)
    model.model_options["torch_compile_kwargs"] = {"options": {"guard_filter_fn": None}}
    sample(model, *PROMPTS)
    assert not [record for record in caplog.records if "torch.compile is left out" in record.getMessage()]


def test_zeros_are_a_negative_prompt_too(sd15):
    """Models such as SVD have learned with them."""
    inputs = {**AT_PREDICTION, "scale": 1.5, "tau": 10.0, "alpha": 1.0, "renew_every": 1, "start_percent": 0.0}
    ours, plain = (sample(model, PROMPTS[0], zeros()) for model in (guided(sd15, **inputs), sd15))
    expected = sample(sd15, PROMPTS[0], zeros(), cfg=2.5)
    assert (ours - expected).abs().max() < 0.05 * (expected - plain).abs().max()


def test_where_there_is_no_negative_prompt_it_is_said_once(sd15, caplog):
    caplog.set_level("INFO", logger="nag_pag_flux")
    assert torch.equal(without_negative(guided(sd15, **AT_PREDICTION)), without_negative(sd15))
    warning, ending = said_by_us(caplog)
    assert "nothing is guided, as this model is of no family whose attention can be disturbed" in warning
    assert "guided nothing: there was no negative prompt, as said above" in ending


def test_a_text_that_the_host_calls_otherwise_is_found(sd15, monkeypatch):
    """Stable Cascade's is clip_text, and nothing else says that there is a prompt."""
    real = sd15.model.extra_conds

    def extra_conds(**given):
        found = real(**given)
        found["clip_text"] = found.pop("c_crossattn")
        return found

    def called_otherwise(apply_model, given):
        own = dict(given["c"])
        return apply_model(given["input"], given["timestep"], c_crossattn=own.pop("clip_text"), **own)

    expected, plain = (sample(sd15, *PROMPTS, 1, cfg) for cfg in (2.5, 1.0))
    monkeypatch.setattr(sd15.model, "extra_conds", extra_conds)
    model = sd15.clone()
    model.set_model_unet_function_wrapper(called_otherwise)
    same_effect(sample(guided(model, **CFG), *PROMPTS), expected, plain)


def test_inspect_says_what_works(sd15):
    text = inspect_model(sd15, "auto")
    for said in (
        "works here: reach prediction, with a negative prompt\n",
        "blocks: none are known, as its class is UNetModel. Known are those of FLUX.1",
        "cost of reach prediction: the whole model (100%; renewed every 6th step 17%)",
    ):
        assert said in text, text
    assert '"8, 12" guides: nothing here; leave blocks at auto' in inspect_model(sd15, "8, 12")
    assert "or without one no blocks, merged at the prediction" in inspect_model(guided(sd15, **AT_PREDICTION), "auto")


@pytest.mark.parametrize("tokens", [9, 14])
@pytest.mark.parametrize("case", [one for one in HERE if one.kind == "WAN21_CausalAR_T2V"], ids=str)
def test_beside_a_sampler_that_has_the_model_keep_frames_it_says_so(case, caplog, tokens):
    """Another evaluation would be kept among them, and end the sampling; in one batch as well as apart."""
    model, start = other_models.load(case), torch.zeros(1, 16, 3, 6, 8)
    how = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1})

    def drawn(model):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(other_models.prompt(case, 1), other_models.prompt(case, 2, tokens))
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 3)
        noise = comfy.sample.prepare_noise(start, 7)
        with torch.inference_mode():
            return guider.sample(noise, start, how, sigmas, disable_pbar=True, seed=7)

    plain = drawn(model)
    assert torch.equal(drawn(guided(model, **AT_PREDICTION)), plain)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([one for one in warned if "keeps the frames that it made before" in one]) == 1


# --- a FLUX that a pack brings ---


class TheirForward(Flux):
    """Made of ComfyUI's, it gives its blocks neither their patches nor the options."""

    __module__ = "some_pack.flux"

    def forward(self, x, timestep, context, *args, transformer_options={}, **kwargs):
        return super().forward(x, timestep, context, *args, transformer_options={}, **kwargs)


class TheirModel(torch.nn.Module):
    """A class of its own, as Nunchaku's."""

    def __init__(self, flux):
        super().__init__()
        self.flux, self.dtype = flux, flux.dtype

    def forward(self, *args, transformer_options={}, **kwargs):
        return self.flux(*args, **kwargs)


@pytest.fixture(params=[TheirForward, TheirModel])
def theirs(request, flux, monkeypatch):
    own = flux.model.diffusion_model
    if request.param is TheirForward:
        monkeypatch.setattr(own, "__class__", TheirForward)
    else:
        monkeypatch.setitem(flux.model._modules, "diffusion_model", TheirModel(own))
    return flux


def test_a_packs_own_forward_has_cfg_too(theirs, caplog):
    ours = sample_flux(guided(theirs, **CFG), *FLUX_PROMPTS)
    plain, expected = (sample_flux(theirs, *FLUX_PROMPTS, cfg=cfg) for cfg in (1.0, 2.5))
    same_effect(ours, expected, plain)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_and_without_a_negative_prompt_it_is_said_or_refused(flux, monkeypatch, caplog):
    """Whether a pack's forward of FLUX calls blocks is known when it does not."""
    inputs = {**AT_PREDICTION, "negative_prompt": "off"}
    with monkeypatch.context() as patched:
        patched.setitem(flux.model._modules, "diffusion_model", TheirModel(flux.model.diffusion_model))
        with pytest.raises(ValueError, match="negative_prompt off: its class is TheirModel"):
            guided(flux, **inputs)
    monkeypatch.setattr(flux.model.diffusion_model, "__class__", TheirForward)
    plain = sample_flux(flux, *FLUX_PROMPTS)
    assert torch.equal(sample_flux(guided(flux, **inputs), *FLUX_PROMPTS), plain)
    assert "replaced the model's forward" in caplog.text
