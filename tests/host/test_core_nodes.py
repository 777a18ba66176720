"""ComfyUI's own nodes that change what a sampling is, beside ours: guided where it should be, theirs at scale 0."""

import gc
from types import SimpleNamespace

import comfy.ldm.flux.math
import comfy.sample
import comfy.samplers
import folder_paths
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy_extras import nodes_custom_sampler, nodes_hooks, nodes_model_patch, nodes_torch_compile
from comfy_extras.nodes_model_merging_model_specific import ModelMergeFlux1
from comparing import BLOCKS, LAST_DOUBLE, assert_same_effect, check_branch, every_third
from nag_pag_flux.lab.toy.small_models import Weights, make_flux
from oracle import guided_host
from safetensors.torch import load_file, save_file
from sampling import guided, load_flux, picture_tokens, prompt, sample
from two_streams import Branch

import nodes

POSITIVE, NEGATIVE = prompt(1), prompt(2)
LONGER = {"reach": "double blocks", "blocks": "1", "renew_every": 2}


def run_node(cls, **inputs):
    """A node called as the host calls it, of either schema; what it returns."""
    if hasattr(cls, "define_schema"):
        return cls.execute(**inputs).args
    return getattr(cls(), cls.FUNCTION)(**inputs)


def renewed(picture=None):
    """The oracle's branch for LONGER."""
    branch = Branch((1,), LAST_DOUBLE, picture or picture_tokens())
    branch.reuse = every_third([], every=2)
    return branch


def check(model, positive, picture=None, **sampling):
    """Guided like the oracle with renewal, and at scale 0 the model to the bit."""
    sampling = {"positive": positive, "steps": 4, **sampling}
    branch = check_branch(model, renewed(picture), LONGER, **sampling)
    assert len(set(branch.computed)) == 2
    assert torch.equal(sample(guided(model, **LONGER, scale=0.0), **sampling), sample(model, **sampling))


# --- TorchCompileModel ---


def test_torch_compile_model(flux, monkeypatch):
    """With a backend that runs the captured graph as it is: capturing is what guidance could break."""
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    torch._dynamo.reset()
    compiled = run_node(nodes_torch_compile.TorchCompileModel, model=flux, backend="eager")[0]
    expected = sample(guided(flux), POSITIVE, steps=2)
    torch.testing.assert_close(sample(guided(compiled), POSITIVE, steps=2), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(expected, sample(flux, POSITIVE, steps=2))


# --- ModelMergeFlux1 ---


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "other.safetensors"
    make_flux(path, hidden=256, double_blocks=4, single_blocks=2, context_dim=64, vec_dim=32, seed=1)
    return str(path)


def merged(model1, model2):
    """Half and half, the untouched node's other inputs all of model1."""
    ratios = {name: 1.0 for name in ModelMergeFlux1.INPUT_TYPES()["required"] if not name.startswith("model")}
    halves = {name: 0.5 for name in ("double_blocks.1.", "double_blocks.2.", "single_blocks.0.")}
    return run_node(ModelMergeFlux1, model1=model1, model2=model2, **ratios | halves)[0]


def test_model_merge_flux1(flux, flux_file, other, tmp_path):
    """Guidance of model1 goes on, as on a model that was merged by hand; that of model2 does not, the host's rule."""
    second = load_flux(other)
    weights, theirs = load_file(flux_file), load_file(other)
    parts = ("double_blocks.1.", "double_blocks.2.", "single_blocks.0.")
    for name in weights:
        if name.startswith(parts):
            weights[name] = (weights[name] + theirs[name]) / 2
    save_file(weights, str(tmp_path / "merged.safetensors"))
    by_hand = load_flux(str(tmp_path / "merged.safetensors"))
    plain = sample(merged(flux, second), POSITIVE)
    ours = sample(merged(guided(flux, **LONGER), second), POSITIVE)
    assert_same_effect(ours, sample(guided(by_hand, **LONGER), POSITIVE), plain)
    assert torch.equal(ours, sample(guided(merged(flux, second), **LONGER), POSITIVE))
    assert torch.equal(sample(merged(flux, guided(second)), POSITIVE), plain)


# --- DualModelGuider ---


@pytest.mark.parametrize("inputs", [{}, LONGER], ids=["attention", "longer"])
def test_dual_model_guider(flux, other, inputs):
    """Only the prompt's pass is guided, though the negative's model is called with the first one's options."""
    guider = getattr(nodes_custom_sampler, "DualModelGuider", None)
    if guider is None:  # an older host: nothing to hold
        return
    second = load_flux(other)

    def run(model, negative, cfg=2.0):
        found = run_node(guider, model=model, positive=POSITIVE, cfg=cfg, model_negative=negative, negative=NEGATIVE)[0]
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 1)
        latent = torch.zeros(1, 16, 8, 12)
        noise, euler = comfy.sample.prepare_noise(latent, 7), comfy.samplers.sampler_object("euler")
        return found.sample(noise, latent, euler, sigmas, disable_pbar=True, seed=7)

    prompts, guided_prompts = run(flux, second, cfg=1.0), run(guided(flux, **inputs), second, cfg=1.0)
    plain = run(flux, second)
    # At one step cfg is all there is: uncond + 2 (cond − uncond), so the result moves by twice what cond does.
    assert_same_effect(run(guided(flux, **inputs), second), plain + 2 * (guided_prompts - prompts), plain)
    assert torch.equal(run(flux, guided(second, **inputs)), plain)


# --- ModelPatchLoader ---


def test_model_patch_loader(flux, monkeypatch, tmp_path):
    """USO's style tokens, put before the prompt's by the stock loader's projector: text too, and not guided."""
    plain_projector = nodes_model_patch.SigLIPMultiFeatProjModel

    def small(**inputs):  # its sizes are FLUX.1's own
        sizes = {"siglip_token_nums": 6, "style_token_nums": 5, "siglip_token_dims": 8, "hidden_size": 256}
        return plain_projector(**sizes, **inputs)

    monkeypatch.setattr(nodes_model_patch, "SigLIPMultiFeatProjModel", small)
    torch.manual_seed(0)
    weights = small(operations=torch.nn).state_dict()
    save_file(
        {f"feature_embedder.{name}": weight for name, weight in weights.items()}, str(tmp_path / "uso.safetensors")
    )
    folder_paths.add_model_folder_path("model_patches", str(tmp_path))
    patch = run_node(nodes_model_patch.ModelPatchLoader, name="uso.safetensors")[0]
    states = torch.randn(1, 24, 6, 8)
    seen = SimpleNamespace(all_hidden_states=states, penultimate_hidden_states=states[:, -2])

    def styled(model):
        return run_node(nodes_model_patch.USOStyleReference, model=model, model_patch=patch, clip_vision_output=seen)[0]

    plain = sample(styled(flux), POSITIVE)
    assert not torch.allclose(plain, sample(flux, POSITIVE))
    with guided_host(BLOCKS, picture_tokens()):
        expected = sample(styled(flux), POSITIVE)
    for ours in (guided(styled(flux)), styled(guided(flux))):
        assert_same_effect(sample(ours, POSITIVE), expected, plain)
    assert torch.equal(sample(guided(styled(flux), **LONGER, scale=0.0), POSITIVE), plain)


# --- LoRA by hooks, along a schedule ---


def test_hook_lora_with_keyframes(flux64, tmp_path):
    """The weights change between steps, for the prompt's pass alone; nothing of it is left in them."""
    weights = Weights(seed=9)
    weights.add("lora_unet_double_blocks_2_img_mlp_0.lora_up.weight", 1024, 4, std=0.5)
    weights.add("lora_unet_double_blocks_2_img_mlp_0.lora_down.weight", 4, 256, std=0.5)
    save_file(weights.tensors, str(tmp_path / "hook.safetensors"))
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    keyframes = None
    for strength, start in ((1.0, 0.0), (0.0, 0.4)):
        inputs = {"strength_mult": strength, "start_percent": start, "prev_hook_kf": keyframes}
        keyframes = run_node(nodes_hooks.CreateHookKeyframe, **inputs)[0]
    hooks = run_node(nodes_hooks.CreateHookLora, lora_name="hook.safetensors", strength_model=1.0, strength_clip=0.0)[0]
    hooks = run_node(nodes_hooks.SetHookKeyframes, hooks=hooks, hook_kf=keyframes)[0]
    set_properties = nodes_hooks.ConditioningSetProperties
    hooked = run_node(set_properties, cond_NEW=POSITIVE, strength=1.0, set_cond_area="default", hooks=hooks)[0]
    before = sample(flux64, POSITIVE)
    assert not torch.allclose(sample(flux64, hooked), before)
    check(flux64, hooked, negative=NEGATIVE, cfg=2.0)
    assert torch.equal(sample(flux64, POSITIVE), before)


# --- a real ControlNet ---


@pytest.fixture(scope="module")
def control_net(tmp_path_factory):
    """A small FLUX ControlNet of XLabs' kind, with random weights, as the stock loader takes it."""
    folder = tmp_path_factory.mktemp("controlnet")
    make_flux(folder / "flux.safetensors", 256, double_blocks=2, single_blocks=0, context_dim=64, vec_dim=32, seed=4)
    weights = Weights(seed=5)
    weights.tensors = {k: w for k, w in load_file(folder / "flux.safetensors").items() if "final_layer" not in k}
    for i in range(2):
        weights.linear(f"controlnet_blocks.{i}", 256, 256, gain=0.3)
    weights.linear("pos_embed_input", 256, 64)
    for i in range(8):
        weights.add(f"input_hint_block.{2 * i}.weight", 16, 16 if i else 3, 3, 3, std=0.15)
        weights.add(f"input_hint_block.{2 * i}.bias", 16, std=0.02)
    weights.save(folder / "small_control.safetensors", torch.float32)
    folder_paths.add_model_folder_path("controlnet", str(folder))
    return run_node(nodes.ControlNetLoader, control_net_name="small_control.safetensors")[0]


def test_flux_controlnet_by_apply_advanced(flux64, control_net):
    image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    window = {"strength": 0.8, "start_percent": 0.0, "end_percent": 0.6}
    what = {"positive": POSITIVE, "negative": NEGATIVE, "control_net": control_net, "image": image}
    positive, negative = run_node(nodes.ControlNetApplyAdvanced, **what, **window)
    assert not torch.allclose(sample(flux64, positive), sample(flux64, POSITIVE))
    check(flux64, positive, negative=negative, cfg=2.0)


# --- regional prompts ---


LEFT = torch.cat((torch.ones(1, 64, 64), torch.zeros(1, 64, 64)), dim=-1)  # of a picture of 64 by 128 pixels


def masked(conditioning, mask, area):
    inputs = {"conditioning": conditioning, "mask": mask, "strength": 1.0, "set_cond_area": area}
    return run_node(nodes.ConditioningSetMask, **inputs)[0]


@pytest.mark.parametrize("area, width", [("default", 16), ("mask bounds", 8)])
def test_conditioning_set_mask(flux64, area, width):
    left, right = masked(POSITIVE, LEFT, area), masked(prompt(3), 1 - LEFT, area)
    both = run_node(nodes.ConditioningCombine, conditioning_1=left, conditioning_2=right)[0]
    check(flux64, both, picture_tokens(8, width), negative=NEGATIVE, cfg=2.0, size=(1, 8, 16))


def test_conditioning_set_area(flux64):
    where = {"width": 48, "height": 64, "y": 0, "strength": 1.0}
    left = run_node(nodes.ConditioningSetArea, conditioning=POSITIVE, x=0, **where)[0]
    right = run_node(nodes.ConditioningSetArea, conditioning=prompt(3), x=48, **where)[0]
    check(flux64, left + right, picture_tokens(8, 6))


# --- one model, many small samplings ---


def live_tensors():
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def test_many_small_samplings_of_one_model(flux):
    """As upscalers by tiles and detailers run them: each is what a model of its own draws, and none leaves a tensor."""
    model = guided(flux, **LONGER)

    def tile(model, i):
        start = torch.full((1, 16, 4 + 2 * (i % 3), 6), 0.1 * i)
        return sample(model, prompt(i, tokens=9 + i % 2), seed=i, latent_image=start, denoise=0.5)

    tile(model, 0)
    before = live_tensors()
    for i in range(8):
        drawn = tile(model, i)
        if i % 4 == 3:
            assert torch.equal(drawn, tile(guided(flux, **LONGER), i))
            assert not torch.equal(drawn, tile(flux, i))
    del drawn
    assert live_tensors() <= before
