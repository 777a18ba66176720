"""Settings refuse what is out of range, and name it."""

import math

import pytest
from nag_pag_flux.nagpag.inputs.guidance import INPUTS
from nag_pag_flux.nagpag.inputs.kinds import Choice, Flag, Number
from nag_pag_flux.nagpag.schedule import guided_at
from nag_pag_flux.nagpag.settings import Settings

NUMBERS = [item for item in INPUTS if isinstance(item, Number)]
CHOICES = [item for item in INPUTS if isinstance(item, Choice)]


def test_defaults_are_the_promised_ones():
    strength = {"scale": 3.0, "tau": 1.75, "alpha": 0.5, "negative_prompt": "sampler's", "reach": "prediction"}
    steps = {"start_percent": 0.45, "end_percent": 1.0, "renew_every": 0, "schedule": "constant"}
    without_one = {"blocks": "auto", "perturbation": 0.1, "negative": "identity"}
    assert Settings() == Settings(**strength, **steps, **without_one)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_bounds_are_inclusive_and_named(number):
    whole = {"start_percent": 0.0, "end_percent": 1.0}
    Settings(**{**whole, number.name: number.minimum})
    Settings(**{**whole, number.name: number.maximum})
    for bad in (number.minimum - 0.01, number.maximum + 0.01, math.nan, math.inf, "3", None):
        with pytest.raises(ValueError) as caught:
            Settings(**{**whole, number.name: bad})
        message = str(caught.value)
        assert number.name in message and repr(bad) in message
        assert f"from {number.minimum:g} to {number.maximum:g}" in message


def test_every_bad_value_is_listed():
    with pytest.raises(ValueError, match="scale 11.*tau 0.5.*alpha 2"):
        Settings(scale=11, tau=0.5, alpha=2)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_true_is_no_number(number):
    for flag in (True, False):
        with pytest.raises(ValueError, match=f"{number.name} {flag} is not"):
            Settings(**{number.name: flag})


def test_a_number_too_large_for_a_float_is_refused_like_any_other():
    for item in NUMBERS:
        with pytest.raises(ValueError, match=f"{item.name} -?1000.* is not"):
            Settings(**{item.name: (-1) ** len(item.name) * 10**400})


def test_a_long_spec_is_refused_in_a_short_sentence():
    with pytest.raises(ValueError, match="blocks .* is not a text of at most 10000 characters") as caught:
        Settings(blocks="8, " * 10**6)
    assert len(str(caught.value)) < 400


def test_start_after_end_is_refused():
    Settings(start_percent=0.4, end_percent=0.4)
    with pytest.raises(ValueError, match="start_percent 0.6 is after end_percent 0.4"):
        Settings(start_percent=0.6, end_percent=0.4)
    with pytest.raises(ValueError, match=r"start_percent 0.45 \(its default\) is after end_percent 0.3"):
        Settings(end_percent=0.3)


def test_off():
    assert Settings(scale=0).off and Settings(alpha=0).off and not Settings().off


def test_window_includes_both_ends():
    assert [guided_at(s, 0.8, 0.2) for s in (0.9, 0.8, 0.5, 0.2, 0.1)] == [False, True, True, True, False]


def test_a_step_that_begins_at_an_end_is_guided_whichever_way_it_was_rounded():
    """As one of 20 does at 45 %: its sigma is float32's, the end's is not; the step before, of 1,000, is another."""
    for sigma in (0.9637, 14.6146, 1e-3):
        near = sigma * (1 + 3e-7), sigma * (1 - 3e-7)
        assert all(guided_at(one, sigma, sigma / 2) and guided_at(one, sigma * 2, sigma) for one in near)
        assert not guided_at(sigma * 1.0003, sigma, 0.0) and not guided_at(sigma * 0.9997, 99.0, sigma)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_choices_are_listed(choice):
    for option in choice.options:
        Settings(**{choice.name: option})
    with pytest.raises(ValueError) as caught:
        Settings(**{choice.name: "sideways"})
    assert "'sideways'" in str(caught.value)
    assert all(repr(option) in str(caught.value) for option in choice.options)


@pytest.mark.parametrize("flag", [item for item in INPUTS if isinstance(item, Flag)], ids=lambda flag: flag.name)
def test_flags_are_true_or_false(flag):
    assert getattr(Settings(**{flag.name: not flag.default}), flag.name) is not flag.default
    for bad in (1, "yes", None):
        with pytest.raises(ValueError, match=f"{flag.name} {bad!r} is not true or false"):
            Settings(**{flag.name: bad})


def test_whole_numbers_only_where_they_count_something():
    with pytest.raises(ValueError, match="renew_every 2.5 is not a whole number from 0 to 20"):
        Settings(renew_every=2.5)


@pytest.mark.parametrize("steps, every", [(1, 1), (4, 1), (8, 2), (20, 6), (28, 8)])
def test_a_number_of_steps_wins_over_the_rule(steps, every):
    assert Settings().renewed_every(steps) == Settings(renew_every=0).renewed_every(steps) == every
    assert [Settings(renew_every=number).renewed_every(steps) for number in (1, 6, 20)] == [1, 6, 20]


# --- a negative prompt ---


def test_it_is_never_off_for_its_perturbation_alone():
    assert Settings(perturbation=0, negative_prompt="off").off
    assert not Settings(perturbation=0, negative_prompt="sampler's").off
    assert not Settings(perturbation=0, negative_conditioning=[]).off
    assert Settings(scale=0, negative_prompt="sampler's").off and Settings(alpha=0, negative_conditioning=[]).off
