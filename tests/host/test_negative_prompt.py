"""A branch that carries a negative prompt, against the host's own forward on that prompt."""

import gc
import json
import logging
from functools import partial

import comfy.hooks
import comfy.sample
import comfy.samplers
import pytest
import torch
from by_prediction import Pushed, cfg_guider, draw
from by_prediction import negative as negative_branch
from comparing import DOUBLES, LAST, LAST_DOUBLE, POSITIVE, assert_same_effect, residuals
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED
from own_forward import OwnForward
from sampling import guided, latent, load_flux, picture_tokens, prompt, sample

DEFAULTS = {"scale": 3.0, "tau": 1.5, "alpha": 0.15, "perturbation": 0.0, "blocks": "1-3"}
NEGATIVES = {"equal": prompt(2), "shorter": prompt(2, tokens=4), "longer": prompt(2, tokens=14)}


def check(model, inputs, merge, negative, tokens=None, branch=None, tolerance=1e-5, **sampling):
    """Sample plain, by the node and by the oracle: two steps, of which one follows another."""
    inputs = {"renew_every": 1, "negative_prompt": "sampler's", **DEFAULTS, **inputs}
    strengths = tuple(inputs[name] for name in ("scale", "tau", "alpha"))
    sampling = {"positive": POSITIVE, "negative": negative, "steps": 2, **sampling}
    tokens = tokens or picture_tokens()
    oracle = OwnForward(model, negative, merge, tokens, strengths, branch, inputs["renew_every"])
    plain, ours = sample(model, **sampling), sample(guided(model, **inputs), **sampling)
    expected = sample(oracle.patched(model), **sampling)
    effect = (expected - plain).abs().max()
    assert effect > 1e-4
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6
    return oracle


@pytest.mark.parametrize("length", NEGATIVES)
@pytest.mark.parametrize(
    "inputs, merge",
    [
        ({"reach": "double blocks"}, LAST_DOUBLE),
        ({"reach": "output"}, LAST),
        ({"reach": "attention", "reach_blocks": 1}, 2),
        ({"reach": "attention", "reach_blocks": 3}, DOUBLES),
    ],
    ids=str,
)
def test_every_reach_and_length(flux64, inputs, merge, length):
    check(flux64, inputs, merge, NEGATIVES[length])


def test_the_nodes_defaults(flux64):
    """As the table of inputs has them: pushed away from what the host predicts of the negative prompt."""
    begin = flux64.get_model_object("model_sampling").percent_to_sigma(0.45)
    late = {"strength": lambda sigma: float(sigma <= begin)}
    oracle = Pushed(negative_branch(), scale=3.0, tau=1.75, alpha=0.5, every=6, **late)
    inputs = {"steps": 20, "size": (1, 8, 12)}
    guider = partial(cfg_guider, positive=POSITIVE, negative=NEGATIVES["longer"])
    expected, plain = draw(oracle.on(guider(flux64)), **inputs), draw(guider(flux64), **inputs)
    assert_same_effect(draw(guider(guided(flux64, **ADVANCED.defaults)), **inputs), expected, plain)
    assert len(oracle.computed) == 2


def test_the_default_branch_of_before(flux64):
    """Merged after the last block of all, every sixth step from the first on."""
    inputs = {**ADVANCED.defaults, "start_percent": 0.0, "reach": "output", "alpha": 0.2, "renew_every": 6}
    oracle = check(flux64, inputs, LAST, NEGATIVES["longer"], steps=7)
    assert oracle.computed == 2


@pytest.mark.parametrize("strengths", [{"tau": 10.0, "alpha": 1.0, "scale": 1.0}, {"tau": 1.0, "alpha": 1.0}])
def test_with_and_without_the_limit(flux64, strengths):
    check(flux64, {"reach": "double blocks", **strengths}, LAST_DOUBLE, NEGATIVES["longer"])


@pytest.mark.parametrize("reach", ["double blocks", "output"])
def test_a_branch_that_carries_a_prompt_is_not_disturbed_as_well(flux, caplog, reach):
    """Whatever would disturb it where there is none: the blocks, their heads and scales, the kind, how much."""
    caplog.set_level(logging.INFO)
    carried = {**DEFAULTS, "reach": reach, "negative_prompt": "sampler's"}
    disturbed = {"blocks": "1, 3[0]:2.0", "negative": "softened", "temperature": 3.0, "perturbation": 0.4}
    one, other = (guided(flux, **inputs) for inputs in (carried, {**carried, **disturbed}))
    found, expected = (sample(model, POSITIVE, negative=prompt(2)) for model in (other, one))
    assert torch.equal(found, expected)
    assert not torch.equal(found, sample(flux, POSITIVE, negative=prompt(2)))
    blocks = "blocks 1, 3[0]:2.0, " if reach == "output" else ""  # elsewhere they may place the merge
    said = f"{blocks}negative softened, temperature 3, perturbation 0.4."
    assert f"carries a negative prompt, so that nothing is done by {said}" in caplog.text


@pytest.mark.parametrize("reach, merge", [("double blocks", LAST_DOUBLE), ("output", LAST)])
@pytest.mark.parametrize("every", [2, 3])
def test_renewal(flux64, reach, merge, every):
    oracle = check(flux64, {"reach": reach, "renew_every": every}, merge, NEGATIVES["longer"], steps=6)
    assert oracle.computed == 6 // every


@pytest.mark.parametrize("reach, merge", [("double blocks", LAST_DOUBLE), ("output", LAST)])
class TestWhatTheHostCanDo:
    def test_batches(self, flux64, reach, merge):
        check(flux64, {"reach": reach}, merge, NEGATIVES["longer"], size=(3, 8, 12))

    @pytest.mark.parametrize("length", NEGATIVES)
    def test_cfg(self, flux64, reach, merge, length):
        check(flux64, {"reach": reach}, merge, NEGATIVES[length], cfg=3.0, size=(2, 8, 12))

    def test_two_prompts_with_areas(self, flux64, reach, merge):
        left, right = prompt(1, area=(8, 6, 0, 0)), prompt(3, tokens=12, area=(8, 6, 0, 6))
        sampling = {"positive": left + right, "tokens": picture_tokens(8, 6)}
        check(flux64, {"reach": reach}, merge, NEGATIVES["shorter"], **sampling)

    def test_references(self, flux64, reach, merge):
        """The branch keeps the prompt's reference pictures; only the picture being made is merged."""
        positive = prompt(1, reference_latents=[latent(height=6, width=8)])
        check(flux64, {"reach": reach}, merge, NEGATIVES["longer"], positive=positive, size=(2, 8, 12))

    def test_masks(self, flux64, reach, merge):
        """Each prompt has its own, or none."""

        def masked(seed, tokens):
            length, generator = tokens + picture_tokens(), torch.Generator().manual_seed(seed)
            mask = torch.randn(1, length, length, generator=generator)
            return prompt(seed, tokens=tokens, attention_mask=mask, attention_mask_img_shape=(4, 6))

        for positive, negative in ((masked(1, 9), masked(2, 14)), (POSITIVE, masked(2, 14)), (masked(1, 9), prompt(2))):
            check(flux64, {"reach": reach}, merge, negative, positive=positive)

    @pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
    def test_samplers(self, flux64, reach, merge, sampler):
        check(flux64, {"reach": reach}, merge, NEGATIVES["longer"], sampler=sampler)

    def test_a_part_of_the_sampling(self, flux64, reach, merge):
        ours = guided(flux64, **{**DEFAULTS, "negative_prompt": "sampler's", "reach": reach, "end_percent": 0.0})
        sampling = {"positive": POSITIVE, "negative": prompt(2), "steps": 4}
        assert not torch.equal(sample(ours, **sampling), sample(flux64, **sampling))


def test_the_prompt_as_its_own_negative_is_the_plain_model(flux64, caplog):
    ours = guided(flux64, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    found, plain = (sample(model, POSITIVE, negative=prompt(1)) for model in (ours, flux64))
    assert (found - plain).abs().max() < 1e-6
    assert "the negative prompt is the prompt itself" in caplog.text


def test_the_same_words_with_another_pooled_vector_are_another_prompt(flux, caplog):
    ((context, extras),) = prompt(1)
    negative = [[context, {**extras, "pooled_output": -extras["pooled_output"]}]]
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    assert not torch.equal(sample(ours, POSITIVE, negative=negative), sample(flux, POSITIVE, negative=negative))
    assert warnings(caplog) == []


@pytest.mark.parametrize("reach", ["double blocks", "output"])
@pytest.mark.parametrize("pictures", [1, 3])
def test_a_negative_prompt_of_several_rows(flux64, reach, pictures):
    """The host repeats a conditioning's rows to the pictures, and cuts what is too many."""
    rows = [prompt(seed) for seed in (2, 3)]
    context = torch.cat([one[0][0] for one in rows])
    pooled = torch.cat([one[0][1]["pooled_output"] for one in rows])
    together = [[context, {"pooled_output": pooled, "guidance": 3.5}]]
    inputs = {**DEFAULTS, "reach": reach, "negative_prompt": "sampler's", "renew_every": 1}
    model, size = guided(flux64, **inputs), (pictures, 8, 12)
    found, *alone = (sample(model, POSITIVE, negative=negative, size=size) for negative in (together, *rows))
    for i in range(pictures):
        assert torch.allclose(found[i], alone[i % 2][i], atol=1e-5)
        assert not torch.allclose(found[i], alone[1 - i % 2][i], atol=1e-5)


def test_guide_unconditional_has_no_say_where_a_negative_prompt_is_carried(flux, caplog):
    """The negative prompt's own rows would have nothing to be pushed from."""
    inputs = {**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"}
    one, other = (guided(flux, **inputs, guide_unconditional=on) for on in (False, True))
    found, expected = (sample(model, POSITIVE, negative=prompt(2), cfg=3.0) for model in (other, one))
    assert torch.equal(found, expected)
    assert "guide_unconditional does nothing, as the branch carries a negative prompt" in caplog.text
    assert "unconditional rows too" not in caplog.text


def test_off_is_what_it_was_whatever_the_negative(flux):
    inputs = {"reach": "double blocks", "negative_prompt": "off"}
    one, other = (sample(guided(flux, **inputs), POSITIVE, negative=prompt(n)) for n in (2, 3))
    assert torch.equal(one, other)


def test_a_part_that_ends_before_guidance_begins_says_that(flux, caplog):
    """Though there was no negative prompt either: the attention would have been disturbed instead."""
    caplog.set_level(logging.INFO)
    asked = {"reach": "output", "negative_prompt": "sampler's", "start_percent": 1.0}
    basic(guided(flux, **asked))
    assert "no step of this sampling lay between start_percent and end_percent" in caplog.text


@pytest.mark.parametrize("reach", ["double blocks", "output"])
def test_another_negative_prompt_is_another_picture(flux, reach):
    inputs = {**DEFAULTS, "reach": reach, "negative_prompt": "sampler's"}
    one, other = (sample(guided(flux, **inputs), POSITIVE, negative=prompt(n)) for n in (2, 3))
    assert not torch.equal(one, other)


# --- a negative prompt of the node's own ---


def basic(model, positive=POSITIVE):
    """As SamplerCustomAdvanced with a BasicGuider samples."""
    from comfy_extras.nodes_custom_sampler import Guider_Basic

    guider = Guider_Basic(model)
    guider.set_conds(positive)
    empty = torch.zeros(1, 16, 8, 12)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 3)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(comfy.sample.prepare_noise(empty, 7), empty, sampler, sigmas, disable_pbar=True, seed=7)


@pytest.mark.parametrize("choice", ["off", "sampler's"])
def test_its_own_wins_over_the_samplers(flux, choice):
    inputs = {**DEFAULTS, "reach": "double blocks"}
    own = guided(flux, **inputs, negative_prompt=choice, negative_conditioning=prompt(2, tokens=5))
    theirs = guided(flux, **inputs, negative_prompt="sampler's")
    found = sample(own, POSITIVE, negative=prompt(3))
    assert torch.equal(found, sample(theirs, POSITIVE, negative=prompt(2, tokens=5)))
    assert not torch.equal(found, sample(theirs, POSITIVE, negative=prompt(3)))


def test_its_own_works_with_a_guider_that_has_none(flux):
    inputs = {**DEFAULTS, "reach": "double blocks"}
    found = basic(guided(flux, **inputs, negative_conditioning=prompt(2)))
    expected = sample(guided(flux, **inputs, negative_prompt="sampler's"), POSITIVE, negative=prompt(2))
    assert torch.equal(found, expected)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_without_any_it_guides_as_off_and_says_what_to_wire(flux, caplog):
    inputs = {"reach": "double blocks", "perturbation": 1.0}
    found = basic(guided(flux, **inputs, negative_prompt="sampler's"))
    (said,) = warnings(caplog)
    assert "so guidance does without it: this sampler has none" in said
    assert "Wire a negative prompt to the sampler" in said
    assert torch.equal(found, basic(guided(flux, **inputs)))


def test_without_any_and_without_a_disturbance_nothing_is_guided_and_that_is_said(flux, caplog):
    caplog.set_level(logging.INFO)
    found = basic(guided(flux, **DEFAULTS, reach="double blocks", negative_prompt="sampler's"))
    (said,) = warnings(caplog)[:1]
    assert "so nothing is guided, as perturbation is 0: this sampler has none" in said
    assert torch.equal(found, basic(flux))
    assert "there was no negative prompt" in caplog.text and " 0 %" not in caplog.text


@pytest.mark.parametrize("perturbation", [0.0, 1.0])
def test_zeros_count_as_none(flux, caplog, perturbation):
    zeros = [[torch.zeros(1, 9, 64), {"pooled_output": torch.zeros(1, 32), "guidance": 3.5}]]
    inputs = {**DEFAULTS, "reach": "output", "perturbation": perturbation}
    found = sample(guided(flux, **inputs, negative_prompt="sampler's"), POSITIVE, negative=zeros)
    (said, *_) = warnings(caplog)
    assert "all zeros (ConditioningZeroOut)" in said and "CLIP Text Encode" in said
    assert torch.equal(found, sample(guided(flux, **inputs), POSITIVE, negative=zeros))
    assert torch.equal(found, sample(flux, POSITIVE, negative=zeros)) is (perturbation == 0)


@pytest.mark.parametrize(
    "negative, said",
    [
        (prompt(2) + prompt(3), "carries one negative prompt, and there are 2"),
        (prompt(2, area=(8, 6, 0, 0)), "a part of the picture or of the sampling only (area)"),
        (prompt(2, start_percent=0.5), "only (start_percent)"),
        (prompt(2, start_percent=0.0, end_percent=0.9), "only (end_percent)"),
        (prompt(2, mask=torch.ones(1, 64, 96)), "only (mask)"),
    ],
)
def test_what_one_branch_cannot_stand_for_is_refused_before_sampling(flux, negative, said):
    steps = []
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    with pytest.raises(ValueError) as caught:
        sample(ours, POSITIVE, negative=negative, callback=lambda *args: steps.append(args))
    assert said in str(caught.value) and not steps


def test_a_range_over_all_of_the_sampling_is_no_part(flux):
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    whole, plain = prompt(2, start_percent=0.0, end_percent=1.0), prompt(2)
    assert torch.equal(sample(ours, POSITIVE, negative=whole), sample(ours, POSITIVE, negative=plain))


# --- weights, ControlNet, other patches, errors ---


@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float32, 1e-3), (torch.bfloat16, 0.25), (torch.float16, 0.03), (torch.float8_e4m3fn, 0.25)],
)
def test_types_and_quantised_weights(flux_file, dtype, tolerance):
    model = load_flux(flux_file, dtype)
    inputs = {"reach": "output", "tau": 10.0, "alpha": 1.0, "scale": 1.0}
    check(model, inputs, LAST, NEGATIVES["longer"], size=(2, 8, 12), tolerance=tolerance)


def test_a_lora_counts_in_the_branch_and_in_its_text(flux64):
    generator = torch.Generator().manual_seed(0)
    changes = {
        "diffusion_model.double_blocks.2.img_attn.qkv.weight": (torch.randn(768, 256, generator=generator) / 16,),
        "diffusion_model.txt_in.weight": (torch.randn(256, 64, generator=generator) / 8,),
    }
    model = flux64.clone()
    assert len(model.add_patches(changes, 0.5)) == 2
    check(model, {"reach": "double blocks"}, LAST_DOUBLE, NEGATIVES["longer"])


def test_a_controlnet_adds_what_it_adds_to_the_prompt(flux64):
    positive = prompt(1, control=residuals(flux64), control_apply_to_uncond=True)
    assert not torch.allclose(sample(flux64, positive), sample(flux64, POSITIVE))
    for reach, merge in (("double blocks", LAST_DOUBLE), ("output", LAST)):
        check(flux64, {"reach": reach}, merge, NEGATIVES["longer"], positive=positive)


def test_the_text_is_projected_once_a_sampling_and_anew_where_weights_change(flux, monkeypatch):
    """Hooks on a prompt (LoRA schedules) may change the weights at any step."""
    from nag_pag_flux.nagpag.patch import negative as module

    calls, projected = [], module._projected
    monkeypatch.setattr(module, "_projected", lambda *args: calls.append(None) or projected(*args))
    ours = guided(flux, **{**DEFAULTS, "reach": "output", "negative_prompt": "sampler's", "renew_every": 1})
    once = sample(ours, POSITIVE, negative=prompt(2), steps=4)
    assert len(calls) == 1
    hooked = ours.clone()
    hooked.hook_patches = {"any": {}}
    assert torch.equal(sample(hooked, POSITIVE, negative=prompt(2), steps=4), once)
    assert len(calls) == 1 + 4


def test_tiles_of_unequal_sizes_share_one_text(flux, monkeypatch):
    from nag_pag_flux.nagpag.patch import negative as module

    def in_tiles(apply_model, given):
        x = given["input"]
        return torch.cat([apply_model(tile, given["timestep"], **given["c"]) for tile in x.split([8, 4], -1)], -1)

    calls, projected = [], module._projected
    monkeypatch.setattr(module, "_projected", lambda *args: calls.append(None) or projected(*args))
    model = guided(flux, **{**DEFAULTS, "reach": "output", "negative_prompt": "sampler's", "renew_every": 1})
    model.set_model_unet_function_wrapper(in_tiles)
    sample(model, POSITIVE, negative=prompt(2), steps=2)
    assert len(calls) == 1


heard = set()  # not in a closure: what an override keeps there, it keeps for the branch apart


def hearing(func, *args, **kwargs):
    heard.add(kwargs["transformer_options"].get("nag_pag_negative", False))
    return func(*args, **kwargs)


def test_it_runs_beside_an_earlier_node_and_an_attention_override(flux64):
    heard.clear()
    model = flux64.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = hearing
    check(model, {"reach": "double blocks"}, LAST_DOUBLE, NEGATIVES["longer"])
    assert heard == {True, False}


def test_an_error_in_the_text_leaves_the_plain_picture_and_one_warning(flux, caplog, monkeypatch):
    from nag_pag_flux.nagpag.patch import negative as module

    monkeypatch.setattr(module, "_projected", lambda *args: 1 / 0)
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    found = sample(ours, POSITIVE, negative=prompt(2))
    assert torch.equal(found, sample(flux, POSITIVE, negative=prompt(2)))
    (said,) = warnings(caplog)
    assert "forwards go on without guidance: ZeroDivisionError" in said


def test_a_first_block_that_another_pack_replaced_is_missed(flux, caplog):
    """The negative prompt starts in it, whichever blocks are chosen."""
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    ours.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    sample(ours, POSITIVE, negative=prompt(2))
    assert any("double block 0 not guided" in said for said in warnings(caplog))


@pytest.mark.parametrize("length", NEGATIVES)
def test_what_a_patch_adds_to_the_text_it_adds_to_the_negative_one(flux64, length):
    """The oracle's forward on the negative prompt asks the patch by itself, as any forward does."""

    def adds(args):
        style = torch.full_like(args["txt"][:, :3], 0.5)
        ids = torch.cat((torch.zeros_like(args["txt_ids"][:, :3]), args["txt_ids"]), 1)
        return {**args, "txt": torch.cat((style, 1.1 * args["txt"]), 1), "txt_ids": ids}

    model = flux64.clone()
    model.set_model_post_input_patch(adds)
    check(model, {"reach": "double blocks"}, LAST_DOUBLE, NEGATIVES[length])


def test_a_forward_that_gives_text_patches_no_options_guides_all_the_same(flux):
    """Other packs' forwards, and older hosts, hand post_input patches the text alone."""
    from comfy.patcher_extension import WrappersMP

    def without_options(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or next(a for a in args if isinstance(a, dict))
        patches = options["patches"]["post_input"]
        options["patches"]["post_input"] = [
            lambda given, patch=patch: patch({k: v for k, v in given.items() if k != "transformer_options"})
            for patch in patches
        ]
        return executor(*args, **kwargs)

    def louder(args):
        return {**args, "txt": 1.1 * args["txt"]}

    def run(bare):
        model = flux.clone()
        model.set_model_post_input_patch(louder)
        model = guided(model, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
        if bare:
            model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", without_options)
        return sample(model, POSITIVE, negative=prompt(2))

    assert torch.equal(run(bare=True), run(bare=False))


def test_a_patch_that_fails_on_the_negative_text_leaves_the_plain_picture_and_one_warning(flux, caplog):
    def adds(args):
        if args["txt"].shape[1] == 14:
            raise RuntimeError("made to fail")
        return {**args, "txt": args["txt"] + 1}

    model = flux.clone()
    model.set_model_post_input_patch(adds)
    ours = guided(model, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    found, plain = (sample(one, POSITIVE, negative=NEGATIVES["longer"]) for one in (ours, model))
    assert torch.equal(found, plain)
    (said,) = warnings(caplog)
    assert "made to fail" in said and "it failed, as said above" in caplog.text


def test_an_error_in_the_branch_leaves_the_plain_picture_and_one_warning(flux, caplog, monkeypatch):
    from nag_pag_flux.nagpag.patch import branch

    monkeypatch.setattr(branch, "_carry", lambda *args: 1 / 0)
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's"})
    assert torch.equal(sample(ours, POSITIVE, negative=prompt(2)), sample(flux, POSITIVE, negative=prompt(2)))
    (said,) = warnings(caplog)
    assert "double block 0 goes on without guidance" in said


def test_nothing_is_left_after_runs_that_were_interrupted_or_failed(flux):
    import comfy.model_management

    ours = guided(flux, **{**DEFAULTS, "reach": "output", "negative_conditioning": prompt(2)})

    def stop(step, *args):
        raise comfy.model_management.InterruptProcessingException

    def tensors():
        gc.collect()
        return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())

    sample(ours, POSITIVE)
    before = tensors()
    for _ in range(3):
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(ours, POSITIVE, callback=stop)
        sample(ours, POSITIVE)
    assert tensors() <= before
    assert "negative" not in str(ours.model_options.keys()) and not set(vars(flux)) ^ set(vars(flux.clone()))


@pytest.mark.parametrize("inputs, said", [
    ({}, "guided by a negative prompt: 3 steps, branch merged after double block 3 and computed at 1 of them"),
    ({"perturbation": 0.5}, "guided by a negative prompt: 3 steps"),
    ({"blocks": "1:0"}, "guided by a negative prompt: 3 steps"),
])  # fmt: skip
def test_the_log_says_what_guided(flux, caplog, inputs, said):
    asked = {**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's", "renew_every": 4, **inputs}
    sample(guided(flux, **asked), POSITIVE, negative=prompt(2))
    assert f"NAG-PAG {said}" in caplog.text


def test_a_record_has_one_row_a_step(flux):
    from nag_pag_flux.nagpag.diagnostics.record import Record
    from nag_pag_flux.nagpag.diagnostics.recording import record_model

    record = Record()
    ours = guided(flux, **{**DEFAULTS, "reach": "double blocks", "negative_prompt": "sampler's", "renew_every": 2})
    sample(record_model(ours, record), POSITIVE, negative=prompt(2))
    (recording,) = record.recordings
    assert [row.branch for row in recording.rows] == ["computed", "reused", "computed"]
    assert recording.problems() == [] and all(row.change > 0 for row in recording.rows)
    assert json.loads(recording.as_json())["guidances"][0]["settings"]["negative_prompt"] == "sampler's"


def test_a_negative_prompt_of_the_nodes_own_has_no_hooks(flux):
    """ComfyUI has prepared the sampler's by the time that it is added; on the sampler they act (test_prediction)."""
    control = residuals(flux)
    control.extra_hooks = comfy.hooks.HookGroup()
    control.extra_hooks.add(comfy.hooks.WeightHook())
    for extra in ({"hooks": comfy.hooks.HookGroup()}, {"control": control}):
        with pytest.raises(ValueError, match="negative_conditioning has hooks.*Wire it to the sampler's negative"):
            guided(flux, negative_conditioning=[*prompt(2), *prompt(3, **extra)])
    control.extra_hooks = None
    assert guided(flux, negative_conditioning=prompt(3, control=control))


@pytest.mark.parametrize("reach", ["output", "prediction"])
def test_the_model_is_told_that_it_is_a_negative_one(flux, monkeypatch, reach):
    """SDXL's refiner gives those another aesthetic score."""
    told, real = [], type(flux.model).extra_conds

    def heard(self, **kwargs):
        told.append((kwargs["cross_attn"].shape[1], kwargs["prompt_type"]))
        return real(self, **kwargs)

    monkeypatch.setattr(type(flux.model), "extra_conds", heard)
    sample(guided(flux, reach=reach, negative_conditioning=prompt(2, tokens=5)), POSITIVE, prompt(3, tokens=7))
    assert set(told) == {(9, "positive"), (5, "negative"), (7, "negative")}
