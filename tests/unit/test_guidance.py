"""The formula, against float64 arithmetic written another way, and its properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nag_pag_flux.nagpag.guidance import guide

SCALES = st.floats(0.0, 10.0)
TAUS = st.floats(1.0, 10.0)
ALPHAS = st.floats(0.0, 1.0)


def by_hand(z_pos, z_neg, s, tau, alpha):
    """The design's formula token by token in Python floats."""
    out = torch.empty(z_pos.shape, dtype=torch.float64)
    for b in range(z_pos.shape[0]):
        for i in range(z_pos.shape[1]):
            plus = z_pos[b, i].double().flatten().tolist()
            minus = z_neg[b, i].double().flatten().tolist()
            tilde = [p + s * (p - m) for p, m in zip(plus, minus, strict=True)]
            r = sum(map(abs, tilde)) / sum(map(abs, plus))
            hat = [x * min(r, tau) / r for x in tilde]
            row = [alpha * h + (1 - alpha) * p for h, p in zip(hat, plus, strict=True)]
            out[b, i] = torch.tensor(row, dtype=torch.float64).view(z_pos.shape[2:])
    return out


def tokens(seed, dtype=torch.float32, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 5, 3, 4)
    z_pos = torch.randn(shape, generator=generator)
    return z_pos.to(dtype), (spread * torch.randn(shape, generator=generator)).to(dtype)


@settings(deadline=None)
@given(st.integers(0, 10**6), SCALES, TAUS, ALPHAS, st.sampled_from([0.1, 1.0, 8.0]))
def test_formula_in_float64(seed, s, tau, alpha, spread):
    z_pos, z_neg = tokens(seed, torch.float64, spread)
    z, _ = guide(z_pos, z_neg, s, tau, alpha)
    # The norms are accumulated in float32 by design, so their ratio is good to about 1e-7.
    torch.testing.assert_close(z, by_hand(z_pos, z_neg, s, tau, alpha), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_formula_in_working_types(dtype, tolerance):
    z_pos, z_neg = tokens(1, dtype)
    z, ratio = guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    assert z.dtype == dtype and ratio.dtype == torch.float32
    expected = by_hand(z_pos, z_neg, 3.0, 2.5, 0.25)
    torch.testing.assert_close(z.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("s", [0.003, 3.0, 10.0])
def test_a_scale_that_is_a_tensor(dtype, tolerance, s):
    z_pos, z_neg = tokens(1, dtype)
    z, ratio = guide(z_pos, z_neg, torch.tensor(s), 2.5, 0.25)
    assert z.dtype == dtype and ratio.dtype == torch.float32
    torch.testing.assert_close(z.double(), by_hand(z_pos, z_neg, s, 2.5, 0.25), rtol=tolerance, atol=tolerance)


def test_inputs_are_left_alone():
    z_pos, z_neg = tokens(2)
    before = z_pos.clone(), z_neg.clone()
    guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    assert torch.equal(z_pos, before[0]) and torch.equal(z_neg, before[1])


@settings(deadline=None)
@given(st.integers(0, 10**6), SCALES, TAUS)
def test_the_limit_holds(seed, s, tau):
    z_pos, z_neg = tokens(seed)
    z, ratio = guide(z_pos, z_neg, s, tau, 1.0)
    norm, limit = z.abs().sum(dim=(2, 3)), tau * z_pos.abs().sum(dim=(2, 3))
    assert (norm <= limit * (1 + 1e-5)).all()
    under = ratio < tau * (1 - 1e-5)
    expected = (z_pos + s * (z_pos - z_neg))[under]
    torch.testing.assert_close(z[under], expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_scaling_the_values_scales_the_result(seed, c):
    z_pos, z_neg = tokens(seed, torch.float64)
    z, _ = guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    scaled, _ = guide(c * z_pos, c * z_neg, 3.0, 2.5, 0.25)
    torch.testing.assert_close(scaled, c * z, rtol=1e-5, atol=1e-7)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(5)))
def test_permuting_the_tokens_permutes_the_result(seed, order):
    z_pos, z_neg = tokens(seed)
    z, ratio = guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    permuted, permuted_ratio = guide(z_pos[:, order], z_neg[:, order], 3.0, 2.5, 0.25)
    assert torch.equal(permuted, z[:, order]) and torch.equal(permuted_ratio, ratio[:, order])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_token_that_is_not_finite_keeps_the_plain_value(bad):
    z_pos, z_neg = tokens(3)
    z_neg[1, 2, 0, 0] = bad
    z, _ = guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    assert torch.equal(z[1, 2], z_pos[1, 2])
    others = torch.ones(2, 5, dtype=torch.bool)
    others[1, 2] = False
    torch.testing.assert_close(z[others].double(), by_hand(z_pos, z_neg, 3.0, 2.5, 0.25)[others], rtol=1e-5, atol=1e-6)


def test_overflow_in_half_precision_keeps_the_plain_value():
    z_pos, z_neg = tokens(4, torch.float16)
    z_pos[0, 1], z_neg[0, 1] = 60000.0, -60000.0
    z, _ = guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    assert torch.isfinite(z).all() and torch.equal(z[0, 1], z_pos[0, 1])


def test_tokens_of_zeros():
    z_pos, z_neg = tokens(5)
    z_pos[0, 0] = 0.0
    z_pos[0, 1] = z_neg[0, 1] = 0.0
    z, _ = guide(z_pos, z_neg, 3.0, 2.5, 0.25)
    assert torch.equal(z[0, 0], torch.zeros(3, 4))  # τ · 0: the limit leaves nothing of Z⁻
    assert torch.equal(z[0, 1], torch.zeros(3, 4))
