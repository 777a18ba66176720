"""Experiments: the product at their neutral number, their maths by another way, and nothing left behind."""

import importlib
import itertools
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.lab.evidence import contenders, merge_variants, renewal_variants, sampling, variants
from nag_pag_flux.lab.evidence.contenders import carried
from nag_pag_flux.lab.evidence.experiments import experiments, later, within
from nag_pag_flux.lab.evidence.merge_variants import bound, momentum, parallel, tau_by_step
from nag_pag_flux.lab.evidence.renewal_variants import adaptive, extrapolated, faded, placed
from nag_pag_flux.lab.in_host import enter_host
from nag_pag_flux.lab.toy.flux import Sizes
from nag_pag_flux.lab.toy.proportioned import ProportionedFlux
from nag_pag_flux.nagpag.guidance import guide
from safetensors.torch import save_file

enter_host()
from nag_pag_flux.nagpag.patch.run import Kept, Run  # noqa: E402

DEPTHS = (2, 4)
OURS = {"depths": DEPTHS, "scale": 2.0, "tau": 1.2}  # strong enough that the limit matters
AT = {"depths": DEPTHS, "scale": 2.0}
STEPS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model of random weights, in the type that pictures are made in."""
    generator = torch.Generator().manual_seed(2)
    flux = ProportionedFlux(Sizes(hidden=128, double_blocks=DEPTHS[0], single_blocks=DEPTHS[1]))
    with torch.no_grad():
        for parameter in flux.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    path = tmp_path_factory.mktemp("models") / "flux.safetensors"
    save_file({k: v.bfloat16().contiguous() for k, v in flux.state_dict_for_host().items()}, str(path))
    return sampling.load(path)


def sample(patched, steps=STEPS):
    generator = torch.Generator().manual_seed(3)
    positive, negative = (sampling.conditioning_of(torch.randn(2, 19, 768, generator=generator)) for _ in range(2))
    return sampling.sample(patched, positive, negative, [1, 2], steps=steps)


def pictures(model, contender):
    return sample(contender.patch(model))


@pytest.fixture(scope="module")
def product(model):
    """The product's pictures by its inputs."""
    made = {}

    def of(**inputs):
        key = str(inputs)
        if key not in made:
            made[key] = pictures(model, carried(**inputs))
        return made[key]

    return of


# --- against the product ---


NEUTRAL = [
    (parallel(1.0, **OURS), {}),
    (bound(math.inf, **OURS), {}),
    (momentum(0.0, **OURS), {}),
    (tau_by_step(1.2, 1.2, **AT), {}),
    (within(0.0, 1.0, **OURS), {}),
    (extrapolated(0.0, **OURS, renew_every=2), {"renew_every": 2}),
    (faded(0.0, **OURS), {}),
    (placed((0.667,), **OURS, steps=STEPS), {"renew_every": 4}),
    (placed((0.333, 0.667), **OURS, steps=STEPS), {"renew_every": 2}),
    (placed([step / STEPS for step in range(STEPS)], **OURS, steps=STEPS), {"renew_every": 1}),
    (adaptive(2, 0.0, 0.3, **OURS, steps=STEPS), {"renew_every": 2}),
    (later(0, **OURS), {}),
]
OTHER = [
    (parallel(0.0, **OURS), {}),
    (parallel(0.5, **OURS), {}),
    (bound(0.1, **OURS), {}),
    (bound(0.1, **AT, tau=10.0), {"tau": 10.0}),
    (momentum(-0.5, **OURS), {}),
    (momentum(0.5, **OURS), {}),
    (tau_by_step(1.2, 1.0, **AT), {}),
    (tau_by_step(1.0, 1.2, **AT), {}),
    (within(0.2, 0.8, **OURS), {}),
    (extrapolated(1.0, **OURS, renew_every=2), {"renew_every": 2}),
    (extrapolated(0.5, **OURS, renew_every=2), {"renew_every": 2}),
    (faded(1.0, **OURS), {}),
    (placed((0.167,), **OURS, steps=STEPS), {}),
    (adaptive(2, 1.0, 1e-9, **OURS, steps=STEPS), {"renew_every": 2}),
    (later(1, **OURS), {}),
]


def names(pairs):
    return [f"{contender.name}-{number}" for number, (contender, _) in enumerate(pairs)]


@pytest.mark.parametrize("contender, inputs", NEUTRAL, ids=names(NEUTRAL))
def test_at_its_neutral_number_a_variant_is_the_product_to_the_bit(model, product, contender, inputs):
    assert pictures(model, contender).equal(product(**{**OURS, **inputs}))


@pytest.mark.parametrize("contender, inputs", OTHER, ids=names(OTHER))
def test_otherwise_it_makes_other_pictures(model, product, contender, inputs):
    made = pictures(model, contender)
    assert made.isfinite().all() and not made.equal(product(**{**OURS, **inputs}))
    assert not made.equal(product(**OURS, negative_prompt="off")), "no guidance at all"


def test_a_sampling_starts_anew(model):
    """What a variant remembers is of one sampling."""
    for contender in (momentum(0.5, **OURS), extrapolated(1.0, **OURS), adaptive(2, 1.0, 0.3, **OURS)):
        patched = contender.patch(model)
        assert sample(patched).equal(sample(patched)), contender.name


# --- the mathematics ---


def tokens(seed, size=(2, 5, 1, 8)):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))


def pushed(variant, z_pos, z_neg, **numbers):
    """The difference that guidance is given: what one scale of it, without any limit, adds to h⁺."""
    return variant(guide, z_pos, z_neg, 1.0, 1e9, 1.0, **numbers)[0] - z_pos


@given(seed=st.integers(0, 999), keep=st.floats(0, 1))
def test_the_parallel_part_is_that_of_least_squares(seed, keep):
    z_pos, z_neg = tokens(seed)
    found = pushed(merge_variants.project, z_pos, z_neg, keep=keep).numpy()
    for row, token in itertools.product(range(2), range(5)):
        h, d = z_pos[row, token].numpy().ravel(), (z_pos - z_neg)[row, token].numpy().ravel()
        (weight,), *_ = np.linalg.lstsq(h[:, None], d, rcond=None)
        np.testing.assert_allclose(found[row, token].ravel(), d - (1 - keep) * weight * h, atol=1e-12)


@given(seed=st.integers(0, 999), ratio=st.floats(0.01, 4))
def test_the_bound_is_of_a_whole_picture(seed, ratio):
    z_pos, z_neg = tokens(seed)
    z_neg[1] = z_pos[1] + 0.01 * z_neg[1]  # of these two pictures one has a small difference
    found = pushed(merge_variants.shorten, z_pos, z_neg, ratio=ratio)
    for row in range(2):
        h, d, shorter = (part[row].numpy().ravel() for part in (z_pos, z_pos - z_neg, found))
        longest = ratio * math.sqrt(math.fsum(h * h))
        assert math.hypot(*shorter) == pytest.approx(min(longest, math.hypot(*d)))
        assert float(shorter @ d) == pytest.approx(math.hypot(*shorter) * math.hypot(*d))  # in the same direction


def test_tokens_of_zeros_are_left_to_the_product():
    z_pos, z_neg = tokens(0)
    for zero in (z_pos, z_neg, z_pos[:, 0], z_pos - z_neg):
        zero.zero_()
        for variant, number in ((merge_variants.project, {"keep": 0.0}), (merge_variants.shorten, {"ratio": 0.1})):
            assert pushed(variant, z_pos, z_neg, **number).isfinite().all()


@given(beta=st.floats(-0.9, 0.9), count=st.integers(1, 6))
def test_momentum_is_a_sum_of_what_was_weighed_by_powers_of_beta(beta, count):
    pairs = [tokens(seed) for seed in range(count)]
    variant = merge_variants._momentum(beta)["merge.guide"]
    *_, found = (pushed(variant, *pair) for pair in pairs)
    expected = sum(beta ** (count - 1 - i) * (z_pos - z_neg) for i, (z_pos, z_neg) in enumerate(pairs))
    torch.testing.assert_close(found, expected)


@given(tenths=st.sets(st.integers(1, 10), min_size=3, max_size=3), by=st.floats(0, 1))
def test_between_renewals_differences_go_on_along_a_line(tenths, by):
    first, second, now = (tenth / 10 for tenth in sorted(tenths, reverse=True))
    kept = [Kept(sigma, d.float()[0]) for sigma, d in zip((first, second), tokens(1), strict=True)]
    found = renewal_variants.on_line(*kept, now, by)
    line = np.polyfit((first, second), np.stack([k.difference.numpy().ravel() for k in kept]).astype(float), 1)
    held = kept[1].difference
    expected = (1 - by) * held + by * torch.tensor(np.polyval(line, now)).reshape(held.shape)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-4)


def run_at(step, schedule, run=None):
    run = run or Run(schedule=torch.tensor(schedule))
    run.at(schedule[step])
    return run


def test_the_line_is_through_the_last_two_renewals():
    """The differences of a whole sampling, renewed at every second step, lie on it by hand."""
    schedule = [1.0, 0.9, 0.7, 0.6, 0.3, 0.1, 0.0]
    hand_out = renewal_variants._extrapolated(1.0)["wrappers.hand_out_differences"]
    run, handed = None, []
    for step in range(6):
        run = run_at(step, schedule, run)
        if step % 2 == 0:
            run.differences = {"one": Kept(schedule[step], torch.full((1, 1, 1), float(step**2)))}
            continue
        chunk = SimpleNamespace(evaluation="one", difference=run.differences["one"].difference)
        hand_out(lambda *_: None, None, run, (chunk,))
        handed.append(float(chunk.difference))
    slope = lambda step: (step**2 - (step - 2) ** 2) / (schedule[step] - schedule[step - 2])  # noqa: E731
    line = [step**2 + (schedule[step + 1] - schedule[step]) * slope(step) for step in (2, 4)]
    assert handed == pytest.approx([0.0, *line], rel=1e-5)


@pytest.mark.parametrize("power, expected", [(0.0, 3.0), (1.0, 1.5), (2.0, 0.75)])
def test_a_difference_fades_with_the_noise(power, expected):
    run = run_at(1, [0.8, 0.4, 0.0])
    run.differences = {"one": Kept(0.8, torch.full((1, 2, 3), 3.0))}
    computed, kept = (
        SimpleNamespace(evaluation="one", difference=d) for d in (None, run.differences["one"].difference)
    )
    renewal_variants._faded(power)["wrappers.hand_out_differences"](lambda *_: None, None, run, (computed, kept))
    assert computed.difference is None and kept.difference.tolist() == [[[pytest.approx(expected)] * 3] * 2]


@pytest.mark.parametrize("first, last", [(1.0, 3.0), (2.0, 1.0)])
def test_the_limit_goes_evenly_from_the_first_step_to_the_last(model, monkeypatch, first, last):
    merge = importlib.import_module("nag_pag_flux.nagpag.patch.merge")
    heard = []
    monkeypatch.setattr(merge, "guide", lambda *args: heard.append(args[3]) or guide(*args))
    pictures(model, tau_by_step(first, last, **AT))
    assert heard == pytest.approx(np.linspace(first, last, STEPS).tolist())


# --- renewal ---


def renewals(model, contender, steps):
    """At which steps the branch is computed: there the first block is called twice."""
    calls, found = [], []
    patched = contender.patch(model)
    handle = model.model.diffusion_model.double_blocks[0].register_forward_hook(lambda *_: calls.append(len(found)))
    end = model.model.diffusion_model.final_layer.register_forward_hook(lambda *_: found.append(0))
    try:
        sample(patched, steps)
    finally:
        handle.remove()
        end.remove()
    return [step for step in range(steps) if calls.count(step) == 2]


ASKED = [
    (placed((0.083, 0.333), **OURS), [0, 1, 4]),
    (placed((0.5,), **OURS), [0, 6]),
    (adaptive(4, 0.5, 1e-9, **OURS), [0, 4, 5]),
    (adaptive(4, 0.5, 1e9, **OURS), [0, 4, 11]),
    (adaptive(3, 0.0, 1.0, **OURS), [0, 3, 6, 9]),
]


@pytest.mark.parametrize("contender, expected", ASKED, ids=names(ASKED))
def test_the_branch_is_computed_at_the_steps_asked_for_and_counted(model, contender, expected):
    steps = sampling.STEPS
    assert renewals(model, contender, steps) == expected
    share = contenders.share(0, DEPTHS[0], DEPTHS)
    assert contender.passes == pytest.approx(1 + share * len(expected) / steps)


def test_the_next_pause_follows_from_the_change_a_step():
    """d doubles, so half of it is new: a sixth a step at step 3, a quarter at 5, where an even pause has a twelfth."""
    hand_out, keep = renewal_variants._adaptive(3, 1.0, 1 / 12).values()
    run, schedule, made = None, [1 - step / 12 for step in range(13)], []
    for step in range(12):
        run = run_at(step, schedule, run)
        chunk = SimpleNamespace(evaluation="one", renewed=None)
        hand_out(lambda *_: None, None, run, (chunk,))
        if not run.differences:
            made.append(step)
            chunk.renewed = torch.full((2, 3, 4), 2.0 ** len(made))
            run.differences = {"one": Kept(schedule[step], chunk.renewed)}
        keep(lambda *_: None, None, run, (chunk,))
    assert made == [0, 3, 3 + round(9 / 3 / 2), 5 + round(7 / 2 / 3)]


@given(every=st.integers(1, 8), steps=st.integers(1, 40), ratios=st.lists(st.floats(0, 1e9), min_size=40, max_size=40))
def test_no_renewal_is_left_over_and_none_is_added(every, steps, ratios):
    budget = left = math.ceil(steps / every)
    step, made = 0, []
    while step < steps:
        made.append(step)
        left -= 1
        step = renewal_variants.next_step(step, steps, left, ratios[step])
    assert len(made) == budget and made == sorted(set(made))


@given(left=st.integers(1, 5), ratio=st.floats(0, 100), more=st.floats(0, 100))
def test_what_changes_faster_is_renewed_no_later(left, ratio, more):
    faster, slower = (renewal_variants.next_step(3, 20, left, r) for r in (ratio, ratio + more))
    assert faster <= slower


def test_a_change_is_relative_and_the_mean_over_rows():
    before, now = {"a": torch.zeros(2, 1, 4), "b": torch.ones(1, 1, 4)}, {"a": torch.ones(2, 1, 4)}
    before["a"][0] = 0.5
    assert renewal_variants.changed(before, now) == pytest.approx((0.5 + 1.0) / 2)
    assert renewal_variants.changed(before, {"c": now["a"]}) == 0.0


def test_a_sampling_that_does_not_say_its_step_is_refused(model):
    with pytest.raises(ValueError, match="renew_every above 1"):
        pictures(model, tau_by_step(1.0, 2.0, **AT, renew_every=1))


# --- nothing is left behind, nothing fails in silence ---


def functions():
    patch = "nag_pag_flux.nagpag.patch"
    places = ("merge.guide", "block.merge_branch", "wrappers.hand_out_differences", "wrappers.keep_differences")
    found = (place.split(".") for place in places)
    return [getattr(importlib.import_module(f"{patch}.{module}"), name) for module, name in found]


def test_the_product_s_functions_are_back_afterwards(model, product):
    before = functions()
    for contender, _ in OTHER:
        patched = contender.patch(model)
        assert functions() == before
        sample(patched, 1)
        assert functions() == before
    assert pictures(model, carried(**OURS)).equal(product(**OURS))


def test_they_are_back_when_sampling_raises(model, monkeypatch):
    before, flux = functions(), model.model.diffusion_model

    def interrupted(*args, **keywords):
        assert functions() != before
        raise KeyboardInterrupt

    monkeypatch.setattr(flux.final_layer, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pictures(model, adaptive(2, 0.5, 0.3, **OURS))
    assert functions() == before


def _failing(original, *rest):
    raise ZeroDivisionError("in a variant")


def test_what_goes_wrong_in_a_variant_is_no_picture(model):
    """The product would warn and sample on without guidance, and the picture be kept as the variant's."""
    before = functions()
    with pytest.raises(ZeroDivisionError), variants.replaced({"merge.guide": _failing}):
        pictures(model, carried(**OURS))
    with pytest.raises(RuntimeError, match="never called merge.guide"), variants.replaced({"merge.guide": _failing}):
        pictures(model, carried(**OURS, reach="output", negative_prompt="off"))
    with pytest.raises(AttributeError), variants.replaced({"merge.guided": _failing}):
        pass
    assert functions() == before


# --- as contenders ---


@pytest.mark.parametrize("depths", [(1, 2), DEPTHS, (19, 38)])
def test_every_experiment_has_a_key_and_a_name_of_its_own_and_travels_to_another_process(depths):
    every = [*experiments(depths), *experiments(depths, 2.0, 1.5)]
    assert len({contender.key for contender in every}) == len({contender.name for contender in every}) + 2 == len(every)
    assert all(pickle.loads(pickle.dumps(contender)) == contender for contender in every)
    assert all(contender.settings and 1 < contender.passes < 1.5 for contender in every)


def test_numbers_and_code_are_in_the_key(monkeypatch):
    keys = {contender.key for contender in (parallel(keep, **OURS) for keep in (0.1, 0.1000001, 1.0))}
    monkeypatch.setattr(variants.digests, "digest", lambda sources: "another")
    assert len({*keys, parallel(0.1, **OURS).key}) == 4


def test_a_later_merge_costs_what_it_computes():
    for depths, blocks in (((2, 4), 1), ((19, 38), 9), ((1, 2), 1)):
        expected = 1 + contenders.share(0, depths[0] + blocks, depths) / 4
        steps = contenders.renewed(sampling.STEPS, 4) * 4
        assert later(blocks, depths=depths).passes == pytest.approx(1 + (expected - 1) * steps)
