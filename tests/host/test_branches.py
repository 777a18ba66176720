"""Reach, renewal and every negative branch against the host's forward written out with two streams."""

import gc

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from by_prediction import Pushed, cfg_guider, disturbed, draw
from comparing import DOUBLES, LAST, LAST_DOUBLE, assert_same_effect, check_branch, every_third, residuals
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED
from sampling import guided, latent, picture_tokens, prompt, sample
from two_streams import Branch

POSITIVE = prompt(1)
KINDS = ["identity", "softened", "mean", "identity + text"]


REACHES = [
    ({"reach": "double blocks", "blocks": "1"}, (1,), LAST_DOUBLE),
    ({"reach": "double blocks", "blocks": "3"}, (3,), LAST_DOUBLE),
    ({"reach": "double blocks", "blocks": "0, 2"}, (0, 2), LAST_DOUBLE),
    ({"reach": "output", "blocks": "1"}, (1,), LAST),
    ({"reach": "output", "blocks": "1-3"}, (1, 2, 3), LAST),
    ({"reach_blocks": 1, "blocks": "1"}, (1,), 2),
    ({"reach_blocks": 3, "blocks": "1"}, (1,), DOUBLES),
    ({"reach": "output", "reach_blocks": 2, "blocks": "0"}, (0,), 2),
]


@pytest.mark.parametrize("inputs, blocks, merge", REACHES, ids=[str(inputs) for inputs, *_ in REACHES])
def test_every_reach(flux64, inputs, blocks, merge):
    check_branch(flux64, Branch(blocks, merge, picture_tokens()), inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("u", [1.0, 0.4])
def test_every_negative_branch(flux64, kind, u):
    inputs = {"reach": "double blocks", "blocks": "1, 2", "negative": kind, "perturbation": u, "temperature": 3.0}
    check_branch(flux64, Branch((1, 2), LAST_DOUBLE, picture_tokens(), kind, 3.0, u), inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("u", [1.0, 0.4])
def test_every_negative_branch_inside_the_attention(flux64, kind, u):
    """Reach attention: the same map, extrapolated where it is made. The oracle lives in the attention alone."""
    import comfy.ldm.flux.layers as layers
    from oracle import guided_tokens

    plain_attention, tokens = layers.attention, picture_tokens()
    branch = Branch((1, 2), None, tokens, kind, 3.0, u)

    def attention(q, k, v, pe, mask=None, transformer_options={}):
        z = plain_attention(q, k, v, pe, mask=mask, transformer_options=transformer_options)
        if transformer_options["block_type"] == "double" and transformer_options["block_index"] in branch.blocks:
            text = z.shape[1] - tokens
            minus = branch.attention(text, plain_attention)(q, k, v, pe, mask, transformer_options)
            z[:, text:] = guided_tokens(z[:, text:], minus[:, text:], 3.0, 2.5, 0.25).to(z.dtype)
        return z

    inputs = {"blocks": "1, 2", "negative": kind, "perturbation": u, "temperature": 3.0}
    ours = sample(guided(flux64, **inputs), POSITIVE)
    layers.attention = attention
    try:
        expected = sample(flux64, POSITIVE)
    finally:
        layers.attention = plain_attention
    effect = (expected - sample(flux64, POSITIVE)).abs().max()
    assert effect > 1e-4 and (ours - expected).abs().max() <= 1e-5 * effect + 1e-6


def test_reach_output_without_limiter_is_two_pass_pag(flux64):
    """Classic PAG at the last hidden state: h + w (h − h⁻) with both passes done whole, and neither limit nor blend."""
    branch = Branch((1,), LAST, picture_tokens(), strengths=(2.0, 1e9, 1.0))
    inputs = {"reach": "output", "blocks": "1", "scale": 2.0, "tau": 10.0, "alpha": 1.0}
    check_branch(flux64, branch, inputs, steps=2)


def inputs_for(reach="double blocks", **extra):
    return {"reach": reach, "blocks": "1", **extra}


def branch_for(reach="double blocks", **extra):
    return Branch((1,), LAST_DOUBLE if reach == "double blocks" else LAST, picture_tokens(), **extra)


@pytest.mark.parametrize("reach", ["double blocks", "output"])
class TestCompany:
    """What else a forward may carry, at both long reaches."""

    def test_batch_of_three(self, flux64, reach):
        check_branch(flux64, branch_for(reach), inputs_for(reach), size=(3, 8, 12))

    def test_cfg_in_one_batch(self, flux64, reach):
        check_branch(flux64, branch_for(reach), inputs_for(reach), cfg=2.0, negative=prompt(2), size=(2, 8, 12))

    def test_cfg_with_unequal_prompts(self, flux64, reach):
        check_branch(flux64, branch_for(reach), inputs_for(reach), cfg=2.0, negative=prompt(2, tokens=14))

    def test_two_prompts_with_areas(self, flux64, reach):
        branch = Branch((1,), LAST_DOUBLE if reach == "double blocks" else LAST, picture_tokens(8, 6))
        left, right = prompt(1, area=(8, 6, 0, 0)), prompt(3, area=(8, 6, 0, 6))
        check_branch(flux64, branch, inputs_for(reach), positive=left + right, negative=prompt(2), cfg=2.0)

    def test_reference_latents(self, flux64, reach):
        positive = prompt(1, reference_latents=[latent(height=6, width=8)])
        check_branch(flux64, branch_for(reach), inputs_for(reach), positive=positive, size=(2, 8, 12))

    @pytest.mark.parametrize("kind", ["softened", "identity + text"])
    def test_mask(self, flux64, reach, kind):
        tokens = 9 + picture_tokens()
        mask = torch.randn(1, tokens, tokens, generator=torch.Generator().manual_seed(0))
        positive = prompt(1, attention_mask=mask, attention_mask_img_shape=(4, 6))
        check_branch(flux64, branch_for(reach, kind=kind), inputs_for(reach, negative=kind), positive=positive)

    def test_controlnet(self, flux64, reach):
        """The host's ControlNet class, with residuals of known value in place of a trained network's."""
        positive = prompt(1, control=residuals(flux64), control_apply_to_uncond=True)
        controlled, plain = sample(flux64, positive), sample(flux64, POSITIVE)
        assert not torch.allclose(controlled, plain)
        check_branch(flux64, branch_for(reach), inputs_for(reach), positive=positive, negative=prompt(2), cfg=2.0)

    def test_partial_denoise(self, flux64, reach):
        check_branch(flux64, branch_for(reach), inputs_for(reach), latent_image=latent(), denoise=0.5, steps=4)

    @pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral"])
    def test_samplers(self, flux64, reach, sampler):
        check_branch(flux64, branch_for(reach), inputs_for(reach), sampler=sampler, steps=3)


# --- renewal ---


def test_the_nodes_defaults_without_a_negative_prompt(flux64):
    """As the table of inputs has them, but from the first step on; `auto` is 1-3 of 4 blocks."""
    blocks = [("double", 1), ("double", 2), ("double", 3)]
    oracle = Pushed(disturbed(blocks, picture_tokens(), u=0.1), scale=3.0, tau=1.75, alpha=0.5, every=2)
    ours = guided(flux64, **{**ADVANCED.defaults, "negative_prompt": "off", "start_percent": 0.0})
    sampling = {"steps": 7, "size": (1, 8, 12)}
    expected, plain = draw(oracle.on(cfg_guider(flux64)), **sampling), draw(cfg_guider(flux64), **sampling)
    assert_same_effect(draw(cfg_guider(ours), **sampling), expected, plain)
    assert oracle.computed == [1, 3, 5, 7]


def test_the_default_branch_of_before(flux64):
    """Merged after the last block of all, every sixth step, with the rest as the table of inputs has it."""
    branch = Branch((1, 2, 3), LAST, picture_tokens(), u=0.1, strengths=(3.0, 1.75, 0.2))
    branch.reuse = every_third([], every=6)
    inputs = {**ADVANCED.defaults, "negative_prompt": "off", "start_percent": 0.0, "reach": "output", "alpha": 0.2}
    check_branch(flux64, branch, {**inputs, "renew_every": 6}, steps=7)
    assert len(branch.computed) == 2


@pytest.mark.parametrize("reach", ["double blocks", "output"])
@pytest.mark.parametrize(
    "sampling", [{}, {"cfg": 2.0, "negative": prompt(2)}, {"cfg": 2.0, "negative": prompt(2, tokens=14)}]
)
def test_renewal_reuses_the_last_difference(flux64, reach, sampling):
    branch = branch_for(reach)
    branch.reuse = every_third([])
    check_branch(flux64, branch, inputs_for(reach, renew_every=3), steps=5, **sampling)
    assert len(branch.computed) == 2


def test_renewal_with_areas_keeps_each_conditions_own_difference(flux64):
    branch = Branch((1,), LAST_DOUBLE, picture_tokens(8, 6))
    branch.reuse = every_third([])
    left, right = prompt(1, area=(8, 6, 0, 0)), prompt(3, area=(8, 6, 0, 6))
    check_branch(flux64, branch, inputs_for(renew_every=3), positive=left + right, steps=5)
    assert len(branch.computed) == 4


def test_renewal_with_a_sampler_that_evaluates_a_step_twice(flux64):
    branch = branch_for()
    branch.reuse = every_third([])
    check_branch(flux64, branch, inputs_for(renew_every=3), sampler="heun", steps=6)


def test_renewal_starts_at_the_first_guided_step(flux64):
    """With a window, the first guided step computes; nothing older is there."""
    end = flux64.get_model_object("model_sampling").percent_to_sigma(0.3)
    model = guided(flux64, **inputs_for(renew_every=20, start_percent=0.3))
    assert not torch.equal(sample(model, POSITIVE, steps=8), sample(flux64, POSITIVE, steps=8))
    assert 0 < end < 1


def test_a_sampling_that_begins_above_the_models_highest_sigma_is_guided_from_there(flux):
    def run(model):
        sigmas = torch.tensor([1.5, 1.2, 0.9, 0.5, 0.0])
        start = torch.zeros(1, 16, 8, 12)
        what = (comfy.sample.prepare_noise(start, 7), 1.0, comfy.samplers.sampler_object("euler"), sigmas)
        return comfy.sample.sample_custom(model, *what, POSITIVE, POSITIVE, start, disable_pbar=True, seed=7)

    inputs = inputs_for(renew_every=1)
    assert torch.equal(run(guided(flux, **inputs)), run(guided(flux, **inputs, start_percent=0.0, end_percent=0.999)))


def test_tiles_are_computed_anew_each_time(flux64):
    """A wrapper that asks for one condition in two tiles, as tiled diffusion packs do: nothing may be reused."""

    def tiled(apply_model, args):
        x, t, c = args["input"], args["timestep"], args["c"]
        halves = [apply_model(half.contiguous(), t, **c) for half in x.chunk(2, dim=-1)]
        return torch.cat(halves, dim=-1)

    def run(**inputs):
        model = guided(flux64, **inputs_for(**inputs))
        model.set_model_unet_function_wrapper(tiled)
        return sample(model, POSITIVE, steps=6)

    assert torch.equal(run(renew_every=3), run(renew_every=1))


def test_a_batch_that_changes_size_is_computed_anew(flux64, monkeypatch):
    """Between steps the host may split what it batched before; each chunk keeps its own condition's difference."""
    sampling = {"positive": prompt(1) + prompt(3), "negative": prompt(2), "cfg": 2.0, "steps": 6}
    expected = sample(guided(flux64, **inputs_for(renew_every=3)), **sampling)
    required, calls = flux64.model.memory_required, []

    def sometimes(*args, **kwargs):
        calls.append(None)
        return 1e18 if len(calls) > 8 else required(*args, **kwargs)

    monkeypatch.setattr(flux64.model, "memory_required", sometimes)
    ours = sample(guided(flux64, **inputs_for(renew_every=3)), **sampling)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


# --- free, and gone afterwards ---


@pytest.mark.parametrize("inputs", [{"scale": 0.0}, {"alpha": 0.0}, {"perturbation": 0.0}])
@pytest.mark.parametrize("reach", ["attention", "double blocks", "output"])
def test_off_is_the_plain_model_to_the_bit_and_registers_nothing(flux, inputs, reach):
    model = guided(flux, reach=reach, **inputs)
    assert torch.equal(sample(model, POSITIVE), sample(flux, POSITIVE))
    assert not model.wrappers and "patches_replace" not in model.model_options["transformer_options"]


def test_the_positive_stream_before_the_merge_is_untouched(flux):
    """Every block's output up to the merge, seen by a hook, equals the plain model's to the bit."""

    def outputs(model):
        seen, handles = [], []
        for block in model.model.diffusion_model.double_blocks:
            handles.append(block.register_forward_hook(lambda m, a, out: seen.append(out[0].clone())))
        sample(model, POSITIVE, steps=1)
        for handle in handles:
            handle.remove()
        return seen

    plain = outputs(flux)
    ours = outputs(guided(flux, reach="double blocks", blocks="1"))
    positive = [ours[0], ours[2], ours[4]]  # block 0 alone, then negative and positive in turn
    assert len(ours) == 7 and all(torch.equal(a, b) for a, b in zip(positive, plain, strict=False))


def live_tensors():
    gc.collect()
    return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())


def test_nothing_is_left_after_many_runs_some_interrupted(flux):
    model = guided(flux, reach="double blocks", blocks="1", renew_every=3)

    def interrupted(step, *args):
        if step == 1:
            raise comfy.model_management.InterruptProcessingException()

    def run(i):
        if i % 3:
            sample(model, POSITIVE, steps=2)
            return
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(model, POSITIVE, steps=3, callback=interrupted)

    run(0), run(1)
    before = live_tensors()
    for i in range(12):
        run(i)
    assert live_tensors() <= before + 2


def test_same_seed_same_bits_with_renewal(flux):
    model = guided(flux, reach="output", blocks="1", renew_every=3)
    assert torch.equal(sample(model, POSITIVE, steps=5), sample(model, POSITIVE, steps=5))


def test_two_nodes_with_branches(flux):
    """The second node's branch runs over the first node's guided stream; its negative stream is not guided again."""
    first = guided(flux, reach="double blocks", blocks="1", renew_every=1)
    both = sample(guided(first, reach="output", blocks="2", renew_every=1), POSITIVE)
    assert not torch.equal(both, sample(first, POSITIVE))
    assert torch.equal(both, sample(guided(first, reach="output", blocks="2", renew_every=1), POSITIVE))


def test_a_branch_that_fails_is_given_up_with_one_warning(flux, caplog, monkeypatch):
    from nag_pag_flux.nagpag.patch import attention

    def fails(*args):
        raise RuntimeError("made to fail")

    monkeypatch.setattr(attention, "negative_attention", fails)
    ours = sample(guided(flux, reach="double blocks", blocks="1"), POSITIVE)
    assert torch.equal(ours, sample(flux, POSITIVE))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "double block 1 goes on without guidance" in warnings[0]


def test_reach_blocks_beyond_the_last_block_is_refused(flux):
    with pytest.raises(ValueError, match="reach_blocks 9 leads beyond the last block.*at most 4"):
        guided(flux, blocks="1", reach_blocks=9)


def test_blocks_behind_the_merge_are_said(flux, caplog):
    guided(flux, blocks="1, 3", reach_blocks=1)
    assert "double blocks 3 lie behind the merge (after double block 2)" in caplog.text
