"""What else sits on the model stays; what goes wrong stays small and is said."""

import asyncio
import builtins
import copy
import importlib.util
import logging
import sys

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy.controlnet import ControlBase
from nag_pag_flux.lab import host
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.patch import merge, wrappers
from sampling import guided, prompt, sample

POSITIVE = prompt(1)
LOGGER = "nag_pag_flux"


def options_of(model):
    """The model's options with functions by identity, to compare before and after."""
    return copy.deepcopy({k: v for k, v in model.model_options.items()}, {}), dict(model.wrappers)


def messages(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.name == LOGGER and record.levelno == level]


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)


# --- earlier patches ---


def test_an_earlier_block_patch_is_kept_and_called_once_per_use(flux):
    calls = []

    def earlier(args, extra):
        calls.append(args["transformer_options"]["block_index"])
        out = extra["original_block"](args)
        return {"img": out["img"] * 1.01, "txt": out["txt"]}

    model = flux.clone()
    model.set_model_patch_replace(earlier, "dit", "double_block", 2)
    with_earlier = sample(model, POSITIVE)
    calls.clear()
    both = sample(guided(model), POSITIVE)
    assert calls == [2, 2, 2]
    assert not torch.equal(both, with_earlier) and not torch.equal(both, sample(guided(flux), POSITIVE))


def test_an_earlier_attention_override_is_kept_and_called_once_per_use(flux):
    calls = []

    def earlier(func, *args, **kwargs):
        calls.append(kwargs["transformer_options"]["block_index"])
        return func(*args, **kwargs) * 1.01

    model = flux.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = earlier
    with_earlier = sample(model, POSITIVE, steps=1)
    plain_calls = list(calls)
    calls.clear()
    both = sample(guided(model), POSITIVE, steps=1)
    assert calls == plain_calls == [0, 1, 2, 3, 0, 1]
    assert not torch.equal(both, with_earlier) and not torch.equal(both, sample(guided(flux), POSITIVE, steps=1))


def test_a_later_attention_override_sees_guided_blocks_too(flux):
    calls = []

    def later(func, *args, **kwargs):
        calls.append(kwargs["transformer_options"]["block_index"])
        return func(*args, **kwargs)

    model = guided(flux)
    model.model_options["transformer_options"]["optimized_attention_override"] = later
    assert torch.equal(sample(model, POSITIVE, steps=1), sample(guided(flux), POSITIVE, steps=1))
    assert calls == [0, 1, 2, 3, 0, 1]


# --- the source model ---


def test_the_source_model_is_left_as_it_was(flux):
    before, plain = options_of(flux), sample(flux, POSITIVE)
    sample(guided(flux), POSITIVE)
    assert options_of(flux) == before
    assert torch.equal(sample(flux, POSITIVE), plain)


@pytest.mark.parametrize("error", [comfy.model_management.InterruptProcessingException, RuntimeError])
def test_nothing_is_left_behind_when_sampling_breaks_off(flux, error):
    plain, model = sample(flux, POSITIVE), guided(flux)
    whole, before = sample(model, POSITIVE), (options_of(flux), options_of(model))

    def stop(step, *args):
        if step == 1:
            raise error("halfway")

    with pytest.raises(error, match="halfway"):
        sample(model, POSITIVE, callback=stop)
    assert (options_of(flux), options_of(model)) == before
    assert torch.equal(sample(flux, POSITIVE), plain)
    assert torch.equal(sample(model, POSITIVE), whole)


# --- what is said ---


def test_one_line_says_what_was_guided(flux, caplog):
    sample(guided(flux), POSITIVE)
    (line,) = messages(caplog)
    assert line.startswith("NAG-PAG guided double blocks 1, 2, 3: 3 steps, mean change ")
    assert line.endswith("(scale 3, tau 2.5, alpha 0.25, identity).")
    assert not messages(caplog, logging.WARNING)


def test_the_line_counts_steps_not_evaluations(flux, caplog):
    sample(guided(flux), POSITIVE, prompt(2, tokens=14), cfg=2.0, sampler="heun", steps=4)
    assert ": 4 steps, " in messages(caplog)[0]


def test_a_run_without_a_guided_step_says_so(flux, caplog):
    sample(guided(flux, start_percent=0.5, end_percent=0.5), POSITIVE)
    (line,) = messages(caplog)
    assert line.startswith("NAG-PAG guided nothing: no step of this sampling lay between")


def test_an_interrupted_run_says_so(flux, caplog):
    def stop(step, *args):
        raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(guided(flux), POSITIVE, callback=stop)
    assert "stopped early" in messages(caplog)[0]


def broken_block(args, extra):
    raise KeyError("made to fail")


def broken_sampler(model, x, sigmas, **kwargs):
    raise KeyError("made to fail")


def test_a_sampling_that_ends_in_an_error_says_so(flux, caplog):
    """At the first step, in a block of another patch; in the sampler, before any step; after two steps."""
    model = flux.clone()
    model.set_model_patch_replace(broken_block, "dit", "double_block", 0)
    with pytest.raises(KeyError):
        sample(guided(model), POSITIVE)
    assert messages(caplog) == ["NAG-PAG guided nothing: the sampling ended in an error, KeyError: 'made to fail'."]
    caplog.clear()
    with pytest.raises(KeyError), pytest.MonkeyPatch.context() as broken:
        broken.setattr(comfy.k_diffusion.sampling, "sample_euler", broken_sampler)
        sample(guided(flux), POSITIVE)
    assert messages(caplog) == [
        "NAG-PAG guided nothing: the model was not called: the sampling ended in an error, KeyError: 'made to fail'."
    ]
    caplog.clear()
    with pytest.raises(KeyError):
        sample(guided(flux), POSITIVE, callback=lambda step, *args: step or broken_block(None, None))
    (line,) = messages(caplog)
    assert "stopped early, as the sampling ended in an error, KeyError: 'made to fail' (scale" in line
    assert not messages(caplog, logging.WARNING)


def test_the_same_error_in_several_blocks_is_said_once(flux, caplog, monkeypatch):
    monkeypatch.setattr(merge, "guide", lambda *args: 1 / 0)
    assert torch.equal(sample(guided(flux), POSITIVE), sample(flux, POSITIVE))
    (warning,) = messages(caplog, logging.WARNING)
    assert "double block 1 goes on without guidance" in warning


def test_a_block_taken_by_a_later_node_is_a_warning(flux, caplog):
    model = guided(flux)
    model.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 2)
    sample(model, POSITIVE)
    (warning,) = messages(caplog, logging.WARNING)
    assert "double block 2 not guided" in warning and "Put NAG-PAG Guidance after that node" in warning
    assert messages(caplog)[-1].startswith("NAG-PAG guided double blocks 1, 3: ")


def test_a_later_node_that_calls_ours_is_no_warning(flux, caplog):
    model = guided(flux)
    ours = model.model_options["transformer_options"]["patches_replace"]["dit"][("double_block", 2)]
    model.set_model_patch_replace(lambda args, extra: ours(args, extra), "dit", "double_block", 2)
    assert torch.equal(sample(model, POSITIVE), sample(guided(flux), POSITIVE))
    assert not messages(caplog, logging.WARNING)


def test_a_block_that_the_forward_skips_is_a_warning(flux, caplog, monkeypatch):
    """A forward that ends after two double blocks, as a block cache or a layer skip makes it."""
    model, modules = guided(flux, blocks="1, 2"), flux.model.diffusion_model._modules
    monkeypatch.setitem(modules, "double_blocks", modules["double_blocks"][:2])
    sample(model, POSITIVE)
    (warning,) = messages(caplog, logging.WARNING)
    assert "double block 2 never reached" in warning and "block cache" in warning


# --- what goes wrong inside guidance ---


def test_an_error_inside_guidance_falls_back_for_that_block_with_one_warning(flux, caplog, monkeypatch):
    guide, calls = merge.guide, []

    def breaks_in_block_2(*args):
        calls.append(None)
        if len(calls) == 2:
            raise RuntimeError("made to fail")
        return guide(*args)

    monkeypatch.setattr(merge, "guide", breaks_in_block_2)
    ours = sample(guided(flux, blocks="1, 2"), POSITIVE, steps=3)
    monkeypatch.setattr(merge, "guide", guide)
    assert torch.equal(ours, sample(guided(flux, blocks="1"), POSITIVE, steps=3))
    (warning,) = messages(caplog, logging.WARNING)
    assert "double block 2 goes on without guidance from sigma 1 on: RuntimeError: made to fail" in warning
    assert messages(caplog)[0].startswith("NAG-PAG guided double blocks 1: 3 steps")
    assert messages(caplog)[0].endswith(" double block 2 failed, as said above.")


def test_a_failure_at_the_last_step_does_not_hide_what_was_guided(flux, caplog, monkeypatch):
    guide, calls = merge.guide, []

    def breaks_at_the_end(*args):
        calls.append(None)
        return 1 / 0 if len(calls) == 3 else guide(*args)

    monkeypatch.setattr(merge, "guide", breaks_at_the_end)
    sample(guided(flux, blocks="1"), POSITIVE, steps=3)
    assert messages(caplog)[0].startswith("NAG-PAG guided double blocks 1: 2 steps, ")


def test_a_failure_from_the_first_step_on_ends_in_a_line_too(flux, caplog, monkeypatch):
    monkeypatch.setattr(merge, "guide", lambda *args: 1 / 0)
    sample(guided(flux), POSITIVE)
    assert messages(caplog) == ["NAG-PAG guided nothing: it failed, as said above."]


@pytest.mark.parametrize("place", ["_chunks", "_end"])
def test_an_error_outside_of_the_blocks_is_no_end_of_the_sampling_either(flux, caplog, monkeypatch, place):
    monkeypatch.setattr(wrappers, place, lambda *args: 1 / 0)
    ours = sample(guided(flux), POSITIVE)
    assert torch.equal(ours, sample(flux, POSITIVE)) == (place == "_chunks")
    (warning,) = messages(caplog, logging.WARNING)[:1]
    assert "forwards go on without guidance: ZeroDivisionError" in warning


def test_a_failed_block_is_tried_again_in_the_next_run(flux, caplog, monkeypatch):
    model, whole = guided(flux), sample(guided(flux), POSITIVE)
    with monkeypatch.context() as broken:
        broken.setattr(merge, "guide", lambda *args: 1 / 0)
        assert torch.equal(sample(model, POSITIVE), sample(flux, POSITIVE))
    assert torch.equal(sample(model, POSITIVE), whole)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        comfy.model_management.InterruptProcessingException(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_and_interrupts_pass_through(flux, monkeypatch, error):
    def fails(*args):
        raise error

    monkeypatch.setattr(merge, "guide", fails)
    with pytest.raises(type(error)):
        sample(guided(flux), POSITIVE)


def test_an_error_of_the_host_attention_is_not_ours_to_catch(flux):
    def broken(func, *args, **kwargs):
        raise ValueError("the host's own")

    model = flux.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = broken
    with pytest.raises(ValueError, match="the host's own"):
        sample(guided(model), POSITIVE)


def test_a_token_that_is_not_finite_keeps_the_plain_value(flux):
    """Inject an infinity into one token's value in block 2: only that token, and only there, goes unguided."""
    seen = {}

    def earlier(func, q, k, v, heads, *args, **kwargs):
        z = func(q, k, v, heads, *args, **kwargs)
        options = kwargs["transformer_options"]
        if (options["block_type"], options["block_index"]) == ("double", 2):
            v[0, 0, 9 + 4, 0] = float("inf")
            seen["plain"] = z[:, 9:].clone()
        return z

    model = flux.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = earlier
    projection = flux.model.diffusion_model.double_blocks[2].img_attn.proj
    handle = projection.register_forward_pre_hook(lambda module, args: seen.update(given=args[0].clone()))
    try:
        assert torch.isfinite(sample(guided(model, blocks="2"), POSITIVE, steps=1)).all()
    finally:
        handle.remove()
    same = (seen["plain"] == seen["given"]).all(dim=-1)[0]
    assert torch.nonzero(same).flatten().tolist() == [4]


# --- models that can't be guided ---


def test_a_model_of_another_family_is_refused_by_name():
    from comfy.ldm.genmo.joint_model.asymm_models_joint import AsymmDiTJoint as Mochi

    class Patcher:
        def __init__(self, diffusion_model):
            self.diffusion_model = diffusion_model

        def get_model_object(self, name):
            return getattr(self, name)

    for diffusion_model, name in (
        (torch.nn.Linear(1, 1), "Linear"),
        (Mochi.__new__(Mochi), "AsymmDiTJoint"),
    ):
        with pytest.raises(ValueError, match=f"its class is {name}. That works with: FLUX.1"):
            guided(Patcher(diffusion_model))


def test_a_block_that_the_model_lacks_is_refused(flux):
    with pytest.raises(ValueError, match="block 25 does not exist: this model has double blocks 0 to 3"):
        guided(flux, blocks="25")


# --- packs that copy a model's options deeply while it samples ---


class Uncopied(ControlBase):
    """A ControlNet with a model of gigabytes."""

    def __deepcopy__(self, memo):
        pytest.fail("copied with all its weights")

    def get_control(self, *args):
        return None

    def get_models(self):
        return []

    def copy(self):
        return self


def counting():
    """An attention override that keeps something in its closure, which a negative stream copies for itself."""
    calls = []

    def override(func, *args, **kwargs):
        calls.append(1)
        return func(*args, **kwargs)

    return override


def copying(model):
    """The model with a pack's functions on it that copy all that they are given."""
    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = counting()

    def before_cfg(args):
        options = copy.deepcopy(args["model_options"])
        return comfy.samplers.calc_cond_batch(args["model"], args["conds"], args["input"], args["sigma"], options)

    def around_model(apply_model, args):
        return apply_model(args["input"], args["timestep"], **copy.deepcopy(args["c"]))

    def in_block(args):
        copy.deepcopy(args.get("transformer_options"))  # of old ComfyUIs it is not told
        return args

    model.set_model_sampler_pre_cfg_function(before_cfg)
    model.set_model_unet_function_wrapper(around_model)
    model.set_model_patch(in_block, "post_input")
    return model


@pytest.mark.parametrize("reach", ["attention", "output", "prediction"])
@pytest.mark.parametrize("negative_prompt", ["sampler's", "off"])
def test_what_is_copied_deeply_stays_one(flux, caplog, reach, negative_prompt):
    """The same is drawn, recorded too, and nothing of the sampling is copied."""
    inputs = {"reach": reach, "negative_prompt": negative_prompt, "renew_every": 2}
    prompts = POSITIVE, prompt(2, control=Uncopied(), control_apply_to_uncond=True)
    drawn, records = [], (Record(), Record())
    for model, record in zip((flux, copying(flux)), records, strict=True):
        drawn.append(sample(record_model(guided(model, **inputs), record), *prompts))
    assert torch.equal(*drawn) and not torch.equal(drawn[0], sample(flux, *prompts))
    ours, theirs = (sorted({row.step for row in record.recordings[0].rows}) for record in records)
    assert ours == theirs == [1, 2, 3] and not [r for r in caplog.records if r.levelno >= logging.WARNING]


# --- the host's start ---


def test_the_pack_loads_without_what_is_slow(monkeypatch):
    """What its modules ask for until the host has its nodes, in a copy of it under another name."""
    asked, plain = set(), builtins.__import__

    def heard(name, scope=None, within=None, names=(), level=0):
        if level == 0 and str((scope or {}).get("__name__")).startswith("another_pack"):
            asked.add(name.partition(".")[0])
        return plain(name, scope, within, names, level)

    spec = importlib.util.spec_from_file_location(
        "another_pack", host.REPO / "__init__.py", submodule_search_locations=[str(host.REPO)]
    )
    monkeypatch.setitem(sys.modules, "another_pack", pack := importlib.util.module_from_spec(spec))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", heard)
            spec.loader.exec_module(pack)
            nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    finally:
        for name in [name for name in sys.modules if name.startswith("another_pack.")]:
            del sys.modules[name]
    assert len(nodes) == 7
    # What ComfyUI itself has loaded by then. No NumPy, Pillow, pydantic or Matplotlib.
    assert asked - set(sys.stdlib_module_names) == {"aiohttp", "comfy_api", "typing_extensions"}
