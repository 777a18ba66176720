"""Signals without a judge: oracles with a known direction, and correlations worked out another way."""

import math

import pytest
import torch
from nag_pag_flux.lab.evidence.signals import align, mean, rank_agreement, together


def noise(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_mean_and_its_error():
    found = mean(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert found.value == 2.5
    assert found.error == pytest.approx(math.sqrt((2.25 + 0.25 + 0.25 + 2.25) / 3 / 4))
    assert math.isnan(mean(torch.tensor([1.0])).error)


def test_cosines_are_those_of_known_angles():
    delta = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])
    residual = torch.tensor([[5.0, 0.0], [0.0, 7.0], [1.0, 0.0], [4.0, 0.0], [1.0, 1.0]])
    found = align(delta, residual)
    assert found.cosines.tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0, -1.0, 0.0])


@pytest.mark.parametrize("w", [2.5, 0.125, -0.5])
def test_the_weight_of_a_known_direction_is_found(w):
    """r = w δ + something at right angles to δ in every picture."""
    delta, other = noise(12, 4, 5, 6), noise(12, 4, 5, 6, seed=1)
    along = (other * delta).sum((1, 2, 3), keepdim=True) / delta.square().sum((1, 2, 3), keepdim=True)
    residual = w * delta + (other - along * delta)
    found = align(delta, residual)
    assert found.weight.value == pytest.approx(w)
    assert found.weight.error == pytest.approx(0.0, abs=1e-12)


def test_the_weight_is_the_least_squares_one_and_its_error_is_the_spread_of_redrawn_pictures():
    delta = noise(400, 30)
    residual = 0.3 * delta * (1 + 0.5 * noise(400, 1, seed=2)) + noise(400, 30, seed=1)
    found = align(delta, residual)
    least = torch.linalg.lstsq(delta.reshape(-1, 1), residual.reshape(-1, 1)).solution.item()
    assert found.weight.value == pytest.approx(least)
    generator = torch.Generator().manual_seed(3)
    redrawn = []
    for _ in range(400):
        rows = torch.randint(400, (400,), generator=generator)
        redrawn.append(align(delta[rows], residual[rows]).weight.value)
    assert found.weight.error == pytest.approx(float(torch.tensor(redrawn).std()), rel=0.15)


def test_closer_is_what_is_left_of_the_residual():
    delta, residual = noise(6, 20), noise(6, 20, seed=1)
    left = 1 - (residual - delta).square().sum(1) / residual.square().sum(1)
    assert align(delta, residual).closer.tolist() == pytest.approx(left.tolist())


def test_no_direction_and_no_residual_give_numbers():
    nothing, something = torch.zeros(3, 4), torch.ones(3, 4)
    assert align(nothing, something).weight.value == 0.0
    assert align(nothing, something).cosines.tolist() == align(something, nothing).cosines.tolist() == [0.0] * 3


def test_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match=r"directions are \(2, 3\), residuals \(2, 4\)"):
        align(torch.zeros(2, 3), torch.zeros(2, 4))


def test_noise_levels_count_alike_whatever_their_residual():
    """One level points right, the other wrong by as much, with a residual a hundred times as large."""
    direction = noise(5, 8)
    right, wrong = align(direction, direction), align(-100 * direction, 100 * direction)
    assert together([right, wrong]).cosines.tolist() == pytest.approx([0.0] * 5, abs=1e-12)
    assert together([right, right]).cosines.tolist() == pytest.approx([1.0] * 5)


# --- rank agreement ---


def test_agreement_is_the_textbook_formula():
    a, b = noise(9), noise(9, seed=1)
    d = a.argsort().argsort() - b.argsort().argsort()
    found = rank_agreement(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())), resamples=2)
    assert found.value == pytest.approx(1 - 6 * int(d.square().sum()) / (9 * 80))


def test_agreement_is_over_the_settings_that_both_have():
    gain = {("m", str(i), "output", "limited"): float(i) for i in range(6)}
    signal = {key: value**3 for key, value in gain.items()} | {("m", "9", "output", "limited"): -100.0}
    assert rank_agreement(signal, gain).value == pytest.approx(1.0)
    opposite = {key: -value for key, value in gain.items()}
    assert rank_agreement(opposite, gain).value == pytest.approx(-1.0)


def test_the_error_of_an_agreement_is_the_spread_over_other_settings():
    """Settings drawn anew from one population, against the error that one draw of them says."""

    def measures(seed):
        truth = noise(40, seed=seed)
        return dict(enumerate((truth + noise(40, seed=seed + 500)).tolist())), dict(enumerate(truth.tolist()))

    drawn = [rank_agreement(*measures(seed), resamples=2 if seed else 400) for seed in range(100)]
    spread = float(torch.tensor([found.value for found in drawn]).std())
    assert drawn[0].error == pytest.approx(spread, rel=0.35)


def test_two_settings_are_too_few():
    with pytest.raises(ValueError, match="2 settings are in both measures, of 3 and 2; 3 are needed"):
        rank_agreement({1: 0.0, 2: 1.0, 3: 2.0}, {1: 0.0, 2: 1.0})
