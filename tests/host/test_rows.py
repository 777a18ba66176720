"""Whose rows are guided: the prompt's and no others, whatever the guider calls them and however a pack runs them."""

import logging

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_perpneg import Guider_PerpNeg, PerpNeg
from oracle import guided_host
from sampling import guided, picture_tokens, prompt, sample

POSITIVE, MIDDLE, NEGATIVE = prompt(1), prompt(2), prompt(3)
BLOCKS = (1, 2, 3)


def run_guider(guider, steps=3):
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "simple", steps)
    latent = torch.zeros(1, 16, 8, 12)
    noise = comfy.sample.prepare_noise(latent, 7)
    return guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=7)


def dual_cfg(model, middle=MIDDLE):
    guider = Guider_DualCFG(model)
    guider.set_conds(POSITIVE, middle, NEGATIVE)
    guider.set_cfg(2.0, 1.5)
    return run_guider(guider)


def perp_neg(model):
    guider = Guider_PerpNeg(model)
    guider.set_conds(POSITIVE, NEGATIVE, MIDDLE)
    guider.set_cfg(2.0, 1.0)
    return run_guider(guider)


def old_perp_neg(model):
    model = PerpNeg.execute(model, MIDDLE, 1.0).args[0]
    return sample(model, POSITIVE, NEGATIVE, cfg=2.0)


def with_areas(model):
    left, right = prompt(1, area=(8, 6, 0, 0)), prompt(4, area=(8, 6, 0, 6))
    return sample(model, left + right, prompt(3, area=(8, 6, 0, 6)), cfg=2.0)


def guided_by_prompt(run, model, rows, tokens=None):
    """What the oracle gives when it guides the rows that `rows` picks, and how many rows that were in all."""
    tokens = picture_tokens() if tokens is None else tokens
    with guided_host(BLOCKS, tokens, prompts=rows) as calls:
        return run(model), sum(count for *_, count in calls)


@pytest.mark.parametrize(
    "run, rows, tokens",
    [
        (dual_cfg, lambda kind, options: kind == 2, picture_tokens()),
        (perp_neg, lambda kind, options: kind == 0, picture_tokens()),
        # It asks for the empty prompt in a call of its own, in which it is the first and only one.
        (old_perp_neg, lambda kind, options: options["cond_or_uncond"] != [0] and kind == 0, picture_tokens()),
        (with_areas, lambda kind, options: kind == 0, picture_tokens(8, 6)),
    ],
)
def test_only_the_prompts_rows(flux, run, rows, tokens):
    ours, plain = run(guided(flux)), run(flux)
    expected, count = guided_by_prompt(run, flux, rows, tokens)
    effect = (expected - plain).abs().max()
    assert count and effect > 1e-3
    assert (ours - expected).abs().max() <= 1e-4 * effect + 1e-6


def by_rows(apply_model, args):
    """A wrapper of the model that runs the batch row by row and changes nothing that it hands on."""
    x, t, c = args["input"], args["timestep"], args["c"]
    own = [{k: v[i : i + 1] if isinstance(v, torch.Tensor) else v for k, v in c.items()} for i in range(len(x))]
    return torch.cat([apply_model(x[i : i + 1], t[i : i + 1], **own[i]) for i in range(len(x))])


def without_uuids(apply_model, args):
    """A wrapper that makes options of its own, with the kinds and no identities."""
    options = {**args["c"]["transformer_options"], "cond_or_uncond": args["cond_or_uncond"]}
    options.pop("uuids")
    return apply_model(args["input"], args["timestep"], **{**args["c"], "transformer_options": options})


def wrapped(model, wrapper):
    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


@pytest.mark.parametrize("inputs", [{}, {"reach": "double blocks", "blocks": "1", "renew_every": 2}])
def test_rows_run_one_by_one_are_guided_where_all_are_the_prompts(flux, inputs):
    ours = sample(wrapped(guided(flux, **inputs), by_rows), POSITIVE, size=(3, 8, 12))
    inputs = {**inputs, "renew_every": 1} if inputs else {}  # nobody says which row is which, so nothing is reused
    torch.testing.assert_close(ours, sample(guided(flux, **inputs), POSITIVE, size=(3, 8, 12)), rtol=1e-4, atol=1e-4)


def test_rows_that_nobody_tells_apart_are_left_alone_and_that_is_said(flux, caplog):
    caplog.set_level(logging.INFO, logger="nag_pag_flux")
    sampling = {"positive": POSITIVE, "negative": NEGATIVE, "cfg": 2.0}
    ours = sample(wrapped(guided(flux), by_rows), **sampling)
    assert torch.equal(ours, sample(wrapped(flux, by_rows), **sampling))
    assert "6 of 6 forwards not guided: another patch" in caplog.text
    assert "guided nothing: nobody told the prompt's rows from others" in caplog.text


@pytest.mark.parametrize("inputs", [{}, {"reach": "double blocks", "blocks": "1", "renew_every": 2}])
def test_a_wrapper_that_drops_the_identities_costs_only_the_reuse(flux, inputs):
    sampling = {"positive": POSITIVE, "negative": NEGATIVE, "cfg": 2.0}
    ours = sample(wrapped(guided(flux, **inputs), without_uuids), **sampling)
    inputs = {**inputs, "renew_every": 1} if inputs else {}
    assert torch.equal(ours, sample(guided(flux, **inputs), **sampling))


told = []  # not in a closure: what an override keeps there, it keeps for a branch apart


@pytest.mark.parametrize(
    "inputs", [{"negative": "softened"}, {"reach": "output", "negative": "softened", "blocks": "1"}]
)
@pytest.mark.parametrize("negative", [NEGATIVE, prompt(3, tokens=14)], ids=["together", "apart"])
def test_what_an_earlier_override_is_told_fits_the_rows_it_gets(flux, inputs, negative):
    """Also in the extra calls for a negative branch: of one condition, with that condition's kind and identity.

    A longer reach calls it for all of a batch, as it may look at what else is there.
    """
    told.clear()

    def earlier(func, q, k, v, *args, **kwargs):
        options = kwargs["transformer_options"]
        told.append((q.shape[0], list(options["cond_or_uncond"]), list(options["uuids"])))
        return func(q, k, v, *args, **kwargs)

    model = flux.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = earlier
    sample(guided(model, **inputs), POSITIVE, negative, cfg=2.0, steps=1, size=(2, 8, 12))
    assert all(rows == 2 * len(kinds) == 2 * len(uuids) for rows, kinds, uuids in told)
    identity = {kind: uuid for _, kinds, uuids in told for kind, uuid in zip(kinds, uuids, strict=True)}
    for _, kinds, uuids in told:
        assert [identity[kind] for kind in kinds] == uuids
    calls_of = {kind: sum(kinds.count(kind) for _, kinds, _ in told) for kind in (0, 1)}
    whole = "reach" in inputs and negative is NEGATIVE
    assert calls_of[0] > 6 and calls_of[1] == (calls_of[0] if whole else 6)
