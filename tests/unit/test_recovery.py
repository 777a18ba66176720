"""What is recovered: arithmetic with known answers, and its error against other ways."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag.calibration.recovery import Losses, change, loss, recovered
from nag_pag_flux.nagpag.measure import Measured


def random(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def test_losses_are_means_of_squares_by_picture():
    truth = random(3, 2, 4, 4)
    shift = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None, None, None]
    assert loss(torch.stack([truth + shift, truth]), truth).tolist() == [pytest.approx([1.0, 4.0, 9.0]), [0.0] * 3]


def test_what_is_recovered_is_a_share_of_the_own_loss():
    assert recovered(Losses(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))) == pytest.approx(0.5)
    assert recovered(Losses(torch.tensor([2.0]), torch.tensor([2.0]))) == 0


@given(st.floats(0.01, 100))
def test_pictures_that_are_only_easier_to_denoise_gain_nothing(share):
    own, empty = random(8), random(8, seed=1) + 1
    assert change(Losses(own * share, empty * share), Losses(own, empty)).value == pytest.approx(0, abs=1e-9)


def test_the_same_pictures_change_nothing_without_error():
    losses = Losses(random(8), random(8, seed=1))
    assert change(losses, losses) == Measured(0.0, 0.0)


def test_one_picture_has_no_error():
    losses = Losses(random(1), random(1, seed=1))
    found = change(losses, losses)
    assert math.isnan(found.error) and not found.helps and not found.harms


def test_the_error_is_that_of_redrawn_pictures():
    """Pictures differ far more from each other than guidance changes them: paired, only the change counts."""
    plain = Losses(random(400), random(400, seed=1) * 3)
    guided = Losses(plain.own + 0.05 * random(400, seed=2), plain.empty + 0.1 * random(400, seed=3))
    generator = torch.Generator().manual_seed(4)
    drawn = (torch.randint(400, (400,), generator=generator) for _ in range(2_000))
    again = [recovered(Losses(*(t[i] for t in guided))) - recovered(Losses(*(t[i] for t in plain))) for i in drawn]
    assert change(guided, plain).error == pytest.approx(float(torch.tensor(again).std()), rel=0.1)


def test_a_number_counts_above_two_errors():
    assert Measured(0.09, 0.04).helps and not Measured(0.07, 0.04).helps
    assert Measured(-0.09, 0.04).harms and not Measured(-0.07, 0.04).harms
    assert str(Measured(-0.0123, 0.004)) == "-0.012 ± 0.004"
