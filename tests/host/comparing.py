"""What is compared with an oracle: samplings by the node, on the small FLUX of conftest.py."""

import torch
from sampling import guided, picture_tokens, prompt, sample
from two_streams import two_stream_host

POSITIVE = prompt(1)
BLOCKS = (1, 2, 3)  # what `sampling.guided` guides
DOUBLES, SINGLES = 4, 2
LAST_DOUBLE, LAST = DOUBLES - 1, DOUBLES + SINGLES - 1


def assert_same_effect(ours, expected, plain, tolerance=1e-4):
    """Equal to the oracle, measured against what guidance changes at all; and it must change something."""
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


def check_branch(model, branch, inputs, tolerance=1e-5, **sampling):
    """Sample plain, by the node and by the two-stream oracle: two steps, of which one follows another."""
    sampling = {"positive": POSITIVE, "steps": 2, **sampling}
    plain = sample(model, **sampling)
    ours = sample(
        guided(model, renew_every=1, **inputs) if "renew_every" not in inputs else guided(model, **inputs), **sampling
    )
    with two_stream_host(branch):
        expected = sample(model, **sampling)
    effect = (expected - plain).abs().max()
    assert effect > 1e-4
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6
    return branch


def every_third(sigmas, every=3):
    """Reuse save at every third distinct sigma, or as many as it says, as a hand would count them."""
    order = []

    def reuse(sigma):
        if sigma not in order:
            order.append(sigma)
        return order.index(sigma) % every != 0

    return reuse


def residuals(model):
    """A control object of the host's kind that adds fixed residuals after double block 1, 2 and single block 0."""
    from comfy.controlnet import ControlBase

    class Fixed(ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            generator = torch.Generator().manual_seed(0)
            shape = (x_noisy.shape[0], picture_tokens(*x_noisy.shape[-2:]), 256)
            adds = [0.3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
            return {"input": [None, adds[0], adds[1]], "output": [adds[2]]}

        def copy(self):
            return Fixed()

        def get_models(self):
            return []

    return Fixed()
