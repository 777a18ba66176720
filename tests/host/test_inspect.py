"""What NAG-PAG Inspect Model says, on real models of the host."""

import importlib

import pytest
import torch
from nag_pag_flux.nagpag.diagnostics.inspect import inspect_model
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from sampling import guided, load_flux, prompt, sample


def test_a_plain_model(flux):
    text = inspect_model(flux, "auto")
    for said in (
        "family: Flux, class Flux",
        "blocks: 4 double, 2 single",
        "width: 256, 2 heads of 128",
        "weights: fp32 100%",
        "auto is: double blocks 1, 2, 3",
        '"auto" guides: double blocks 1, 2, 3',
        "double blocks: 3 of 6 (50%; renewed every 6th step 8%)",
        "output: 5 of 6 (83%; renewed every 6th step 14%)",
        "On this model\n  nothing",
        "In the way\n  nothing that is known.",
    ):
        assert said in text, text


def test_a_spec_is_explained_block_by_block(flux):
    text = inspect_model(flux, "1:1.5, 2[0], s1:0")
    assert "guides: double blocks 1:1.5, 2[0] and single blocks 1:0" in text
    assert "double block 1: its own scale 1.5, all heads" in text
    assert "double block 2: the node's scale, heads 0" in text
    assert "single block 1: scale 0, so it stays plain" in text


def test_a_spec_of_single_blocks_alone_reaches_to_the_last_of_them(flux):
    assert "double blocks: 1 of 6 (17%" in inspect_model(flux, "s1")


@pytest.mark.parametrize("spec, said", [("9", '"9": block 9 does not exist'), ("1;2", '"1;2" is not a block')])
def test_a_bad_spec_is_said_not_raised(flux, spec, said):
    text = inspect_model(flux, spec)
    assert said in text and "In the way" in text


def test_the_model_is_left_as_it_was(flux):
    options = repr(flux.model_options)
    inspect_model(flux, "all")
    assert repr(flux.model_options) == options


def test_our_own_nodes_are_listed(flux):
    model = guided(record_model(guided(flux, blocks="1", scale=2.0), Record()), scale=0.0)
    text = inspect_model(model, "auto")
    assert "NAG-PAG Guidance, double blocks 1: scale 2, tau 2.5" in text
    assert "NAG-PAG Guidance, double blocks 1, 2, 3: scale 0" in text and "(switched off)" in text
    assert "NAG-PAG Record" in text and text.endswith("nothing that is known.")


def earlier(args, extra):
    return extra["original_block"](args)


def sage_attention(func, *args, **kwargs):
    return func(*args, **kwargs)


def test_other_patches_are_named_and_whether_they_are_kept(flux):
    model = flux.clone()
    model.set_model_patch_replace(earlier, "dit", "double_block", 2)
    model.set_model_patch_replace(earlier, "dit", "single_block", 0)
    model.model_options["transformer_options"]["optimized_attention_override"] = sage_attention
    model.set_model_attn1_patch(earlier)
    text = inspect_model(guided(model), "auto")
    assert "block patch host.test_inspect.earlier in single block 0, double block 2: kept, NAG-PAG calls it" in text
    assert "attention override host.test_inspect.sage_attention: kept" in text
    assert "attn1_patch: host.test_inspect.earlier" in text and text.endswith("nothing that is known.")


def test_compile_and_caches(flux):
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_easycache import EasyCacheNode

    compiled = flux.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    text = inspect_model(compiled, "auto")
    assert "apply_model wrapper torch.compile: kept" in text and "nothing that is known" in text
    cached = EasyCacheNode.execute(flux, 0.2, 0.15, 0.95, False).args[0]
    assert "EasyCache skips the model where it reuses a step" in inspect_model(cached, "auto")


def core(name, **inputs):
    """One of the host's nodes on a model, with its own defaults."""
    module, node = name.split(".")
    cls = getattr(importlib.import_module(f"comfy_extras.{module}"), node)
    declared = cls.INPUT_TYPES()["required"]
    defaults = {key: spec[1].get("default") for key, spec in declared.items() if len(spec) > 1 and key != "model"}
    found = {**defaults, **inputs}
    if hasattr(cls, "define_schema"):
        return lambda model: cls.execute(model=model, **found).args[0]
    return lambda model: getattr(cls(), cls.FUNCTION)(model=model, **found)[0]


@pytest.mark.parametrize(
    "node, place",
    [
        ("nodes_apg.APG", "before cfg: comfy_extras.nodes_apg.APG.execute.pre_cfg_function"),
        ("nodes_cfg.CFGZeroStar", "after cfg: comfy_extras.nodes_cfg.CFGZeroStar.execute."),
        ("nodes_model_advanced.RescaleCFG", "in place of cfg: comfy_extras.nodes_model_advanced.RescaleCFG."),
        ("nodes_nag.NAGuidance", "attn1_output_patch: comfy_extras.nodes_nag.NAGuidance.execute."),
    ],
)
def test_what_works_around_cfg_is_named_and_is_not_in_the_way(flux, node, place):
    before = sample(flux, prompt(1), prompt(2), cfg=2.0, steps=1)
    theirs = core(node)(flux)
    for model in (theirs, guided(theirs), core(node)(guided(flux))):
        text = inspect_model(model, "auto")
        assert place in text and text.endswith("nothing that is known."), text
    assert not torch.equal(sample(theirs, prompt(1), prompt(2), cfg=2.0, steps=1), before)


@pytest.mark.parametrize("node", ["nodes_pag.PerturbedAttentionGuidance", "nodes_slg.SkipLayerGuidanceDiT"])
def test_what_has_the_model_evaluated_again_is_said_with_what_it_costs(flux, node):
    theirs = core(node, double_layers="1", single_layers="0")(flux) if "slg" in node else core(node)(flux)
    text = inspect_model(theirs, "auto")
    assert "after cfg: comfy_extras." in text
    assert (
        "post_cfg_function has the model evaluated once more in a step: a longer reach inside the model keeps" in text
    )


def test_whatever_is_on_a_model_is_listed_by_the_name_that_people_know(flux):
    """A pack's modules are named by the host after the path of its folder, which is nobody's business."""

    def theirs(*args):
        return None

    theirs.__module__ = "/home/somebody/ComfyUI/custom_nodes/some-pack_x_2.hooks"
    theirs.__qualname__ = "Hooks.apply.<locals>.theirs"
    model = flux.clone()
    model.set_model_sampler_pre_cfg_function(theirs)
    model.set_model_denoise_mask_function(theirs)
    model.add_callback("on_pre_run", theirs)
    model.add_object_patch("concat_cond", theirs)
    model.set_model_patch_replace(theirs, "attn1", "middle", 0)
    model.set_model_patch_replace(theirs, "dit", "double_block", 1)
    model.model_options["transformer_options"]["some_pack"] = True
    model.model_options["their_hook"] = theirs
    text = inspect_model(model, "auto")
    assert "custom_nodes" not in text and "somebody" not in text
    name = "some-pack.2.hooks.Hooks.apply.theirs"
    for said in (
        f"before cfg: {name}: kept",
        f"denoise_mask_function {name}: kept",
        f"their_hook {name}: kept",
        f"on_pre_run callback {name}: kept",
        f"object patch concat_cond by {name}: kept",
        f"attn1 replaced by {name}: kept",
        f"block patch {name} in double block 1: kept",
        "options some_pack: kept",
    ):
        assert said in text, text


def test_that_cfg_1_is_not_cheap_any_more_is_said(flux):
    assert "the negative prompt is evaluated at cfg 1, too" in inspect_model(core("nodes_nag.NAGuidance")(flux), "auto")
    assert "evaluated at cfg 1" not in inspect_model(flux, "auto")


def test_a_replaced_forward_is_in_the_way(flux, monkeypatch):
    diffusion_model = flux.model.diffusion_model
    monkeypatch.setattr(diffusion_model, "forward_orig", lambda *args: None, raising=False)
    assert "the model's forward_orig was replaced by host.test_inspect." in inspect_model(flux, "auto")
    monkeypatch.undo()
    model = flux.clone()
    model.add_object_patch("diffusion_model.forward_orig", earlier)
    assert "diffusion_model.forward_orig is replaced while sampling" in inspect_model(model, "auto")


def test_a_swapped_class_is_in_the_way(flux, monkeypatch):
    """As packs do that bring a FLUX of their own."""
    flux_class = type(flux.model.diffusion_model)
    theirs = type("TheirFlux", (flux_class,), {"__module__": "/home/somebody/custom_nodes/some-pack.flux"})
    monkeypatch.setattr(flux.model.diffusion_model, "__class__", theirs)
    text = inspect_model(flux, "auto")
    assert "On this model\n  class some-pack.flux.TheirFlux in place of ComfyUI's" in text
    assert "the model's class is some-pack.flux.TheirFlux, not ComfyUI's" in text and "somebody" not in text


def test_fp8_weights_are_said_and_still_guided(flux_file):
    model = load_flux(flux_file, torch.float8_e4m3fn)
    text = inspect_model(model, "auto")
    assert "weights: fp8 (e4m3)" in text and ", cast while it runs" in text, text
    assert torch.isfinite(sample(guided(model), prompt(1), steps=1)).all()


def test_wrapped_weights_are_said(flux, monkeypatch):
    """As GGUF packs and the host's own quantised tensors wrap them."""

    class Wrapped(torch.nn.Parameter):
        tensor_type = "Q4_K"

    weight = flux.model.diffusion_model.double_blocks[0].img_mlp[0].weight
    monkeypatch.setattr(
        flux.model.diffusion_model, "parameters", lambda: iter([Wrapped(weight.detach(), requires_grad=False)])
    )
    assert "weights: GGUF (Q4_K) 100%" in inspect_model(flux, "auto")


def test_a_model_that_cannot_be_guided_is_told_why():
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": 32,
            "num_res_blocks": [1],
            "channel_mult": [1],
            "transformer_depth": [0],
            "transformer_depth_output": [0, 0],
            "transformer_depth_middle": 0,
            "context_dim": 8,
            "num_heads": 1,
            "use_temporal_attention": False,
            "use_spatial_transformer": True,
            "legacy": False,
        }
    )
    config.unet_config["dtype"] = torch.float32
    model = comfy.model_base.BaseModel(config, device="cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    text = inspect_model(patcher, "auto")
    assert "family: SD15, class UNetModel" in text
    assert "none are known, as its class is UNetModel. Known are those of FLUX.1" in text and "In the way" in text
