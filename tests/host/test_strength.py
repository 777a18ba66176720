"""Strength over the steps, per block and head, in single blocks and unconditional rows, against the oracles."""

import logging
import math

import comfy.sample
import comfy.samplers
import pytest
import torch
from comparing import BLOCKS, DOUBLES, LAST, LAST_DOUBLE, assert_same_effect, check_branch, every_third
from nag_pag_flux.nagpag.patch import apply_guidance, merge
from nag_pag_flux.nagpag.settings import Settings
from oracle import guided_host, guided_tokens
from sampling import STRONG, guided, latent, picture_tokens, prompt, sample
from two_streams import Branch, two_stream_host

POSITIVE = prompt(1)
SINGLE_0, SINGLE_1 = ("single", 0), ("single", 1)


def percent_of(model, sigma):
    """The inverse of the host's percent for FLUX, in closed form: sigma = e^mu / (e^mu + 1/t − 1), t = 1 − percent."""
    mu = model.get_model_object("model_sampling").shift
    return 1 - 1 / (1 + math.exp(mu) * (1 / sigma - 1))


def over(model, shape, start=0.0, end=1.0):
    """A shape of progress as a function of sigma."""
    return lambda sigma: shape(min(max((percent_of(model, sigma) - start) / (end - start), 0.0), 1.0))


def assert_guided_as(model, ours, blocks=BLOCKS, sampling=None, plain=None, tokens=None, **oracle):
    """Sample `ours`, the guided form of `model`, and compare with the oracle; return the oracle's calls."""
    sampling = {"positive": POSITIVE, **(sampling or {})}
    plain = sample(model, **sampling) if plain is None else plain
    with guided_host(blocks, tokens or picture_tokens(), **oracle) as calls:
        expected = sample(model, **sampling)
    assert_same_effect(sample(ours, **sampling), expected, plain, tolerance=1e-3)
    return calls


# --- over the steps ---

SHAPES = {
    "linear fade-out": lambda x: 1 - x,
    "cosine fade-out": lambda x: math.cos(math.pi * x / 2) ** 2,
    "linear fade-in": lambda x: x,
    "cosine fade-in": lambda x: math.sin(math.pi * x / 2) ** 2,
    "bell": lambda x: math.sin(math.pi * x) ** 2,
}


@pytest.mark.parametrize("schedule", SHAPES)
def test_schedules(flux, schedule):
    ours = guided(flux, schedule=schedule)
    calls = assert_guided_as(flux, ours, strength=over(flux, SHAPES[schedule]))
    assert len({sigma for _, sigma, _ in calls}) == 3


def test_a_schedule_runs_from_start_percent_to_end_percent(flux):
    to_sigma = flux.get_model_object("model_sampling").percent_to_sigma
    ours = guided(flux, schedule="bell", start_percent=0.1, end_percent=0.7)
    calls = assert_guided_as(
        flux,
        ours,
        sampling={"steps": 8},
        on=lambda sigma: to_sigma(0.7) <= sigma <= to_sigma(0.1),
        strength=over(flux, SHAPES["bell"], 0.1, 0.7),
    )
    assert 2 < len({sigma for _, sigma, _ in calls}) < 8


def test_a_schedule_follows_a_shift_set_after_the_node(flux):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    def shifted(model):
        return ModelSamplingFlux().patch(model, max_shift=3.0, base_shift=0.5, width=1024, height=1024)[0]

    expected = shifted(flux)
    assert percent_of(expected, 0.5) != percent_of(flux, 0.5)
    ours = shifted(guided(flux, schedule="linear fade-out"))
    assert_guided_as(expected, ours, sampling={"steps": 4}, strength=over(expected, SHAPES["linear fade-out"]))


@pytest.mark.parametrize(
    "sampling",
    [{"sampler": "heun"}, {"sampler": "dpm_2", "steps": 4}, {"latent_image": latent(), "denoise": 0.5, "steps": 4}],
    ids=["heun", "dpm_2", "partial denoise"],
)
def test_schedules_with_every_way_through_the_sigmas(flux, sampling):
    """The sigma alone says how strong: at a second evaluation too, and with a start in the middle."""
    ours = guided(flux, schedule="cosine fade-out")
    assert_guided_as(flux, ours, sampling=sampling, strength=over(flux, SHAPES["cosine fade-out"]))


def sample_custom(model, sigmas, seed=7):
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 12), seed)
    start, sampler = torch.zeros(1, 16, 8, 12), comfy.samplers.sampler_object("euler")
    return comfy.sample.sample_custom(
        model, noise, 1.0, sampler, torch.tensor(sigmas), POSITIVE, prompt(9), start, disable_pbar=True, seed=seed
    )


def test_custom_sigmas(flux):
    sigmas = [0.97, 0.9, 0.2, 0.05, 0.0]
    shape = over(flux, SHAPES["linear fade-in"])
    with guided_host(BLOCKS, picture_tokens(), strength=shape) as calls:
        expected = sample_custom(flux, sigmas)
    assert_same_effect(
        sample_custom(guided(flux, schedule="linear fade-in"), sigmas), expected, sample_custom(flux, sigmas)
    )
    assert len(calls) == 4 * len(BLOCKS)


@pytest.mark.parametrize("reach", ["double blocks", "output"])
def test_schedules_at_a_longer_reach(flux64, reach):
    branch = Branch((1,), LAST_DOUBLE if reach == "double blocks" else LAST, picture_tokens())
    branch.strength = over(flux64, SHAPES["cosine fade-in"])
    check_branch(flux64, branch, {"reach": reach, "blocks": "1", "schedule": "cosine fade-in"}, steps=4)


# --- where the strength is 0 ---


def drawn(model, curve, **settings):
    return apply_guidance(model, Settings(**{"curve": curve, **STRONG, **settings}))


def steps_of(model, steps=6):
    """The latent that the sampler holds after each step."""
    seen = []
    sample(model, POSITIVE, steps=steps, callback=lambda step, denoised, x, total: seen.append(denoised.clone()))
    return seen


def test_a_drawn_curve(flux):
    def curve(x):
        return 1 - x * x

    assert_guided_as(flux, drawn(flux, curve), sampling={"steps": 4}, strength=over(flux, curve))


def block_calls(model):
    """How often each step calls any block of the model, by a hook in the modules."""
    calls, handles = [], []
    blocks = model.model.diffusion_model
    for block in (*blocks.double_blocks, *blocks.single_blocks):
        handles.append(block.register_forward_hook(lambda *args: calls.append(None)))
    counts = []
    sample(model, POSITIVE, steps=6, callback=lambda *args: counts.append(len(calls)))
    for handle in handles:
        handle.remove()
    return [b - a for a, b in zip([0, *counts], counts, strict=False)]


@pytest.mark.parametrize(
    "inputs", [{}, {"reach": "output", "blocks": "1", "renew_every": 1}], ids=["attention", "output"]
)
def test_steps_of_strength_0_are_plain_to_the_bit_and_cost_nothing(flux, monkeypatch, inputs):
    half = percent_of(flux, 0.6)
    model, guide, guides = drawn(flux, lambda x: 0.0 if x < half else 1.0, **inputs), merge.guide, []
    monkeypatch.setattr(merge, "guide", lambda *args: guides.append(None) or guide(*args))
    plain, ours = steps_of(flux), steps_of(model)
    same = [torch.equal(a, b) for a, b in zip(plain, ours, strict=True)]
    assert same == sorted(same, reverse=True) and 1 < sum(same) < 6  # plain at first, guided then, never plain again
    per_step = len(BLOCKS) if not inputs else 1
    assert len(guides) == per_step * (6 - sum(same))
    extra = [calls - (DOUBLES + 2) for calls in block_calls(model)]
    branch = DOUBLES + 2 - 1 if inputs else 0
    assert extra == [0 if plain_step else branch for plain_step in same]


def test_a_strength_of_0_all_along_says_that_nothing_was_guided(flux, caplog):
    caplog.set_level(logging.INFO, logger="nag_pag_flux")
    assert torch.equal(sample(drawn(flux, lambda x: 0.0), POSITIVE), sample(flux, POSITIVE))
    assert "guided nothing: no step of this sampling lay between start_percent and end_percent with a" in caplog.text


def test_the_branch_is_renewed_after_a_pause(flux64):
    """On for three steps, off for two, on again: that ends what was kept, however long it would have been held."""
    sigmas = []

    def record(args):
        sigmas.append(args["sigma"][0].item())
        return args["denoised"]

    watched = flux64.clone()
    watched.set_model_sampler_post_cfg_function(record)
    sample(watched, POSITIVE, steps=8)
    off, computed = sigmas[3:5], [sigmas[0], sigmas[5]]
    branch = Branch((1,), LAST_DOUBLE, picture_tokens())
    branch.strength = lambda sigma: 0.0 if sigma in off else 1.0
    branch.reuse = lambda sigma: sigma not in computed
    low, high = percent_of(flux64, off[0]) - 1e-4, percent_of(flux64, off[1]) + 1e-4
    ours = drawn(flux64, lambda x: 0.0 if low < x < high else 1.0, reach="double blocks", blocks="1", renew_every=7)
    with two_stream_host(branch):
        expected = sample(flux64, POSITIVE, steps=8)
    assert branch.computed == computed
    assert_same_effect(sample(ours, POSITIVE, steps=8), expected, sample(flux64, POSITIVE, steps=8), tolerance=1e-4)


# --- per block and head ---


@pytest.mark.parametrize(
    "spec, own",
    [
        ("1:1.5, 2, 3:5", {1: (1.5, None), 3: (5.0, None)}),
        ("1-2:2.0, 3[1]", {1: (2.0, None), 2: (2.0, None), 3: (None, [1])}),
        ("1[0-1], 2[0]:6, 3[1]:0.5", {2: (6.0, [0]), 3: (0.5, [1])}),
    ],
)
def test_a_blocks_own_scale_and_heads(flux, spec, own):
    assert_guided_as(flux, guided(flux, blocks=spec, alpha=0.5), own=own, alpha=0.5)


def test_the_schedule_multiplies_a_blocks_own_scale(flux):
    ours = guided(flux, blocks="1:1.5, 2, 3", schedule="linear fade-out")
    assert_guided_as(flux, ours, own={1: (1.5, None)}, strength=over(flux, SHAPES["linear fade-out"]))


def attention_outputs(model, block):
    """What the block's attention gives before and after guidance, of one step: (picture tokens, heads, head_dim) each.

    An override sees the one, and what the block projects is the other.
    """
    seen = {}

    def earlier(func, q, k, v, heads, *args, **kwargs):
        z = func(q, k, v, heads, *args, **kwargs)
        options = kwargs["transformer_options"]
        if (options["block_type"], options["block_index"]) == ("double", block):
            seen["plain"] = z[0, 9:].clone().unflatten(-1, (heads, -1))
        return z

    def projected(module, args):
        seen["given"] = args[0][0].clone().unflatten(-1, (2, -1))

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = earlier
    projection = model.model.diffusion_model.double_blocks[block].img_attn.proj
    return model, seen, projection.register_forward_pre_hook(projected)


@pytest.mark.parametrize("spec, chosen", [("2[1]", [1]), ("2[0]:9", [0])])
def test_unchosen_heads_keep_their_features_to_the_bit(flux, spec, chosen):
    model, seen, handle = attention_outputs(flux, 2)
    with handle:
        sample(guided(model, blocks=spec), POSITIVE, steps=1)
    changed = seen["plain"] != seen["given"]
    for head in range(changed.shape[1]):
        assert changed[:, head].any(dim=-1).all() if head in chosen else not changed[:, head].any()


def test_heads_that_lie_apart_share_one_ratio():
    """Four heads, of which the first and third are guided, against the formula on their features alone."""
    generator = torch.Generator().manual_seed(0)
    z_pos, z_neg = (torch.randn(2, 5, 4, 3, generator=generator) for _ in range(2))
    z_neg[:, :, 0] *= 10  # so that each head alone would have another ratio
    before, chosen = z_pos.clone(), [0, 2]
    merge.guide_heads_in_place(
        z_pos, z_neg, ((0, 0), (2, 2)), 3.0, Settings(tau=2.5, alpha=0.25), lambda *tensors: None
    )
    expected = guided_tokens(before[:, :, chosen].flatten(2), z_neg[:, :, chosen].flatten(2), 3.0, 2.5, 0.25)
    torch.testing.assert_close(z_pos[:, :, chosen].flatten(2).double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(z_pos[:, :, [1, 3]], before[:, :, [1, 3]])


def test_a_block_with_scale_0_is_plain(flux):
    assert torch.equal(sample(guided(flux, blocks="1:0, 2"), POSITIVE), sample(guided(flux, blocks="2"), POSITIVE))
    model = guided(flux, blocks="1-2:0")
    assert not model.wrappers and "patches_replace" not in model.model_options["transformer_options"]


def test_scale_0_of_the_node_is_off_whatever_the_blocks_say(flux):
    assert not guided(flux, scale=0.0, blocks="1:3").wrappers


@pytest.mark.parametrize("spec, heads", [("1[0], 2", {1: [0]}), ("1[1]", {1: [1]})])
def test_heads_choose_what_a_branch_perturbs(flux64, spec, heads):
    blocks = (1, 2) if "2" in spec else (1,)
    branch = Branch(blocks, LAST_DOUBLE, picture_tokens(), u=0.7)
    branch.heads = heads
    check_branch(flux64, branch, {"reach": "double blocks", "blocks": spec, "perturbation": 0.7})


# --- single blocks ---


@pytest.mark.parametrize(
    "spec, blocks, own",
    [
        ("s0", (SINGLE_0,), {}),
        ("single_blocks.1:2", (SINGLE_1,), {SINGLE_1: (2.0, None)}),
        ("2, s0-1[1]", (2, SINGLE_0, SINGLE_1), {SINGLE_0: (None, [1]), SINGLE_1: (None, [1])}),
    ],
)
def test_single_blocks(flux, spec, blocks, own):
    calls = assert_guided_as(flux, guided(flux, blocks=spec), blocks, own=own)
    assert {block for block, *_ in calls} == set(blocks)


def test_single_blocks_with_references_and_cfg(flux):
    """Text first, the picture being made, references last; of a batch only the conditional rows."""
    positive = prompt(1, reference_latents=[latent(height=6, width=8, seed=20)])
    sampling = {"positive": positive, "negative": prompt(2, tokens=14), "cfg": 2.0, "size": (2, 8, 12)}
    ours = guided(flux, blocks="s1")
    plain = sample(flux, **sampling)
    with guided_host((SINGLE_1,), picture_tokens(), references=12) as calls:
        expected = sample(flux, **sampling)
    assert_same_effect(sample(ours, **sampling), expected, plain)
    assert {rows for *_, rows in calls} == {0, 2}


def test_text_tokens_pass_a_single_block_untouched(flux):
    seen = []

    def after(args, extra):
        out = extra["original_block"](args)
        seen.append(out["img"][:, :9].clone())
        return out

    for model in (flux, guided(flux, blocks="s0")):
        model = model.clone()
        ours = model.model_options["transformer_options"].get("patches_replace", {}).get("dit", {})
        inner = ours.get(("single_block", 0))

        def outer(args, extra, inner=inner):
            if inner is None:
                return after(args, extra)
            return after(args, {"original_block": lambda args: inner(args, extra)})

        model.set_model_patch_replace(outer, "dit", "single_block", 0)
        sample(model, POSITIVE, steps=1)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    "inputs, blocks, merge",
    [
        ({"reach": "output", "blocks": "s0"}, (DOUBLES,), LAST),
        ({"reach": "output", "blocks": "s1"}, (LAST,), LAST),
        ({"reach": "output", "blocks": "2, s1[0]"}, (2, LAST), LAST),
        ({"reach_blocks": 1, "blocks": "s0"}, (DOUBLES,), LAST),
    ],
)
def test_a_branch_that_starts_in_or_passes_single_blocks(flux64, inputs, blocks, merge):
    branch = Branch(blocks, merge, picture_tokens())
    branch.heads = {LAST: [0]} if "[0]" in inputs["blocks"] else {}
    check_branch(flux64, branch, inputs, cfg=2.0, negative=prompt(2))


@pytest.mark.parametrize(
    "inputs, blocks, shares",
    [
        ({"blocks": "1:1.5, 3:0.6"}, (1, 3), {1: 0.5, 3: 0.2}),
        ({"blocks": "1:1.5, 3", "scale": 2.0}, (1, 3), {1: 0.75}),
        ({"blocks": "1:8, 2", "perturbation": 0.5}, (1, 2), {1: 1.0}),  # at most all of it
        ({"blocks": "1[0]:1.5, 2", "perturbation": 0.5}, (1, 2), {1: 0.25}),
    ],
)
def test_in_a_branch_a_blocks_own_scale_counts_beside_the_nodes(flux64, inputs, blocks, shares):
    strengths = (inputs.get("scale", 3.0), 2.5, 0.25)
    branch = Branch(blocks, 3, picture_tokens(), u=inputs.get("perturbation", 1.0), strengths=strengths)
    branch.shares, branch.heads = shares, {1: [0]} if "[0]" in inputs["blocks"] else {}
    check_branch(flux64, branch, {"reach": "double blocks", **inputs})


def test_a_branch_starts_in_the_first_block_with_a_strength(flux64):
    check_branch(flux64, Branch((1,), 2, picture_tokens()), {"blocks": "0:0, 1", "reach_blocks": 1})


def test_a_branch_through_chosen_single_blocks_takes_them_all(flux64):
    check_branch(flux64, Branch((2, DOUBLES), DOUBLES, picture_tokens()), {"blocks": "2, s0", "reach": "double blocks"})


def test_what_is_off_is_not_refused(flux):
    for off in ({"blocks": "s1:0"}, {"blocks": "s1", "scale": 0.0}):
        assert torch.equal(sample(guided(flux, reach_blocks=1, **off), POSITIVE), sample(flux, POSITIVE))


def test_a_forward_that_hides_the_text_is_not_guided_and_says_so(flux, caplog):
    """Another pack's forward may not say where the text ends; guessing would guide the wrong tokens."""
    model = guided(flux, blocks="s0")
    ours = model.model_options["transformer_options"]["patches_replace"]["dit"]["single_block", 0]

    def hiding(args, extra):
        options = {name: value for name, value in args["transformer_options"].items() if name != "img_slice"}
        return ours({**args, "transformer_options": options}, extra)

    model.set_model_patch_replace(hiding, "dit", "single_block", 0)
    assert torch.equal(sample(model, POSITIVE), sample(flux, POSITIVE))
    assert "single block 0 goes on without guidance" in caplog.text and "img_slice" in caplog.text


@pytest.mark.parametrize(
    "inputs, message",
    [
        (
            {"blocks": "s2"},
            "single block 2 does not exist: this model has double blocks 0 to 3 and single blocks s0 to s1",
        ),
        ({"blocks": "1[2]"}, "head 2 does not exist: this model's blocks have heads 0 to 1"),
        (
            {"blocks": "s1", "reach_blocks": 1},
            "from single block 1, this model's 4 double and 2 single blocks leave at",
        ),
    ],
)
def test_what_does_not_fit_is_refused(flux, inputs, message):
    with pytest.raises(ValueError) as caught:
        guided(flux, **inputs)
    assert message in str(caught.value)


def test_the_log_line_names_blocks_with_what_is_their_own(flux, caplog):
    caplog.set_level(logging.INFO, logger="nag_pag_flux")
    sample(guided(flux, blocks="1:1.5, 2[0], s1", schedule="bell"), POSITIVE)
    assert "NAG-PAG guided double blocks 1:1.5, 2[0] and single blocks 1: 2 steps, mean change" in caplog.text
    assert "(scale 3, tau 2.5, alpha 0.25, identity, bell)" in caplog.text


# --- unconditional rows ---


@pytest.mark.parametrize("negative", [prompt(2), prompt(2, tokens=14)], ids=["one batch", "two batches"])
def test_unconditional_rows(flux, negative):
    sampling = {"cfg": 2.0, "negative": negative, "size": (2, 8, 12)}
    ours = guided(flux, guide_unconditional=True, blocks="1-3, s0")
    calls = assert_guided_as(flux, ours, (*BLOCKS, SINGLE_0), sampling, unconditional=True)
    assert {rows for *_, rows in calls} == ({4} if len(negative[0][0][0]) == 9 else {2})


@pytest.mark.parametrize("negative", [prompt(2), prompt(2, tokens=14)], ids=["one batch", "two batches"])
@pytest.mark.parametrize("reach", ["double blocks", "output"])
def test_unconditional_rows_at_a_longer_reach_keep_their_own_difference(flux64, reach, negative):
    branch = Branch((1,), LAST_DOUBLE if reach == "double blocks" else LAST, picture_tokens())
    branch.kinds, branch.reuse = (0, 1), every_third([])
    inputs = {"reach": reach, "blocks": "1", "renew_every": 3, "guide_unconditional": True}
    check_branch(flux64, branch, inputs, steps=4, cfg=2.0, negative=negative)
    assert len(branch.computed) == 2 * 2


def test_guided_unconditional_rows_change_nothing_without_cfg(flux):
    assert torch.equal(sample(guided(flux, guide_unconditional=True), POSITIVE), sample(guided(flux), POSITIVE))
