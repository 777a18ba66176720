"""The evidence's contenders: each does what its name says, at the cost that is counted for it."""

import itertools
from functools import partial

import by_hand
import pytest
import torch
from nag_pag_flux.lab.evidence import contenders, free_methods, sampling
from nag_pag_flux.lab.toy import flux as flux_module

STEPS, ROWS = 4, 2
DEPTHS = (8, 4)  # of the shipped model
ours = partial(contenders.nagpag, depths=DEPTHS)


@pytest.fixture(scope="module")
def model():
    """In float32, so that what is done by hand can be compared."""
    return sampling.load(by_hand.SHIPPED.file, torch.float32)


def pictures(model, contender, steps=STEPS, rows=ROWS):
    return by_hand.sampled(contender.patch(model), rows, steps, contender)


def test_naguidance_does_something_in_batches_of_its_size():
    """Two prompts of more pictures may not fit one batch, and then it would be no guidance by another name."""
    model, contender = by_hand.SHIPPED.load(), contenders.nag()
    plain, guided = (pictures(model, one, 2, contender.batch) for one in (contenders.plain(), contender))
    assert ((guided - plain).abs().amax((1, 2, 3)) > 0.05).all()


# --- cost ---


def counted_passes(model, contender):
    """Rows through each block in a whole sampling, weighed as FLUX.1's: 19 blocks of 170, 38 of 141."""
    flux, rows = model.model.diffusion_model, {"double_blocks": 0, "single_blocks": 0}
    handles = []
    for kind in rows:
        for block in getattr(flux, kind):

            def count(block, args, keywords, kind=kind):
                first = args[0] if args else keywords.get("img", keywords.get("x"))
                rows[kind] += first.shape[0]

            handles.append(block.register_forward_pre_hook(count, with_kwargs=True))
    try:
        pictures(model, contender, sampling.STEPS, rows=1)
    finally:
        for handle in handles:
            handle.remove()
    shares = {kind: count / len(getattr(flux, kind)) for kind, count in rows.items()}
    whole = 19 * 170 + 38 * 141
    passes = (shares["double_blocks"] * 19 * 170 + shares["single_blocks"] * 38 * 141) / whole
    return passes / sampling.STEPS


@pytest.mark.parametrize(
    "contender",
    [
        contenders.plain(),
        contenders.cfg(2.0),
        contenders.nag(),
        contenders.skip_layer(3, depths=DEPTHS),
        contenders.skip_layer(5, start=0.2, end=0.7, depths=DEPTHS),
        contenders.pag(3, 0.5),
        contenders.pag(3, 0.5, every=4),
        free_methods.momentum(0.5, 0.6),
        free_methods.token_perturbation(3, 6, 0.5),
        ours(),
        ours(cfg=2.0),
        ours(blocks="6", reach="output", renew_every=5, tau=1.5, alpha=0.1),
        ours(blocks="2", reach="double blocks", renew_every=2, end_percent=0.5, tau=1.5, alpha=0.1),
        ours(blocks="5", reach_blocks=4, renew_every=3, start_percent=0.3, tau=1.5, alpha=0.1),
    ],
    ids=lambda contender: contender.name,
)
def test_the_passes_of_a_contender_are_those_that_the_model_runs(model, contender):
    assert counted_passes(model, contender) == pytest.approx(contender.passes, abs=1e-6)


# --- effect ---


def test_a_contender_of_no_weight_changes_nothing(model):
    plain = pictures(model, contenders.plain())
    for contender in (contenders.pag(3, 0.0), contenders.skip_layer(3, 0.0), contenders.nagpag(scale=0.0)):
        assert pictures(model, contender).equal(plain), contender.name


def test_classic_pag_is_a_second_pass_with_one_identity_map_by_hand(model, monkeypatch):
    """Two passes a step of the module that was trained, which shares nothing with the host, and Euler's method."""
    ours = pictures(model, contenders.pag(6, 0.5))
    theirs = by_hand.pictures(lambda _, forward, step: pag_velocity(monkeypatch, forward, 6, 0.5), ROWS, STEPS)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # the prompts are in bfloat16
    assert (ours - pictures(model, contenders.plain())).abs().max() > 0.05


def pag_velocity(monkeypatch, forward, block, weight):
    plain = forward()
    with monkeypatch.context() as patch:
        patch.setattr(flux_module, "attention", identity_at_call(block, flux_module.attention))
        return plain + weight * (plain - forward())


def identity_at_call(number, attention):
    calls = itertools.count()

    def perturbed(q, k, v, rotation):
        z = attention(q, k, v, rotation)
        if next(calls) == number:
            z[:, -64:] = v.transpose(1, 2).flatten(2)[:, -64:]
        return z

    return perturbed


def test_a_layer_is_skipped_in_its_part_of_the_sampling_only(model):
    plain = pictures(model, contenders.plain())
    assert not pictures(model, contenders.skip_layer(3, start=0.2, end=0.7)).equal(plain)
    assert pictures(model, contenders.skip_layer(3, start=0.8, end=0.9)).equal(plain)  # no step begins there


def test_comfyuis_nag_guides_and_without_weight_does_not(model):
    plain = pictures(model, contenders.plain())
    torch.testing.assert_close(pictures(model, contenders.nag(alpha=0.0)), plain, atol=1e-4, rtol=0)
    assert (pictures(model, contenders.nag()) - plain).abs().max() > 0.05
