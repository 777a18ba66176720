"""Settings refuse what is out of range, and name it."""

import math

import pytest
from nag_pag_flux.nagpag.config import NUMBERS, Settings
from nag_pag_flux.nagpag.schedule import guided_at


def test_defaults_are_the_promised_ones():
    assert Settings() == Settings(
        scale=3.0, blocks="auto", tau=2.5, alpha=0.25, start_percent=0.0, end_percent=1.0
    )


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


def test_start_after_end_is_refused():
    Settings(start_percent=0.4, end_percent=0.4)
    with pytest.raises(ValueError, match="start_percent 0.6 is after end_percent 0.4"):
        Settings(start_percent=0.6, end_percent=0.4)


def test_off():
    assert Settings(scale=0).off and Settings(alpha=0).off and not Settings().off


def test_window_includes_both_ends():
    assert [guided_at(s, 0.8, 0.2) for s in (0.9, 0.8, 0.5, 0.2, 0.1)] == [False, True, True, True, False]
