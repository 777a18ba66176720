"""Free methods of other papers: each is its formula, and knows nothing of the sampling before."""

import by_hand
import pytest
import torch
from nag_pag_flux.lab.evidence import contenders, free_methods, sampling
from nag_pag_flux.lab.in_host import enter_host
from nag_pag_flux.lab.toy import small_models

STEPS, ROWS = 5, 2
GUIDED = [free_methods.momentum(1.5, 0.6), free_methods.token_perturbation(3, 5, 0.5)]


@pytest.fixture(scope="module")
def model():
    """In float32, so that what is done by hand can be compared."""
    return sampling.load(by_hand.SHIPPED.file, torch.float32)


def sample(model, steps=STEPS, rows=ROWS):
    return by_hand.sampled(model, rows, steps)


@pytest.mark.parametrize("neutral", [free_methods.momentum(0.0, 0.6), free_methods.token_perturbation(3, 5, 0.0)])
def test_without_strength_nothing_changes(model, neutral):
    assert sample(neutral.patch(model)).equal(sample(model))


def test_momentum_guidance_extrapolates_from_a_weighted_sum_of_all_earlier_velocities(model):
    """The average written out: m = βᵏ v₀ + (1 − β) Σ βᵏ⁻¹⁻ʲ vⱼ over the steps j before step k."""
    alpha, beta, seen = 1.5, 0.6, []

    def velocity(_, forward, step):
        seen.append(forward())
        earlier = sum((1 - beta) * beta ** (step - 1 - j) * seen[j] for j in range(step))
        return seen[-1] + alpha * (seen[-1] - beta**step * seen[0] - earlier)

    expected = by_hand.pictures(velocity, ROWS, STEPS)
    ours = sample(free_methods.momentum(alpha, beta).patch(model))
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)  # the prompts are in bfloat16
    assert (ours - sample(model)).abs().max() > 0.05


def test_momentum_guidance_needs_a_step_to_remember(model):
    guided = free_methods.momentum(1.5, 0.6).patch(model)
    sample(guided)
    assert sample(guided, steps=1).equal(sample(model, steps=1))


def test_token_perturbation_guides_away_from_a_pass_with_shuffled_tokens(model):
    """Hooks shuffle what comes into the blocks of the second pass, one after the other."""

    def velocity(flux, forward, step):
        plain, orders = forward(), torch.Generator().manual_seed(step)

        def shuffle(block, args):
            img, *rest = args
            return img[:, torch.randperm(64, generator=orders)], *rest

        handles = [flux.double_blocks[block].register_forward_pre_hook(shuffle) for block in (3, 4, 5)]
        perturbed = forward()
        for handle in handles:
            handle.remove()
        return plain + 0.5 * (plain - perturbed)

    ours = sample(free_methods.token_perturbation(3, 5, 0.5).patch(model))
    torch.testing.assert_close(ours, by_hand.pictures(velocity, ROWS, STEPS), atol=2e-3, rtol=0)
    assert (ours - sample(model)).abs().max() > 0.05


@pytest.mark.parametrize("contender", GUIDED, ids=lambda contender: contender.name)
def test_each_sampling_begins_afresh(model, contender):
    """After another of other pictures, other steps, and one of a single step, which ends where it began."""
    guided = contender.patch(model)
    first = sample(guided)
    for steps, rows in ((3, 1), (1, ROWS)):
        sample(guided, steps, rows)
        assert sample(guided).equal(first)


def test_the_round_guides_a_model_of_any_depths(tmp_path):
    enter_host()
    import comfy.sd

    small_models.make_flux(tmp_path / "flux.safetensors", double_blocks=3, single_blocks=1)
    model = comfy.sd.load_diffusion_model(str(tmp_path / "flux.safetensors"), model_options={"dtype": torch.float32})
    plain = sample(model, 2, 1)
    for contender in free_methods.free_round(3):
        assert not torch.isclose(sample(contender.patch(model), 2, 1), plain, atol=1e-3).all(), contender.name


def test_each_setting_of_the_round_has_a_key_of_its_own():
    for doubles in (1, 2, contenders.DOUBLES):
        keys = [contender.key for contender in free_methods.free_round(doubles)]
        assert len(set(keys)) == len(keys) > 5
