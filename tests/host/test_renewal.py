"""When the branch is renewed: by the sampler's steps, for each evaluation by itself, after a forward that has run."""

import logging

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_custom_sampler import SplitSigmas
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from comparing import POSITIVE, check_branch
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.schedule import Steps, steps_of
from sampling import guided, picture_tokens, prompt, sample
from two_streams import Branch

RENEWED = {"reach": "double blocks", "blocks": "1", "renew_every": 3}
LAST_DOUBLE = 1
SMALL = (1, 4, 4)
# They step through noise levels of their own, of which they have as many as they like.
OWN_STEPS = ("dpm_fast", "dpm_adaptive")


@pytest.fixture(scope="module")
def flux_file(shallow_file):
    """Of few blocks: when something is renewed does not hang on them."""
    return shallow_file


@pytest.fixture(scope="module")
def flux(shallow):
    return shallow


# --- steps ---


def evaluated(model, sampler, steps):
    """The noise levels that a sampler of the host evaluates, its schedule, and how many steps it says it makes."""
    asked, said, schedule = [], [], []

    def forward(executor, x, timestep, context, *args, **kwargs):
        options = kwargs.get("transformer_options") or next(a for a in args if isinstance(a, dict))
        asked.append(options["sigmas"][0].item())
        schedule[:] = options["sample_sigmas"].tolist()
        return 0.5 * x

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", forward)
    sample(model, POSITIVE, steps=steps, sampler=sampler, size=SMALL, callback=lambda i, *args: said.append(i))
    return asked, schedule, len(set(said))


@pytest.mark.parametrize("sampler", [name for name in comfy.samplers.KSAMPLER_NAMES if name not in OWN_STEPS])
def test_steps_are_those_that_the_sampler_counts(flux, sampler):
    asked, schedule, steps = evaluated(flux, sampler, 7)
    assert steps == 7
    assert set(steps_of(asked, schedule)) == set(range(1, 8))
    begins = Steps(schedule)
    assert {begins.between(schedule[0], sigma) for sigma in asked} == set(range(7))


def test_a_sampler_with_steps_of_its_own_has_no_more_than_were_asked_for(flux):
    asked, schedule, _ = evaluated(flux, "dpm_fast", 9)
    assert 3 < len(set(steps_of(asked, schedule))) <= 9


@pytest.mark.parametrize("sampler", ["dpm_2", "heunpp2", "seeds_3", "exp_heun_2_x0"])
def test_the_log_counts_steps(flux, sampler, caplog):
    caplog.set_level(logging.INFO, "nag_pag_flux")
    sample(guided(flux, **RENEWED), POSITIVE, steps=7, sampler=sampler, size=SMALL)
    assert "7 steps, branch merged after double block 1 and computed at 3 of them" in caplog.text


@pytest.mark.parametrize("sampler", ["dpm_2", "heunpp2"])
def test_every_third_step_computes_whatever_is_evaluated_in_it(flux64, sampler):
    """By hand: a sigma belongs to the last step that begins at it or above."""
    _, schedule, _ = evaluated(flux64, sampler, 6)
    branch = Branch((1,), LAST_DOUBLE, picture_tokens())
    branch.reuse = lambda sigma: (sum(begin >= 0.999 * sigma for begin in schedule[:-1]) - 1) % 3 != 0
    check_branch(flux64, branch, RENEWED, sampler=sampler, steps=6)


# --- by itself: renew_every 0 ---

BRANCHES = {
    "output": {"reach": "output", "blocks": "1"},
    "prediction": {"reach": "prediction", "negative_conditioning": prompt(2), "blocks": "1"},
}
of_each_branch = pytest.mark.parametrize("branch", BRANCHES.values(), ids=BRANCHES)


def renewed(model, **sampling):
    """A sampling's latents, and the steps that computed the branch, by the sigmas that the sampler was given."""
    record = Record()
    latents = sample(record_model(model, record), POSITIVE, size=SMALL, **sampling)
    return latents, [row.step for row in record.recordings[0].rows if row.branch == "computed"]


def check_renewed(model, branch, every, computed, **sampling):
    """At 0 it is computed at these steps, and the latents are those of this number, to the bit."""
    ours, theirs = (renewed(guided(model, **branch, renew_every=number), **sampling) for number in (0, every))
    assert ours[1] == theirs[1] == computed
    assert torch.equal(ours[0], theirs[0])
    return ours[0]


@of_each_branch
@pytest.mark.parametrize(
    "steps, every, computed",
    [(4, 1, [1, 2, 3, 4]), (8, 2, [1, 3, 5, 7]), (20, 6, [1, 7, 13, 19]), (28, 8, [1, 9, 17, 25])],
)
def test_a_difference_stands_for_at_most_30_percent_of_the_steps(flux, branch, steps, every, computed):
    check_renewed(flux, branch, every, computed, steps=steps)


@of_each_branch
def test_each_part_of_a_sampling_counts_its_own_steps(flux, branch):
    schedule = comfy.samplers.calculate_sigmas(flux.get_model_object("model_sampling"), "simple", 20)
    high, low = SplitSigmas.execute(schedule, 8).args
    assert (len(high), len(low)) == (9, 13)
    between = check_renewed(flux, branch, 2, [1, 3, 5, 7], sigmas=high)
    check_renewed(flux, branch, 3, [1, 4, 7, 10], sigmas=low, latent_image=between)


@of_each_branch
def test_where_nobody_tells_the_steps_it_is_as_in_twenty(flux, branch):
    def silent(executor, x, timestep, model_options, seed):
        told = {k: v for k, v in model_options["transformer_options"].items() if k != "sample_sigmas"}
        return executor(x, timestep, {**model_options, "transformer_options": told}, seed)

    model = flux.clone()
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "test", silent)
    check_renewed(model, branch, 6, [1, 7], steps=8)


# --- several evaluations in a step ---


def skip_layers(model, scale, start=0.0, end=1.0):
    return SkipLayerGuidanceDiT.execute(model, scale, start, end, "0", "").args[0]


def pag(model, scale):
    return PerturbedAttentionGuidance.execute(model, scale).args[0]


# So little of their own guidance that the picture is the one without them, to the bit.
NOTHING = 1e-30
# By name: the node, and at how many of seven steps something is computed; what begins at the second step has a first
# time of its own.
TWICE = {
    "skip layers": (lambda model: skip_layers(model, NOTHING), 3),
    "skip layers for some steps": (lambda model: skip_layers(model, NOTHING, 0.01, 0.15), 4),
    "PAG": (lambda model: pag(model, NOTHING), 3),
    "skip layers for some steps, then PAG": (lambda model: pag(skip_layers(model, NOTHING, 0.01, 0.15), NOTHING), 4),
}


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("node", TWICE)
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_node_that_asks_for_the_prompt_twice_costs_no_renewal(flux, node, ours_first, cfg, caplog):
    caplog.set_level(logging.INFO, "nag_pag_flux")
    alone = sample(guided(flux, **RENEWED), POSITIVE, steps=7, size=SMALL, cfg=cfg)
    theirs, computed = TWICE[node]
    model = theirs(guided(flux, **RENEWED)) if ours_first else guided(theirs(flux), **RENEWED)
    caplog.clear()
    assert torch.equal(sample(model, POSITIVE, steps=7, size=SMALL, cfg=cfg), alone)
    assert f"7 steps, branch merged after double block 1 and computed at {computed} of them" in caplog.text
    assert "saved nothing" not in caplog.text


def louder(args, extra):
    """Another pack's patch of a block's place: it gives twice the picture tokens that it gets."""
    return {**args, "img": 2 * args["img"]}


def test_each_evaluation_of_a_step_has_a_difference_of_its_own(flux):
    """What a node evaluates under a patch is as if the patch were on the model, and nothing else were evaluated."""

    def patched_again(args):
        options = args["model_options"].copy()
        options = comfy.model_patcher.set_model_options_patch_replace(options, louder, "dit", "double_block", 0)
        (out,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        return out

    again = guided(flux, **RENEWED)
    again.set_model_sampler_post_cfg_function(patched_again)
    direct = flux.clone()
    direct.set_model_patch_replace(louder, "dit", "double_block", 0)
    expected = sample(guided(direct, **RENEWED), POSITIVE, steps=7, size=SMALL)
    assert torch.equal(sample(again, POSITIVE, steps=7, size=SMALL), expected)
    assert (expected - sample(guided(direct, **{**RENEWED, "renew_every": 1}), POSITIVE, steps=7, size=SMALL)).any()


@pytest.mark.parametrize("every, steps, forwards", [(3, 4, 8), (0, 7, 14), (0, 4, None), (1, 4, None)])
def test_tiles_are_said_to_save_nothing_where_something_was_to_be_saved(flux, caplog, every, steps, forwards):
    def tiled(apply_model, args):
        halves = args["input"].chunk(2, dim=-1)
        return torch.cat([apply_model(half, args["timestep"], **args["c"]) for half in halves], dim=-1)

    model = guided(flux, **{**RENEWED, "renew_every": every})
    model.set_model_unet_function_wrapper(tiled)
    sample(model, POSITIVE, steps=steps)
    said = [record.message for record in caplog.records if "renew_every saved nothing" in record.message]
    assert len(said) == (forwards is not None)
    assert all(f"in {forwards} of {forwards} forwards" in one and "tiles" in one for one in said)


def test_a_crop_that_moves_takes_nothing_from_the_last_one(flux):
    """One part of the picture each step, always of one size: what was kept of it belongs to another place."""
    calls = []

    def cropped(apply_model, args):
        calls.append(None)
        start = len(calls) % 3
        out = torch.zeros_like(args["input"])
        crop = args["input"][..., start : start + 8]
        out[..., start : start + 8] = apply_model(crop, args["timestep"], **args["c"])
        return out

    def run(**inputs):
        calls.clear()
        model = guided(flux, **{**RENEWED, **inputs})
        model.set_model_unet_function_wrapper(cropped)
        return sample(model, POSITIVE, steps=5)

    assert torch.equal(run(), run(renew_every=1))


def test_a_restart_computes_anew(flux):
    """Back and forth between two levels, ever less than three steps apart: by hand, computed where sigma rises."""
    back_and_forth = [1.0, 0.9, 0.8, 0.7, 0.8, 0.7, 0.8, 0.7, 0.6, 0.5, 0.0]
    record = Record()
    model = record_model(guided(flux, **RENEWED), record)
    sample(model, POSITIVE, size=SMALL, sigmas=torch.tensor(back_and_forth))
    computed = [row.step for row in record.recordings[0].rows if row.branch == "computed"]
    assert computed == [1, 4, 5, 7, 10]


# --- steps that a cache skips ---


def easy_cache(model):
    return EasyCacheNode.execute(model, 3.0, 0.2, 0.9, False).args[0]


def lazy_cache(model):
    return LazyCacheNode.execute(model, 3.0, 0.2, 0.9, False).args[0]


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("cache", [easy_cache, lazy_cache])
def test_a_renewal_on_a_skipped_step_is_made_up(flux, cache, ours_first):
    steps, record = 16, Record()
    model = cache(guided(flux, **RENEWED)) if ours_first else guided(cache(flux), **RENEWED)
    sample(record_model(model, record), POSITIVE, steps=steps, size=SMALL)
    rows = record.recordings[0].rows
    computed = {row.step for row in rows if row.branch == "computed"}
    reused = {row.step for row in rows if row.branch == "reused"}
    # The test has its case: renewals would fall on steps 1, 4, 7, 10, 13, 16, and some of those were skipped.
    assert {1, 4, 7, 10, 13, 16} - computed and len(computed | reused) < steps
    assert all(any(0 < step - begin < 3 for begin in computed) for step in reused)
