"""The shapes of the strength over the sampling, and the way from a sigma back to its percent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag.inputs.guidance import SCHEDULE
from nag_pag_flux.nagpag.schedule import SHAPES, Steps, progress, renewal, steps_of
from nag_pag_flux.nagpag.settings import Settings

# Each shape at x = 0, 1/4, 1/2, 3/4, 1, worked out by hand.
HALF_ROOT = math.sqrt(2) / 4
AT_QUARTERS = {
    "constant": (1, 1, 1, 1, 1),
    "linear fade-out": (1, 0.75, 0.5, 0.25, 0),
    "cosine fade-out": (1, 0.5 + HALF_ROOT, 0.5, 0.5 - HALF_ROOT, 0),
    "linear fade-in": (0, 0.25, 0.5, 0.75, 1),
    "cosine fade-in": (0, 0.5 - HALF_ROOT, 0.5, 0.5 + HALF_ROOT, 1),
    "bell": (0, 0.5, 1, 0.5, 0),
}


def test_every_shape_has_its_values_here():
    assert tuple(AT_QUARTERS) == tuple(SHAPES) == SCHEDULE.options


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    values = [SHAPES[name](i / 4) for i in range(5)]
    assert values == pytest.approx(AT_QUARTERS[name], abs=1e-12)
    # Where guidance is off it must be off exactly, at both ends.
    assert [values[i] == 0 for i in (0, 4)] == [AT_QUARTERS[name][i] == 0 for i in (0, 4)]


@given(st.floats(0, 1))
def test_shapes_stay_between_nothing_and_all(x):
    assert all(0 <= shape(x) <= 1 for shape in SHAPES.values())


def test_a_curve_wins_over_the_schedule():
    settings = Settings(schedule="linear fade-out", curve=lambda x: x * x)
    assert settings.varies and settings.strength(0.5) == 0.25
    assert Settings(schedule="linear fade-out").strength(0.25) == 0.75
    assert not Settings().varies


def flow(shift):
    """percent_to_sigma of a flow model by its formula, as the host rounds off the ends."""

    def to_sigma(percent):
        t = 1 - percent
        return 1.0 if percent <= 0 else 0.0 if percent >= 1 else shift * t / (1 + (shift - 1) * t)

    return to_sigma


def discrete(percent):
    """The kind whose ends are no sigmas of the model: a huge number and 0 outside of 0.03 to 14.6."""
    if percent <= 0 or percent >= 1:
        return 999999999.9 if percent <= 0 else 0.0
    return math.exp(math.log(14.6) * (1 - percent) + math.log(0.03) * percent)


@given(st.floats(0.5, 10), st.floats(0, 1))
def test_progress_undoes_the_hosts_percent(shift, percent):
    """By the closed form of the inverse, which the library doesn't know."""
    sigma = flow(shift)(percent)
    t = sigma / (shift - (shift - 1) * sigma)
    assert progress(sigma, flow(shift), 0.0, 1.0) == pytest.approx(1 - t, abs=1e-9)


@given(st.floats(0.001, 0.999))
def test_progress_with_ends_that_are_no_sigmas(percent):
    assert progress(discrete(percent), discrete, 0.0, 1.0) == pytest.approx(percent, abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_progress_counts_from_start_to_end(a, b, x):
    start, end = sorted((a, b))
    if end - start > 1e-3:
        sigma = flow(3.0)(start + x * (end - start))
        assert progress(sigma, flow(3.0), start, end) == pytest.approx(x, abs=1e-6)


def test_progress_is_exact_at_and_beyond_the_ends():
    to_sigma = flow(3.0)
    for sigma in (1.0, 1.5, to_sigma(0.2)):
        assert progress(sigma, to_sigma, 0.2, 0.8) == 0.0
    for sigma in (0.0, 0.01, to_sigma(0.8)):
        assert progress(sigma, to_sigma, 0.2, 0.8) == 1.0
    assert progress(to_sigma(0.4), to_sigma, 0.4, 0.4) == 0.0


@pytest.mark.parametrize(
    "sigmas, schedule, steps",
    [
        ([1.0, 0.5], [1.0, 0.5, 0.0], [1, 2]),
        ([1.0, 0.5, 0.5], [1.0, 0.5, 0.0], [1, 2, 2]),  # heun
        ([1.0, 0.7, 0.5, 0.2], [1.0, 0.5, 0.0], [1, 1, 2, 2]),  # dpm_2
        ([1.0, 0.5, 0.7, 0.3], [1.0, 0.5, 0.7, 0.3, 0.0], [1, 2, 3, 4]),  # a restart
        ([0.3], [0.3, 0.0], [1]),
    ],
)
def test_evaluations_belong_to_steps(sigmas, schedule, steps):
    assert steps_of(sigmas, schedule) == steps


def test_evaluations_of_a_sampler_that_looks_ahead_and_comes_back():
    """heunpp2 asks at the begin of its step, of the next and of the one after that."""
    schedule = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    asked = [1.0, 0.8, 0.6, 0.8, 0.6, 0.4, 0.6, 0.4, 0.2]
    assert steps_of(asked, schedule) == [1, 2, 3, 2, 3, 4, 3, 4, 5]


SCHEDULE_9 = [1.0, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1, 0.05, 0.0]


@pytest.mark.parametrize(
    "one, other, between",
    [
        (1.0, 1.0, 0),
        (1.0, 0.95, 0),  # on the way of the first step
        (1.3, 1.0, 0),
        (1.0, 0.9, 1),
        (0.70001, 0.7, 0),  # computed, a shade too high
        (0.7, 0.9, 1),
        (0.05, 0.0, 0),  # nothing begins where the sampling ends
        (0.01, 0.05, 0),
        (0.85, 0.2, 5),
    ],
)
def test_steps_between_two_noise_levels(one, other, between):
    for schedule in (SCHEDULE_9, SCHEDULE_9[::-1], [*SCHEDULE_9, *SCHEDULE_9]):
        assert Steps(schedule).between(one, other) == between
        assert Steps(schedule).between(other, one) == between


@given(st.lists(st.floats(0.01, 1), min_size=2, unique=True), st.data())
def test_as_many_steps_lie_between_as_begin_there(schedule, data):
    """Counted by hand, for sigmas of the schedule that lie well apart."""
    falling = sorted({round(sigma, 2) for sigma in schedule}, reverse=True)
    one, other = (data.draw(st.integers(0, len(falling) - 1)) for _ in range(2))
    last = max(0, len(falling) - 1)
    assert Steps([*falling, 0.0]).between(falling[one], falling[other]) == abs(min(one, last) - min(other, last))


def test_without_a_schedule_each_sigma_begins_a_step():
    steps = Steps()
    assert [steps.between(9.0, sigma) for sigma in (9.0, 8.0, 7.0, 8.0, 5.0)] == [0, 1, 2, 1, 3]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0])
def test_odd_sigmas_have_a_place_too(odd):
    for steps in (Steps(SCHEDULE_9), Steps(), Steps([odd, 0.5, 0.0])):
        assert steps.between(odd, 0.5) >= 0
    assert steps_of([odd], SCHEDULE_9)[0] in range(1, 10)


# --- how long a difference stands ---


@pytest.mark.parametrize("steps, every", [(1, 1), (2, 1), (4, 1), (6, 1), (7, 2), (8, 2), (10, 3), (20, 6), (28, 8)])
def test_at_every_how_many_steps_it_is_renewed(steps, every):
    assert renewal(steps) == every


@given(st.integers(0, 10_000))
def test_it_stands_as_long_as_it_may(steps):
    """For one step or 30 % of them, and one step more would be too long; in more steps for no fewer."""
    every = renewal(steps)
    assert every == 1 or 10 * every <= 3 * steps
    assert every >= 1 and 10 * (every + 1) > 3 * steps
    assert renewal(steps + 1) in (every, every + 1)
