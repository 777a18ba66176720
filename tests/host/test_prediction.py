"""Reach prediction, against the host's own classifier-free guidance and functions that act on what it predicts."""

import pytest
from comparing import POSITIVE
from sampling import guided, prompt, sample

NEGATIVES = {"equal": prompt(2), "shorter": prompt(2, tokens=4), "longer": prompt(2, tokens=14)}
# A push by the whole difference at every step, without a limit: classifier-free guidance.
PLAIN = {"reach": "prediction", "negative_prompt": "sampler's", "tau": 10.0, "alpha": 1.0, "renew_every": 1}


def close(ours, expected, plain, tolerance=1e-4):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


@pytest.mark.parametrize("negative", NEGATIVES.values(), ids=NEGATIVES)
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "res_multistep"])
def test_at_every_step_without_a_limit_it_is_cfg(flux, negative, sampler):
    sampling = {"negative": negative, "sampler": sampler, "size": (2, 9, 12)}
    ours = sample(guided(flux, **PLAIN, scale=1.5), POSITIVE, **sampling)
    close(ours, sample(flux, POSITIVE, cfg=2.5, **sampling), sample(flux, POSITIVE, **sampling))
