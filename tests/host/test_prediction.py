"""Reach prediction, against the host's own classifier-free guidance and functions that act on what it predicts."""

import gc
import logging
import math

import comfy.hooks
import comfy.ldm.flux.math
import comfy.model_management
import comfy.samplers
import pytest
import torch
from by_prediction import Pushed, basic_guider, cfg_guider, disturbed, draw, in_windows, negative, predicted, progress
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
from comparing import POSITIVE, residuals
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag import perturbation
from nag_pag_flux.nagpag.diagnostics.plot import draw as plot
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.guidance import guide
from nag_pag_flux.nagpag.patch import caches, prediction
from sampling import HOST_SAMPLES_CURVES, guided, latent, load_flux, prompt, sample
from torch._dynamo.utils import counters

LOGGER = "nag_pag_flux"
NEGATIVES = {"equal": prompt(2), "shorter": prompt(2, tokens=4), "longer": prompt(2, tokens=14)}
LONGER = NEGATIVES["longer"]
# A push by the whole difference at every step, without a limit: classifier-free guidance.
PLAIN = {
    "blocks": "0-1",
    "reach": "prediction",
    "negative_prompt": "sampler's",
    "tau": 10.0,
    "alpha": 1.0,
    "renew_every": 1,
}
LIMITED = {**PLAIN, "scale": 3.0, "tau": 1.75, "alpha": 0.4}
SMALL = {"size": (1, 4, 6), "steps": 3}


@pytest.fixture(scope="module")
def flux_file(shallow_file):
    return shallow_file


@pytest.fixture(scope="module")
def flux(shallow):
    return shallow


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == LOGGER and r.levelno == logging.WARNING]


def line(caplog):
    """What is said of the last sampling."""
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("NAG-PAG guided")][-1]


def close(ours, expected, plain, tolerance=1e-3):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


@pytest.mark.parametrize("negative", NEGATIVES.values(), ids=NEGATIVES)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_at_every_step_without_a_limit_it_is_cfg(flux, negative, sampler):
    sampling = {"negative": negative, "sampler": sampler, "size": (2, 5, 7)}
    ours = sample(guided(flux, **PLAIN, scale=1.5), POSITIVE, **sampling)
    close(ours, sample(flux, POSITIVE, cfg=2.5, **sampling), sample(flux, POSITIVE, **sampling), 1e-4)


# --- the formula, when it is computed, and how strong it is ---


def check(model, oracle, inputs, guider=cfg_guider, tolerance=1e-3, **sampling):
    """A guider of ours beside one that the oracle acts on."""
    ours = draw(guider(guided(model, **{**LIMITED, **inputs})), **sampling)
    expected, plain = draw(oracle.on(guider(model)), **sampling), draw(guider(model), **sampling)
    close(ours, expected, plain, tolerance)
    return oracle


@pytest.mark.parametrize("scale, tau, alpha", [(3.0, 1.75, 0.4), (0.5, 1.0, 1.0), (8.0, 1.2, 0.7)])
def test_the_formula_at_each_place_of_the_latent(flux, scale, tau, alpha):
    strengths = {"scale": scale, "tau": tau, "alpha": alpha}
    oracle = check(flux, Pushed(negative(), **strengths), strengths, size=(2, 5, 7))
    shortened = [guided.norm(p=1, dim=-1) for *_, guided in oracle.changes]
    assert len(shortened) == 4 and shortened[0].shape == (2, 35)


RESTART = [1.0, 0.9, 0.8, 0.7, 0.8, 0.7, 0.8, 0.7, 0.6, 0.5, 0.0]
SAMPLERS = {
    "euler": ({}, 6, [1, 4]),
    "dpmpp_2m": ({}, 7, [1, 4, 7]),
    "uni_pc": ({}, 6, [1, 4]),
    "heun": ({}, 5, [1, 4, 4]),
    "dpm_2": ({}, 5, [1, 1, 4, 4]),
    "dpmpp_2m_sde": ({}, 6, [1, 4]),
    "er_sde": ({}, 6, [1, 4]),
    "euler_ancestral": ({}, 6, [1, 4]),
    "restart": ({"sampler": "euler", "sigmas": RESTART}, 10, [1, 4, 3, 3, 6]),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_difference_of_noises_is_held_for_steps(flux, name):
    extra, steps, computed = SAMPLERS[name]
    sampling = {"sampler": name, "steps": steps, "size": (2, 3, 5), **extra}
    oracle = check(flux, Pushed(negative(), every=3), {"renew_every": 3}, **sampling)
    assert oracle.computed == computed


CURVE = {"points": [[0.0, 0.2], [1.0, 1.0]], "interpolation": "linear"}
PAUSE = {"points": [[0.0, 1.0], [0.3, 0.0], [0.6, 0.0], [1.0, 1.0]], "interpolation": "linear"}
PARTS = {
    "a pause": ({"curve": PAUSE, "renew_every": 9}, lambda x: max(0.0, 1 - x / 0.3, (x - 0.6) / 0.4)),
    "the node's own": ({"start_percent": 0.45, "renew_every": 6}, lambda x: 1.0),
    "window": ({"start_percent": 0.2, "end_percent": 0.8, "renew_every": 2}, lambda x: 1.0),
    "linear fade-out": ({"schedule": "linear fade-out", "renew_every": 2, "end_percent": 0.9}, lambda x: 1 - x),
    "bell": ({"schedule": "bell", "renew_every": 3}, lambda x: (1 - math.cos(2 * math.pi * x)) / 2),
    "curve": ({"curve": CURVE, "renew_every": 1}, lambda x: 0.2 + 0.8 * x),
}
PARTS = {name: part for name, part in PARTS.items() if HOST_SAMPLES_CURVES or "curve" not in part[0]}


@pytest.mark.parametrize("part", PARTS)
def test_where_it_is_on_and_how_strong(flux, part):
    inputs, shape = PARTS[part]
    at = progress(flux, inputs.get("start_percent", 0.0), inputs.get("end_percent", 1.0))
    strength = lambda sigma: 0.0 if at(sigma) is None else shape(at(sigma))  # noqa: E731
    check(flux, Pushed(negative(), every=inputs["renew_every"], strength=strength), inputs, steps=9)


def test_from_a_picture_under_a_mask(flux):
    """Image to image with noise of its own, where a mask leaves a part as it was."""
    start, mask = latent(height=5, width=7), torch.ones(1, 1, 5, 7)
    mask[..., :3] = 0
    sampling = {"latent": start, "denoise": 0.6, "denoise_mask": mask, "sampler": "dpmpp_2m"}
    check(flux, Pushed(negative(), every=2), {"renew_every": 2}, **sampling)


# --- what is not changed ---


def test_nothing_to_do_is_the_plain_model_to_the_bit(flux):
    plain = sample(flux, POSITIVE, LONGER, **SMALL)
    for off in ({"scale": 0.0}, {"alpha": 0.0}, {"start_percent": 1.0}, {"start_percent": 0.5, "end_percent": 0.5}):
        assert torch.equal(sample(guided(flux, **{**LIMITED, **off}), POSITIVE, LONGER, **SMALL), plain), off


def test_a_noise_level_is_read_only_where_something_follows_from_it(flux, monkeypatch):
    """Reading one makes the device wait."""
    real, levels = prediction.noise_level, []
    monkeypatch.setattr(prediction, "noise_level", lambda *args: levels.append(real(*args)) or levels[-1])
    for more in ({}, {"renew_every": 2}, {"end_percent": 0.9}, {"schedule": "bell"}):
        levels.clear()
        sample(guided(flux, **{**LIMITED, **more}), POSITIVE, LONGER, **SMALL)
        assert [level is not None for level in levels] == [bool(more)] * 3


def test_a_sampling_that_ends_before_it_begins_says_so(flux, caplog):
    sample(guided(flux, **{**LIMITED, "start_percent": 0.5, "end_percent": 0.5}), POSITIVE, LONGER, **SMALL)
    assert "guided nothing: no step of this sampling lay between start_percent and end_percent" in line(caplog)


def test_a_side_of_cfg_that_nobody_wants_is_given_as_the_host_gives_it(flux):
    """All zeros, though the negative prompt was worked out there."""
    given = []

    def hear(args):
        given.append(args["uncond_denoised"])
        return args["denoised"]

    model = guided(flux, **{**LIMITED, "renew_every": 2})
    model.set_model_sampler_post_cfg_function(hear)
    draw(cfg_guider(model))
    assert len(given) == 4 and not any(one.any() for one in given)


def test_a_part_of_the_latent_that_a_node_asks_for_is_not_moved(flux, caplog):
    """By the push of the whole, which is of another size."""
    found = []

    def a_half(args):
        x, options = args["input"][..., :4], args["model_options"]
        found.append(comfy.samplers.calc_cond_batch(args["model"], [args["uncond"]], x, args["sigma"], options)[0])
        return args["denoised"]

    for model in (guided(flux, **LIMITED), flux):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(a_half)
        draw(cfg_guider(model, cfg=2.0), steps=1)
    assert torch.equal(*found) and not warnings(caplog)


@pytest.mark.parametrize("every", [1, 3])
def test_what_is_asked_for_at_no_noise_at_all_is_left_alone(flux, every):
    """Nothing is divided by it: without noise the prediction is the latent itself."""
    found = []

    def without_noise(args):
        x, options = args["input"], args["model_options"]
        found.append((x, comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], x, 0 * args["sigma"], options)))
        return args["denoised"]

    model = guided(flux, **{**LIMITED, "renew_every": every})
    model.set_model_sampler_post_cfg_function(without_noise)
    assert torch.isfinite(draw(cfg_guider(model))).all()
    assert len(found) == 4 and all(torch.equal(x, given[0]) for x, given in found)


@given(
    batch=st.integers(1, 2),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    channels=st.integers(2, 5),
    seed=st.integers(0, 2**31),
)
def test_tokens_are_places(batch, shape, channels, seed):
    v = torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(seed))
    tokens = prediction._tokens(v)
    assert tokens.shape == (batch, math.prod(shape), 1, channels)
    assert torch.equal(tokens[-1, 0, 0], v[-1].flatten(1)[:, 0])
    assert torch.equal(prediction._latent(tokens, v), v)
    assert math.prod(prediction._grid_of(v)) == tokens.shape[1]
    packed = v.flatten(1)[:, None]
    assert prediction._grid_of(packed) == (1, 1)
    assert prediction._tokens(packed).shape == (batch, 1, 1, packed.shape[-1])
    assert torch.equal(prediction._latent(prediction._tokens(packed), packed), packed)


@given(
    scale=st.floats(0, 20),
    tau=st.floats(1, 3),
    alpha=st.floats(0, 1),
    size=st.floats(1e-3, 1e3),
    seed=st.integers(0, 9),
)
def test_no_place_moves_further_than_the_limit(scale, tau, alpha, size, seed):
    plus, minus = size * torch.randn(2, 1, 16, 3, 4, generator=torch.Generator().manual_seed(seed))
    tokens = prediction._tokens(plus)
    guided_latent = prediction._latent(guide(tokens, prediction._tokens(minus), scale, tau, alpha)[0], plus)
    norms = plus.norm(p=1, dim=1)
    assert (guided_latent.norm(p=1, dim=1) <= (alpha * tau + 1 - alpha) * norms * (1 + 1e-5)).all()


# --- what cfg, guiders and other nodes ask for ---


class Counted:
    """The rows that each forward of the model has, by noise level."""

    def __init__(self, model):
        self.model, self.rows = model.clone(), []
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", self.count)

    def count(self, executor, x, *args, **kwargs):
        out = executor(x, *args, **kwargs)
        self.rows.append(x.shape[0])
        return out

    def drawn(self, **sampling):
        self.rows.clear()
        guider = sampling.pop("guider", cfg_guider)(self.model)
        return draw(guider, **sampling), sum(self.rows)


@pytest.mark.parametrize("prompts", [{"negative": NEGATIVES["equal"]}, {"negative": LONGER}], ids=["equal", "longer"])
def test_beside_cfg_the_push_is_added_once_and_costs_nothing(flux, prompts):
    def guider(model):
        return cfg_guider(model, cfg=3.0, **prompts)

    check(flux, Pushed(negative()), {"renew_every": 6}, guider, size=(2, 4, 6))
    ours, theirs = Counted(guided(flux, **{**LIMITED, "renew_every": 6})), Counted(flux)
    assert ours.drawn(guider=guider)[1] == theirs.drawn(guider=guider)[1] == 8


def test_guide_unconditional_has_no_say_against_a_negative_prompt(flux):
    one, other = (draw(cfg_guider(guided(flux, **LIMITED, guide_unconditional=on), cfg=3.0)) for on in (False, True))
    assert torch.equal(one, other)


def test_a_negative_prompt_of_its_own_beside_cfg(flux):
    own = prompt(3, tokens=5)

    def guider(model):
        return cfg_guider(model, cfg=3.0, own=own)

    def ours(model):
        return cfg_guider(model, cfg=3.0)

    inputs = {**LIMITED, "renew_every": 3, "negative_prompt": "off", "negative_conditioning": own}
    found = draw(ours(guided(flux, **inputs)), steps=5)
    close(found, draw(Pushed(negative("own"), every=3).on(guider(flux)), steps=5), draw(ours(flux), steps=5))
    assert Counted(guided(flux, **inputs)).drawn(guider=ours, steps=5)[1] == 2 * 5 + 2


def test_a_negative_prompt_of_its_own_with_a_guider_that_has_none(flux):
    found = draw(basic_guider(guided(flux, **LIMITED, negative_conditioning=LONGER)))
    assert torch.equal(found, draw(cfg_guider(guided(flux, **LIMITED), negative=LONGER)))


def dual_cfg(model, nested=False):
    guider = Guider_DualCFG(model)
    guider.set_conds(POSITIVE, prompt(3), LONGER)
    guider.set_cfg(2.0, 1.5, nested)
    return guider


def perp_neg(model):
    guider = Guider_PerpNeg(model)
    guider.set_conds(POSITIVE, LONGER, prompt(4, tokens=5))
    guider.set_cfg(2.0, 0.7)
    return guider


GUIDERS = {"DualCFG": dual_cfg, "DualCFG, nested": lambda model: dual_cfg(model, True), "PerpNeg": perp_neg}
try:  # an older host has none
    from comfy_extras.nodes_custom_sampler import Guider_DualModel
except ImportError:
    pass
else:

    def dual_model(model):
        guider = Guider_DualModel(model, DUAL[0])
        guider.set_conds(POSITIVE, LONGER)
        guider.set_cfg(2.0)
        return guider

    GUIDERS["DualModel"] = dual_model
DUAL = []


@pytest.mark.parametrize("name", GUIDERS)
def test_with_other_guiders_the_push_is_added_once(flux, name):
    DUAL[:] = [flux]
    check(flux, Pushed(negative()), {}, GUIDERS[name])


def test_a_node_that_has_cfgs_two_sides_worked_out_apart(flux):
    """SkipLayerGuidanceDiTSimple, which asks for the prompt and then for the negative prompt without a block."""

    def simple(model):
        return cfg_guider(SkipLayerGuidanceDiTSimple.execute(model, 0.0, 1.0, "1", "").args[0], cfg=3.0)

    check(flux, Pushed(negative()), {}, simple)


def test_in_context_windows_both_sides_move_in_each_of_them(flux):
    """All windows of the prompt come first, and then all of the negative prompt."""

    def simple(model):
        windowed = in_windows(model, 6, 2)
        return cfg_guider(SkipLayerGuidanceDiTSimple.execute(windowed, 0.0, 1.0, "1", "").args[0], cfg=3.0)

    check(flux, Pushed(negative(), 1.5, 10.0, 1.0), {**PLAIN, "scale": 1.5}, simple, size=(1, 2, 10), steps=3)


def test_where_the_negative_prompt_is_worked_out_first_it_is_said_that_cfg_enlarges_the_push(flux, caplog):
    def other_order(args):
        model, conds, x, sigma, options = (args[name] for name in ("model", "conds", "input", "sigma", "model_options"))
        first = comfy.samplers.calc_cond_batch(model, [conds[1]], x, sigma, options)
        return comfy.samplers.calc_cond_batch(model, [conds[0]], x, sigma, options) + first

    model = guided(flux, **{**LIMITED, "renew_every": 1})
    model.set_model_sampler_calc_cond_batch_function(other_order)
    sample(model, POSITIVE, LONGER, cfg=3.0, **SMALL)
    (said,) = warnings(caplog)
    assert "before the prompt, so that cfg enlarges the push" in said


def skip_layers(model):
    return SkipLayerGuidanceDiT.execute(model, 1e-30, 0.0, 1.0, "1", "").args[0]


def asking_again(model):
    """A node that has the prompt worked out once more, and takes half of each."""

    def again(args):
        found = comfy.samplers.calc_cond_batch(
            args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"]
        )
        return 0.5 * (args["denoised"] + found[0])

    model = model.clone()
    model.set_model_sampler_post_cfg_function(again)
    return model


@pytest.mark.parametrize("node", [skip_layers, asking_again])
@pytest.mark.parametrize("cfg, rows", [(1.0, 7 + 3 + 7), (2.0, 14 + 7)])
def test_what_is_asked_for_twice_in_an_evaluation_shares_one_difference(flux, node, cfg, rows, caplog):
    inputs = {**LIMITED, "renew_every": 3}

    def guider(model):
        return cfg_guider(model, cfg=cfg)

    alone = draw(guider(guided(flux, **inputs)), steps=7)
    caplog.clear()
    ours, found = Counted(node(guided(flux, **inputs))).drawn(guider=guider, steps=7)
    assert found == rows and not warnings(caplog)
    assert f"computed at {3 if cfg == 1 else 7} of them" in line(caplog)
    assert (ours - alone).abs().max() <= (1e-3 if cfg == 1 else math.inf)


def test_the_branch_is_computed_at_every_so_many_steps_and_no_more(flux, caplog):
    caplog.clear()
    ours = Counted(guided(flux, **{**LIMITED, "renew_every": 6, "start_percent": 0.45}))
    _, rows = ours.drawn(steps=14)
    guided_steps = int(line(caplog).split(": ")[1].split(" steps")[0])
    assert rows == 14 + math.ceil(guided_steps / 6) and 6 < guided_steps < 14
    said = (
        f"guided by a negative prompt: {guided_steps} steps, branch merged at the prediction and computed at 2 of them"
    )
    assert said in line(caplog)


# --- conditions of every kind ---


def areas():
    left, right = prompt(1, area=(4, 4, 0, 0)), prompt(3, area=(4, 6, 0, 2), strength=0.7)
    return {"positive": left + right + prompt(4), "negative": LONGER}


def areas_alone():
    left, right = prompt(1, area=(4, 4, 0, 0)), prompt(3, area=(4, 6, 0, 2), strength=0.7)
    return {"positive": left + right, "negative": LONGER}


def one_area():
    return {"positive": prompt(1, area=(4, 6, 0, 0)), "negative": LONGER}


def bounds_of_masks():
    mask = torch.zeros(1, 32, 48)
    mask[..., :24] = 1
    halves = (prompt(seed, mask=one, set_area_to_bounds=True) for seed, one in ((1, mask), (3, 1 - mask)))
    return {"positive": [*next(halves), *next(halves)], "negative": LONGER}


def masks():
    mask = torch.zeros(1, 32, 48)
    mask[..., :24] = 1
    both = prompt(1, mask=mask, mask_strength=1.0), prompt(3, mask=1 - mask, mask_strength=1.0)
    return {"positive": both[0] + both[1], "negative": prompt(2) + prompt(5, mask=mask, mask_strength=0.5)}


def ranges():
    early, late = prompt(2, start_percent=0.0, end_percent=0.4), prompt(3, tokens=5, start_percent=0.4, end_percent=1.0)
    return {"positive": POSITIVE, "negative": late + early}


def ranges_of_the_prompt():
    early, late = prompt(1, start_percent=0.0, end_percent=0.4), prompt(3, tokens=5, start_percent=0.4, end_percent=1.0)
    return {"positive": early + late, "negative": LONGER}


def references():
    reference = {"reference_latents": [latent(height=4, width=4)]}
    return {"positive": prompt(1, **reference), "negative": prompt(2, **reference)}


def control(model):
    return {"positive": prompt(1, control=residuals(model), control_apply_to_uncond=True), "negative": LONGER}


def hooked(model):
    """A LoRA on the prompt alone, as the host's hooks have it, whose strength falls to 0 in the midst."""
    weights = {"diffusion_model.double_blocks.1.img_mlp.0.weight": (torch.randn(1024, 256) / 16,)}
    hooks = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0)
    hook.weights, hook.need_weight_init = weights, False
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.add(hook)
    hooks.set_keyframes_on_hooks(keyframes)
    return {"positive": prompt(1, hooks=hooks), "negative": prompt(2)}


CONDITIONS = {
    "areas": areas,
    "areas alone": areas_alone,
    "one area": one_area,
    "bounds of masks": bounds_of_masks,
    "masks": masks,
    "timestep ranges": ranges,
    "timestep ranges of the prompt": ranges_of_the_prompt,
    "references": references,
    "ControlNet": control,
    "LoRA hooks": hooked,
}


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("kind", CONDITIONS)
def test_whatever_conditions_the_host_works_out(flux, kind, cfg):
    make = CONDITIONS[kind]
    conditions = make(flux) if kind in ("ControlNet", "LoRA hooks") else make()

    def guider(model):
        return cfg_guider(model, cfg=cfg, **conditions)

    renewal = 3 if cfg == 1 else 1
    check(flux, Pushed(negative(), every=renewal), {"renew_every": 3}, guider, size=(1, 4, 6), tolerance=2e-3)


AREAS_FIRST = [*prompt(2, area=(4, 4, 0, 0)), *prompt(5, tokens=5)]


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_the_nodes_own_negative_prompt_is_not_taken_for_another_with_areas(flux, cfg):
    """The host adds one for that area to each list, under the identity of the one whose area it is."""

    def guider(model, **more):
        return cfg_guider(model, POSITIVE, AREAS_FIRST, cfg=cfg, **more)

    size = (1, 4, 6)
    ours = draw(guider(guided(flux, **LIMITED, negative_conditioning=LONGER)), size=size)
    expected = draw(Pushed(negative("own")).on(guider(flux, own=LONGER)), size=size)
    close(ours, expected, draw(guider(flux), size=size), 2e-3)


def test_a_prompt_of_several_rows_meets_its_own_negative_row(flux):
    rows = [torch.cat([prompt(seed)[0][0] for seed in seeds]) for seeds in ((1, 3), (2, 5))]
    extras = {"pooled_output": prompt(1)[0][1]["pooled_output"], "guidance": 3.5}

    def guider(model):
        return cfg_guider(model, [[rows[0], extras]], [[rows[1], extras]])

    check(flux, Pushed(negative()), {}, guider, size=(2, 4, 6))


def half(**extra):
    return prompt(2, **extra)


OF_PICTURE, OF_SAMPLING = "of the picture out .it has areas or masks", "of the sampling out .*holds for those up to {}."
PARTIAL = {
    "area": (half(area=(4, 4, 0, 0)), OF_PICTURE),
    "mask": (half(mask=torch.ones(1, 32, 48)), OF_PICTURE),
    "areas that are two halves": (half(area=(4, 2, 0, 0)) + half(area=(4, 4, 0, 2)), OF_PICTURE),
    "start": (half(start_percent=0.3), OF_SAMPLING.format("0%")),
    "end": (half(start_percent=0.0, end_percent=0.9), OF_SAMPLING.format("90%")),
    "gap": (half(end_percent=0.4) + half(start_percent=0.5), OF_SAMPLING.format("40%")),
    "no strength": (half(strength=0.0), OF_PICTURE),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_negative_prompt_that_leaves_a_part_out_is_refused_before_any_step(flux, name):
    listed, words = PARTIAL[name]
    ours = Counted(guided(flux, **LIMITED))
    with pytest.raises(ValueError, match=f"leaves a part {words}.*add one"):
        ours.drawn(guider=lambda model: cfg_guider(model, negative=listed), size=(1, 4, 6))
    assert not ours.rows


def test_a_negative_prompt_may_leave_out_what_is_not_guided(flux):
    listed = half(start_percent=0.4)
    inputs = {**PLAIN, "scale": 1.5, "start_percent": 0.5}
    found, expected = (
        draw(cfg_guider(guided(flux, **inputs), negative=negative), steps=4) for negative in (listed, prompt(2))
    )
    assert torch.equal(found, expected) and not torch.equal(found, draw(cfg_guider(flux), steps=4))


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_context_windows(flux, schedule, cfg, caplog):
    """Windows over the width; without a limit pushes fuse as they are."""

    def guider(model):
        windowed = in_windows(model, 6, 2, schedule)
        return cfg_guider(windowed, cfg=cfg, negative=prompt(2))

    every = 3 if cfg == 1 and schedule == "standard_static" else 1
    inputs = {**PLAIN, "scale": 1.5, "renew_every": every}
    oracle = Pushed(negative(), 1.5, 10.0, 1.0, every)
    check(flux, oracle, inputs, guider, size=(1, 2, 10), steps=4)
    assert not warnings(caplog)


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_windows_that_move_with_the_step_are_said_to_save_nothing(flux, schedule, cfg, caplog):
    """Where the branch costs something, and but for windows that stand where one stood lately."""

    def drawn(every):
        model = guided(flux, **{**LIMITED, "renew_every": every})
        return draw(cfg_guider(in_windows(model, 6, 2, schedule), cfg=cfg), **by)

    by = {"size": (1, 2, 10), "steps": 4}
    same, said = torch.equal(drawn(3), drawn(1)), warnings(caplog)
    moves = schedule == "standard_uniform" and cfg == 1
    assert len(said) == moves and all("context windows that move from step to step" in one for one in said)
    assert cfg == 1 or same


def test_the_negatives_conditions_are_cut_to_the_window(flux):
    """Windows over a batch of pictures, each with a prompt and a negative prompt of its own."""
    rows = [torch.cat([prompt(seed)[0][0] for seed in seeds]) for seeds in ((1, 3, 4, 6), (2, 5, 7, 8))]
    extras = {"pooled_output": prompt(1)[0][1]["pooled_output"], "guidance": 3.5}

    def guider(model):
        windowed = in_windows(model, 2, 0, dim=0)
        return cfg_guider(windowed, [[rows[0], extras]], [[rows[1], extras]])

    check(flux, Pushed(negative(), every=2), {"renew_every": 2}, guider, size=(4, 3, 4))


# --- without a negative prompt ---


PICTURE = 6  # tokens of a latent of 4 by 5
OFF = {**LIMITED, "negative_prompt": "off"}
DISTURBED = {
    "identity": ({"blocks": "0-1"}, {}),
    "mean": ({"blocks": "1, s0", "negative": "mean", "perturbation": 0.6}, {"kind": "mean", "u": 0.6}),
    "identity + text": ({"blocks": "0, s0", "negative": "identity + text"}, {"kind": "identity + text"}),
    "softened": ({"blocks": "1", "negative": "softened", "temperature": 3.0}, {"kind": "softened", "temperature": 3.0}),
    "scales": (
        {"blocks": "0:1.5, 1:0.3, s0", "perturbation": 0.5},
        {"shares": {("double", 0): 0.25, ("double", 1): 0.05}, "u": 0.5},
    ),
    "heads": ({"blocks": "0[0], 1[1], s0"}, {"heads": {("double", 0): [0], ("double", 1): [1]}}),
}
BLOCKS = {"identity": "0 1", "mean": "1 s0", "identity + text": "0 s0", "softened": "1"}


def of_blocks(text):
    return {("single", int(b[1:])) if b[0] == "s" else ("double", int(b)) for b in text.split()}


@pytest.mark.parametrize("name", DISTURBED)
@pytest.mark.parametrize("every", [1, 3])
def test_the_prompt_is_worked_out_once_more_with_a_disturbed_attention(flux, name, every):
    inputs, branch = DISTURBED[name]
    oracle = Pushed(disturbed(of_blocks(BLOCKS.get(name, "0 1 s0")), PICTURE, **branch), every=every)
    check(flux, oracle, {**OFF, "perturbation": 1.0, "renew_every": every, **inputs}, size=(2, 4, 5), steps=4)


@pytest.mark.parametrize("both", [False, True])
def test_beside_cfg_the_prompt_is_disturbed_or_both(flux, both):
    """As in the attention: the push is the prompt's own prediction's, so that cfg enlarges it."""

    def guider(model):
        return cfg_guider(model, cfg=3.0)

    lists = {"positive": 3.0, "negative": -2.0} if both else {"positive": 3.0}
    oracle = Pushed(disturbed(of_blocks("0 1"), PICTURE), every=2, lists=lists)
    inputs = {**OFF, "blocks": "0-1", "perturbation": 1.0, "guide_unconditional": both, "renew_every": 2}
    check(flux, oracle, inputs, guider, size=(1, 4, 5))
    rows = Counted(guided(flux, **inputs)).drawn(guider=guider, size=(1, 4, 5))[1]
    assert rows == 2 * 4 + 2 * (1 + both)


def test_a_side_of_cfg_that_nobody_wants_is_not_guided(flux):
    inputs = {**OFF, "perturbation": 1.0, "renew_every": 2}
    one, other = (draw(cfg_guider(guided(flux, **inputs, guide_unconditional=on))) for on in (False, True))
    assert torch.equal(one, other) and not torch.equal(one, draw(cfg_guider(flux)))


ZEROS = [[torch.zeros(1, 9, 64), {"pooled_output": torch.zeros(1, 32), "guidance": 3.5}]]
NONE = {"none": basic_guider, "zeros": lambda model: cfg_guider(model, negative=ZEROS)}


def test_guide_unconditional_acts_beside_a_negative_of_zeros_and_nothing_denies_it(flux, caplog):
    """Where no negative prompt is carried, whatever negative_prompt says."""
    inputs = {**OFF, "blocks": "0-1", "perturbation": 1.0, "negative_prompt": "sampler's"}
    one, other = (
        draw(cfg_guider(guided(flux, **inputs, guide_unconditional=on), cfg=3.0, negative=ZEROS))
        for on in (False, True)
    )
    assert not torch.equal(one, other)
    assert "guide_unconditional" not in caplog.text and "unconditional rows too" in caplog.text


@pytest.mark.parametrize("name", NONE)
def test_without_a_negative_prompt_it_guides_as_off(flux, name, caplog):
    inputs = {**LIMITED, "blocks": "0-1", "perturbation": 1.0}
    found, off = (draw(NONE[name](guided(flux, **{**inputs, "negative_prompt": n}))) for n in ("sampler's", "off"))
    assert torch.equal(found, off) and not torch.equal(found, draw(NONE[name](flux)))
    (said,) = warnings(caplog)
    assert "so guidance does without it" in said


@pytest.mark.parametrize("name", NONE)
def test_without_any_and_without_a_disturbance_it_is_the_plain_model_and_that_is_said(flux, name, caplog):
    found = draw(NONE[name](guided(flux, **{**LIMITED, "perturbation": 0.0})))
    assert torch.equal(found, draw(NONE[name](flux)))
    (said,) = warnings(caplog)
    assert "so nothing is guided, as perturbation is 0" in said
    assert "there was no negative prompt, as said above, and nothing else disturbs the branch" in line(caplog)


# --- beside others ---


def both_orders(model, one, other):
    return one(other(model)), other(one(model))


def attention(model):
    return guided(model, reach="attention", blocks="1", negative_prompt="off", scale=1.0)


def output(model):
    return guided(model, reach="output", blocks="1", negative_prompt="off", renew_every=1, scale=1.0)


@pytest.mark.parametrize("other", [attention, output])
@pytest.mark.parametrize("carried", [True, False])
def test_beside_guidance_of_another_reach(flux, other, carried):
    """Each works on what the other leaves of the prompt, and on no negative branch."""
    branch = negative() if carried else disturbed({("double", 0)}, PICTURE)
    own = {**LIMITED, "renew_every": 2, "negative_prompt": "sampler's" if carried else "off"}
    own |= {"blocks": "0", "perturbation": 1.0}
    sampling, plain = {"size": (1, 4, 5)}, draw(cfg_guider(flux), size=(1, 4, 5))
    if carried:
        expected = draw(Pushed(branch, every=2).on(cfg_guider(other(flux))), **sampling)
    else:
        expected = draw(Pushed(unguided(flux, branch), every=2).on(cfg_guider(other(flux))), **sampling)
    for model in both_orders(flux, other, lambda model: guided(model, **own)):
        close(draw(cfg_guider(model), **sampling), expected, plain)


def unguided(plain, branch):
    """A branch that other guidance on the model leaves alone."""

    def alone(guider, listed, x, t, options):
        told = {**options["transformer_options"]}
        told["patches_replace"] = plain.model_options["transformer_options"].get("patches_replace", {})
        return branch(guider, listed, x, t, {**options, "transformer_options": told})

    return alone


def test_two_of_its_kind_add_up(flux):
    """Without a limit: each with a negative prompt of its own, at its own steps."""
    inputs = {**PLAIN, "negative_prompt": "off"}
    one = {**inputs, "scale": 0.7, "renew_every": 2, "negative_conditioning": prompt(3)}
    other = {**inputs, "scale": 0.5, "renew_every": 3, "negative_conditioning": LONGER}
    guider = cfg_guider(flux, one=prompt(3), other=LONGER)
    pushes = Pushed(negative("one"), 0.7, 10.0, 1.0, 2), Pushed(negative("other"), 0.5, 10.0, 1.0, 3)
    plain, real = draw(cfg_guider(flux), steps=6), guider.predict_noise
    guider.predict_noise = lambda x, t, options={}, seed=None: (
        real(x, t, options, seed) + sum(each.push(guider, x, t, options) for each in pushes)
    )
    expected = draw(guider, steps=6)
    for model in both_orders(flux, lambda model: guided(model, **one), lambda model: guided(model, **other)):
        close(draw(cfg_guider(model), steps=6), expected, plain)


@pytest.mark.parametrize("outer, inner", [(0, 1), (1, 0)])
def test_two_that_disturb(flux, outer, inner):
    """The first one's branch is the disturbed prompt alone; the second one's push counts as the prompt's own."""
    scales, sampling = (0.7, 0.4), {"size": (1, 4, 5)}
    branches = [disturbed({("double", i)}, PICTURE) for i in (0, 1)]

    def both_pushes(guider, x, t, options):
        plus = predicted(guider, guider.conds["positive"], x, t, options)
        minus = [branch(guider, guider.conds["positive"], x, t, options) for branch in branches]
        first = scales[inner] * (plus - minus[inner])
        return first + scales[outer] * (plus + first - minus[outer])

    guider, model = cfg_guider(flux), flux
    real = guider.predict_noise
    guider.predict_noise = lambda x, t, o={}, seed=None: real(x, t, o, seed) + both_pushes(guider, x, t, o)
    for i in (outer, inner):  # the host calls first what was added first
        inputs = {**PLAIN, "negative_prompt": "off", "blocks": str(i), "perturbation": 1.0, "scale": scales[i]}
        model = guided(model, **inputs)
    close(draw(cfg_guider(model), **sampling), draw(guider, **sampling), draw(cfg_guider(flux), **sampling))


def easy_cache(model):
    return EasyCacheNode.execute(model, 3.0, 0.1, 0.95, False).args[0]


def lazy_cache(model):
    return LazyCacheNode.execute(model, 3.0, 0.1, 0.95, False).args[0]


class Heard:
    """How many rows the model's first block has in each evaluation, under what a cache skips."""

    def __init__(self, model):
        self.block, self.rows = model.model.diffusion_model.double_blocks[0], {}

    def __enter__(self):
        def hear(module, args, kwargs):
            sigma = kwargs["transformer_options"]["sigmas"][0].item()
            self.rows[sigma] = self.rows.get(sigma, 0) + kwargs["img"].shape[0]

        self.handle = self.block.register_forward_pre_hook(hear, with_kwargs=True)
        return self

    def __exit__(self, *args):
        self.handle.remove()


@pytest.mark.parametrize("carried, ours_first", [(True, False), (False, True)])
def test_easy_cache_skips_no_side_of_a_difference(flux, carried, ours_first, caplog):
    """What is computed is both sides, whatever the cache would skip; it skips steps in between."""
    own = {**LIMITED, "renew_every": 4, "blocks": "0-1", "perturbation": 1.0}
    own |= {"negative_prompt": "sampler's" if carried else "off"}
    model = easy_cache(guided(flux, **own)) if ours_first else guided(easy_cache(flux), **own)
    record = Record()
    with Heard(flux) as heard:
        found = draw(cfg_guider(record_model(model, record)), steps=14)
    rows = record.recordings[0].rows
    assert [row.step for row in rows if row.branch == "computed"] == [1, 5, 9, 13] and len(rows) == 14
    begins = record.recordings[0].schedule
    assert all(heard.rows[begins[step - 1]] == 2 for step in (1, 5, 9, 13))
    assert sum(heard.rows.values()) < 14 and not warnings(caplog)
    assert torch.isfinite(found).all()


def test_easy_cache_skips_both_sides_of_cfg(flux):
    with Heard(flux) as heard:
        draw(cfg_guider(guided(easy_cache(flux), **LIMITED), cfg=2.0), steps=14)
    with Heard(flux) as alone:
        draw(cfg_guider(easy_cache(flux), cfg=2.0), steps=14)
    assert set(heard.rows.values()) == {2} and len(heard.rows) < 14 and len(alone.rows) < 14


@pytest.mark.parametrize("ours_first", [True, False])
def test_lazy_cache_skips_what_is_guided(flux, ours_first, caplog):
    own = {**LIMITED, "renew_every": 4}
    model = lazy_cache(guided(flux, **own)) if ours_first else guided(lazy_cache(flux), **own)
    with Heard(flux) as heard:
        found = draw(cfg_guider(model), steps=14)
    assert len(heard.rows) < 14 and max(heard.rows.values()) == 2 and not warnings(caplog)
    assert torch.isfinite(found).all() and not torch.equal(found, draw(cfg_guider(lazy_cache(flux)), steps=14))


# Other packs' caches, which keep what they know in the model: one state for all prompts, or one for each kind.


class Cache:
    """A stand-in: at every second evaluation of a kind, what the last block gave to the one before it."""

    def __init__(self, by_kind):
        self.by_kind, self.calls, self.kept = by_kind, {}, {}

    def on(self, model, module):
        model = model.clone()
        layer = model.model.diffusion_model.final_layer

        def run(apply_model, given):
            kinds = tuple(given["cond_or_uncond"]) if self.by_kind else None
            self.calls[kinds] = self.calls.get(kinds, 0) + 1

            def last(module, args):
                if self.calls[kinds] % 2:
                    self.kept[kinds] = args[0]
                return (self.kept[kinds], *args[1:])

            handle = layer.register_forward_pre_hook(last)
            try:
                return apply_model(given["input"], given["timestep"], **given["c"])
            finally:
                handle.remove()

        run.__module__ = module
        model.set_model_unet_function_wrapper(run)
        return model


@pytest.mark.parametrize("by_kind", [False, True])
@pytest.mark.parametrize("inputs", [{}, {"negative_prompt": "off", "perturbation": 1.0}], ids=["negative", "disturbed"])
@pytest.mark.parametrize("ours_first", [False, True])
def test_a_cache_that_would_give_the_branch_what_it_kept_ends_guidance(flux, by_kind, inputs, ours_first, caplog):
    """Of prompts of two lengths, which the host works out one after another."""

    def cached(model):
        return Cache(by_kind).on(model, "custom_nodes.ComfyUI-TeaCache.nodes")

    def ours(model):
        return guided(model, **{**LIMITED, "blocks": "0-1", "renew_every": 2, **inputs})

    model = cached(ours(flux)) if ours_first else ours(cached(flux))
    found, expected = (draw(cfg_guider(each, negative=LONGER)) for each in (model, cached(flux)))
    assert torch.equal(found, expected) and not torch.equal(found, draw(cfg_guider(flux, negative=LONGER)))
    (said,) = warnings(caplog)
    assert "TeaCache would give the branch what it keeps" in said and "it failed, as said above" in line(caplog)


def test_beside_cfg_a_cache_that_knows_both_kinds_goes_with_guidance(flux, caplog):
    """Nothing is worked out that it does not expect."""
    cached = Cache(by_kind=True).on(flux, "custom_nodes.ComfyUI-TeaCache.nodes")
    found = draw(cfg_guider(guided(cached, **LIMITED), negative=LONGER, cfg=2.0))
    plain = draw(cfg_guider(Cache(by_kind=True).on(flux, "other"), negative=LONGER, cfg=2.0))
    assert not warnings(caplog) and (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("key", ["rel_l1_thresh", "magcache_thresh"])
def test_a_cache_is_known_by_what_it_adds_to_the_options(flux, key):
    model = Cache(by_kind=False).on(flux, "custom_nodes.mine")
    assert caches.cache_on(model.model_options) is None
    model.model_options["transformer_options"][key] = 0.4
    assert caches.cache_on(model.model_options) in ("TeaCache", "MagCache")


# --- what goes wrong ---


def broken(*args, **kwargs):
    raise ArithmeticError("made to fail")


def failing_from(step, function):
    """A function that fails from its so manieth call on."""
    calls = []

    def sometimes(*args, **kwargs):
        calls.append(None)
        return broken() if len(calls) >= step else function(*args, **kwargs)

    return sometimes


@pytest.mark.parametrize(
    "place", ["guide_in_place", "_keep", "_guided_lists", "noise_level", "_beside", "_moved", "_tokens"]
)
def test_a_fault_of_ours_leaves_the_plain_picture_and_one_warning(flux, monkeypatch, caplog, place):
    monkeypatch.setattr(prediction, place, broken)
    found = sample(guided(flux, **LIMITED), POSITIVE, LONGER, **SMALL)
    assert torch.equal(found, sample(flux, POSITIVE, LONGER, **SMALL))
    (said,) = warnings(caplog)
    assert "forwards go on without guidance: ArithmeticError: made to fail" in said
    assert "guided nothing: it failed, as said above" in caplog.text


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_from_a_fault_on_the_picture_goes_on_as_plain(flux, monkeypatch, caplog, cfg):
    """Guided for two of four steps: as an oracle that stops there."""
    real, part = prediction.guide_in_place, {"size": (1, 4, 6)}
    monkeypatch.setattr(prediction, "guide_in_place", failing_from(3, real))
    ours = Counted(guided(flux, **{**LIMITED, "renew_every": 2}))
    found, rows = ours.drawn(guider=lambda model: cfg_guider(model, cfg=cfg), **part)
    assert rows == (4 + 2 if cfg == 1 else 8)  # the third step's branch is the last
    every = 2 if cfg == 1 else 1
    oracle, steps = Pushed(negative(), every=every), []

    def strength(sigma):
        steps.append(sigma)
        return 1.0 if len(steps) <= 2 else 0.0

    oracle.strength = strength
    close(found, draw(oracle.on(cfg_guider(flux, cfg=cfg)), **part), draw(cfg_guider(flux, cfg=cfg), **part))
    assert len(warnings(caplog)) == 1 and "2 steps" in line(caplog)


def refusing(model, wanted):
    """A node that has the host fail where so many lists of conditions are worked out."""

    def wrapper(executor, model, conds, *args):
        return broken() if sum(map(bool, conds)) == wanted else executor(model, conds, *args)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", wrapper)
    return model


def test_a_negative_prompt_that_the_host_cannot_work_out(flux, caplog):
    found = sample(refusing(guided(flux, **LIMITED), 2), POSITIVE, LONGER, **SMALL)
    assert torch.equal(found, sample(flux, POSITIVE, LONGER, **SMALL)) and len(warnings(caplog)) == 1


def test_the_negative_prompt_stands_where_cfg_would_have_it(flux):
    """So that other patches see at cfg 1 what they know."""
    seen = []

    def hear(executor, model, conds, *args):
        seen.append([bool(listed) for listed in conds])
        return executor(model, conds, *args)

    model = guided(flux, **{**LIMITED, "renew_every": 2})
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", hear)
    draw(cfg_guider(model))
    assert seen == [[True, True], [True, False]] * 2


def test_what_the_host_cannot_work_out_of_the_prompt_is_its_own(flux, caplog):
    """The error that it gives is the user's to read, and none of guidance's."""
    for inputs in (LIMITED, OFF):
        for every in (1, 2):
            model = refusing(guided(flux, **{**inputs, "renew_every": every}), 1)
            with pytest.raises(ArithmeticError):
                sample(refusing(model, 2), POSITIVE, LONGER, **SMALL)
    caplog.clear()
    with pytest.raises(ArithmeticError):
        sample(refusing(guided(flux, **{**OFF, "perturbation": 1.0}), 1), POSITIVE, LONGER, **SMALL)
    assert not warnings(caplog)


def test_a_block_that_cannot_be_disturbed(flux, monkeypatch, caplog):
    monkeypatch.setattr(perturbation, "identity_attention", broken)
    model = guided(flux, **{**OFF, "blocks": "0-1", "perturbation": 1.0, "renew_every": 2})
    assert torch.equal(sample(model, POSITIVE, LONGER, **SMALL), sample(flux, POSITIVE, LONGER, **SMALL))
    assert len(warnings(caplog)) == 1 and "it failed, as said above" in line(caplog)


def test_a_block_whose_attention_cannot_be_reached(flux, caplog):
    """Another pack's block that hands no options on: what it gives is the plain prediction, and no branch."""

    def without_options(args, extra):
        return extra["original_block"]({**args, "transformer_options": {}})

    model = flux.clone()
    model.set_model_patch_replace(without_options, "dit", "double_block", 1)
    ours = guided(model, **{**OFF, "blocks": "0-1", "perturbation": 1.0, "renew_every": 2})
    assert torch.equal(sample(ours, POSITIVE, LONGER, **SMALL), sample(model, POSITIVE, LONGER, **SMALL))
    (said,) = warnings(caplog)
    assert "double block 1 goes on without guidance from sigma 1 on" in said and "hand transformer_options on" in said
    assert "it failed, as said above" in line(caplog)


def dropping(model, call):
    """A block that from its so manieth call on hands no options on, as a cache of blocks may."""
    calls = []

    def earlier(args, extra):
        calls.append(None)
        options = {} if len(calls) >= call else args["transformer_options"]
        return extra["original_block"]({**args, "transformer_options": options})

    model = model.clone()
    model.set_model_patch_replace(earlier, "dit", "double_block", 0)
    return model


@pytest.mark.parametrize("unreached", [False, True])
def test_a_block_that_fails_later_ends_all_guidance(flux, monkeypatch, caplog, unreached):
    """What was held of it is no longer used either. By hand: the branch of step 3 is the block's fifth call."""
    model, sampling = dropping(flux, 5 if unreached else 99), {"steps": 5, "size": (1, 4, 5)}
    if not unreached:
        monkeypatch.setattr(perturbation, "identity_attention", failing_from(2, perturbation.identity_attention))
    inputs = {**OFF, "blocks": "0", "perturbation": 1.0, "renew_every": 2}
    found, rows = Counted(guided(model, **inputs)).drawn(**sampling)
    assert rows == 5 + 2 - (not unreached)  # what breaks off in the block is begun only
    oracle = Pushed(disturbed({("double", 0)}, PICTURE), every=2)
    oracle.strength = lambda sigma: float(len(oracle.changes) < 2)
    close(found, draw(oracle.on(cfg_guider(flux)), **sampling), draw(cfg_guider(flux), **sampling))
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        comfy.model_management.InterruptProcessingException(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("place", ["guide_in_place", "_guided_lists", "_with_negative", "_disturbed", "_past_caches"])
def test_out_of_memory_and_interrupts_pass_through(flux, monkeypatch, error, place):
    def fails(*args):
        raise error

    monkeypatch.setattr(prediction, place, fails)
    inputs = {**OFF, "perturbation": 1.0} if place == "_disturbed" else LIMITED
    with pytest.raises(type(error)):
        sample(guided(flux, **inputs), POSITIVE, LONGER, **SMALL)


def test_a_patch_that_works_out_the_prompts_itself_is_named(flux, caplog):
    def own(args):
        options = args["model_options"]
        return comfy.samplers._calc_cond_batch(args["model"], args["conds"], args["input"], args["sigma"], options)

    model = guided(flux, **LIMITED)
    model.set_model_sampler_calc_cond_batch_function(own)
    record = Record()
    found = sample(record_model(model, record), POSITIVE, LONGER, **SMALL)
    assert torch.equal(found, sample(flux, POSITIVE, LONGER, **SMALL))
    assert "(sampler_calc_cond_batch_function), where the prediction can't be reached" in line(caplog)
    assert "sampler_calc_cond_batch_function" in record.recordings[0].problems()[0]


def test_nothing_is_held_after_a_sampling(flux):
    def tensors():
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    def stop(step, *args):
        raise comfy.model_management.InterruptProcessingException

    inputs = {**LIMITED, "renew_every": 3}
    models = [guided(flux, **inputs), guided(flux, **{**inputs, "negative_prompt": "off"})]
    for model in models:
        sample(model, POSITIVE, LONGER, cfg=2.0, **SMALL)
    before = tensors()
    for model in models:
        sample(model, POSITIVE, LONGER, **SMALL)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(model, POSITIVE, LONGER, cfg=2.0, callback=stop, **SMALL)
    assert tensors() <= before


def test_what_is_held_in_a_sampling_does_not_grow(flux, monkeypatch):
    """Windows that are others at each step, and a sampler without a step for what it asks."""
    most, keep = [], prediction._keep

    def watched(plan, run, forward):
        keep(plan, run, forward)
        most.append(len(run.held))

    monkeypatch.setattr(prediction, "_keep", watched)
    for every, least, held in ((1, 2, 4), (2, 5, 8)):
        most.clear()
        model = in_windows(guided(flux, **{**LIMITED, "renew_every": every}), 6, 2, "standard_uniform")
        draw(cfg_guider(model), size=(1, 2, 12), steps=6)
        assert least <= max(most) <= held


# --- what is said ---


def test_a_record_has_a_row_a_step_at_the_prediction(flux):
    """Its numbers, by hand, and the map of the latent's places."""
    record, sampling = Record(), {"size": (2, 5, 7), "steps": 4}
    draw(cfg_guider(record_model(guided(flux, **{**LIMITED, "renew_every": 2}), record)), **sampling)
    oracle = Pushed(negative(), every=2)
    draw(oracle.on(cfg_guider(flux)), **sampling)
    (recording,) = record.recordings
    assert [(row.step, row.block, row.branch) for row in recording.rows] == [
        (step, "prediction", "computed" if step % 2 else "reused") for step in (1, 2, 3, 4)
    ]
    l1 = lambda t: t.norm(p=1, dim=-1)  # noqa: E731
    for row, (_, plus, minus, moved) in zip(recording.rows, oracle.changes, strict=True):
        ratio = l1(plus + 3 * (plus - minus)) / l1(plus)
        cosine = torch.nn.functional.cosine_similarity(plus, minus, dim=-1)
        numbers = {
            "ratio": ratio.mean(),
            "clamped": (ratio > 1.75).double().mean(),
            "change": l1(moved - plus).sum() / l1(plus).sum(),
            "cosine": cosine.mean(),
            "norm_ratio": l1(minus).sum() / l1(plus).sum(),
        }
        assert {name: getattr(row, name) for name in numbers} == pytest.approx(
            {name: value.item() for name, value in numbers.items()}, rel=2e-3, abs=2e-3
        )
        assert row.strength == 3.0
    ((place, drawn),) = recording.maps.items()
    assert place == (0, "prediction") and drawn.shape == (5, 7)
    assert torch.allclose(drawn, (l1(moved - plus) / l1(plus))[0].reshape(5, 7).float(), atol=1e-3)
    assert plot(recording).shape == (960, 1280, 3) and recording.problems() == []


def test_the_log_has_the_change_and_the_share_at_the_limit(flux, caplog):
    sampling = {"size": (1, 5, 7), "steps": 3}
    oracle = Pushed(negative())
    draw(oracle.on(cfg_guider(flux)), **sampling)
    draw(cfg_guider(guided(flux, **LIMITED)), **sampling)
    l1 = lambda t: t.norm(p=1, dim=-1)  # noqa: E731
    change = sum((l1(new - plus).sum() / l1(plus).sum()).item() for _, plus, _, new in oracle.changes) / 3
    limited = sum((l1(4 * p - 3 * m) > 1.75 * l1(p)).double().mean().item() for _, p, m, _ in oracle.changes) / 3
    assert f"mean change {change:.1%}, {limited:.0%} of tokens at the limit (scale 3, tau 1.75, alpha 0.4)" in line(
        caplog
    )


def test_tiles_that_a_node_asks_for_are_said_to_save_nothing(flux, caplog):
    """Each is guided by itself, as nobody says which it is."""

    def tiled(args):
        given = args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
        model, conds, x, sigma, options = given
        halves = [comfy.samplers.calc_cond_batch(model, conds, half, sigma, options) for half in x.chunk(2, -1)]
        return [torch.cat(parts, -1) for parts in zip(*halves, strict=True)]

    def run(every):
        model = guided(flux, **{**LIMITED, "renew_every": every})
        model.set_model_sampler_calc_cond_batch_function(tiled)
        return sample(model, POSITIVE, LONGER, **SMALL)

    assert torch.equal(run(3), run(1))
    (said,) = warnings(caplog)
    assert "renew_every saved nothing" in said


# --- torch.compile ---


@pytest.mark.parametrize(
    "inputs, graphs",
    [
        ({"negative_conditioning": prompt(2, tokens=14)}, 2),
        ({"negative_prompt": "off", "blocks": "0-1", "perturbation": 1.0}, 2),
    ],
    ids=["negative prompt", "disturbed"],
)
def test_compiled_it_is_a_graph_for_the_prompt_and_one_for_the_branch(flux, monkeypatch, inputs, graphs):
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    model = guided(flux, **{**LIMITED, "renew_every": 3, "start_percent": 0.1, "schedule": "bell", **inputs})
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend="eager", dynamic=False)
    expected, ours = draw(cfg_guider(model), steps=8), draw(cfg_guider(compiled), steps=8)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (counters["stats"]["unique_graphs"], dict(counters["graph_break"])) == (graphs, {})


# The last, as the host looks for memory leaks where two models are loaded.
def test_in_bfloat16(flux_file):
    check(load_flux(flux_file, torch.bfloat16), Pushed(negative(), every=2), {"renew_every": 2}, tolerance=0.1)
