"""Each negative branch against dense attention in float64 with its map or mask written out."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nag_pag_flux.nagpag import perturbation
from nag_pag_flux.nagpag.inputs.guidance import NEGATIVE
from nag_pag_flux.nagpag.perturbation import identity_and_text_attention, mask_rows, negative_attention

TEXT, TOKENS, REFERENCES, HEADS, DIM = 3, 6, 2, 2, 4
LENGTH = TEXT + TOKENS + REFERENCES
PICTURE = slice(TEXT, TEXT + TOKENS)


def qkv(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, HEADS, LENGTH, DIM, generator=generator, dtype=torch.float64) for _ in range(3)]


def dense(q, k, v, bias, temperature=1.0):
    """softmax(QKᵀ / (T √d) + bias) V with the whole map; a bias of -inf hides a key."""
    bias = bias if bias.ndim == 4 else bias.expand(1, 1, LENGTH, LENGTH)
    return (q @ k.mT / (temperature * DIM**0.5) + bias).softmax(dim=-1) @ v


def attend(q, k, v, mask):
    """A stand-in for the host's attention function."""
    bias = torch.zeros(1, dtype=q.dtype) if mask is None else mask
    if bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape, dtype=q.dtype).masked_fill(~bias, float("-inf"))
    z = (q @ k.mT / DIM**0.5 + bias).softmax(dim=-1) @ v
    return z.transpose(1, 2).flatten(2)


def allowed(kind):
    """Which keys a picture token sees: True where it does."""
    seen = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
    if kind == "identity":
        seen.fill_diagonal_(True)
    elif kind == "mean":
        seen[:, PICTURE] = True
    elif kind == "identity + text":
        seen.fill_diagonal_(True)
        seen[:, :TEXT] = True
    else:
        seen[:] = True
    return seen


def expected(kind, q, k, v, bias, temperature):
    hidden = torch.zeros(LENGTH, LENGTH, dtype=torch.float64).masked_fill(~allowed(kind), float("-inf"))
    if kind == "mean":
        q, bias = torch.zeros_like(q), torch.zeros(1, 1)  # uniform: no logits, and no mask of the host's
    if kind == "identity":
        bias = torch.zeros(1, 1)
    return dense(q, k, v, hidden + bias, temperature if kind == "softened" else 1.0)[:, :, PICTURE].transpose(1, 2)


def ours(kind, q, k, v, mask, temperature=2.0):
    return negative_attention(kind, q, k, v, PICTURE, mask, temperature, DIM**-0.5, attend)


@pytest.mark.parametrize("kind", NEGATIVE.options)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), temperature=st.floats(1.0, 100.0))
def test_without_a_mask(kind, seed, temperature):
    q, k, v = qkv(seed)
    z = ours(kind, q, k, v, None, temperature)
    torch.testing.assert_close(z, expected(kind, q, k, v, torch.zeros(1, 1), temperature), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", NEGATIVE.options)
@pytest.mark.parametrize(
    "shape", [(LENGTH, LENGTH), (1, LENGTH, LENGTH), (2, 1, LENGTH, LENGTH), (2, HEADS, 1, LENGTH)]
)
def test_with_the_hosts_mask(kind, shape):
    q, k, v = qkv(1)
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bias = mask if mask.ndim == 4 else mask.reshape(1, 1, LENGTH, LENGTH)
    z = ours(kind, q, k, v, mask)
    torch.testing.assert_close(z, expected(kind, q, k, v, bias, 2.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["softened", "identity + text"])
def test_with_a_boolean_mask(kind):
    q, k, v = qkv(1)
    mask = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(3)) > 0.4
    mask.fill_diagonal_(True)
    bias = torch.zeros(LENGTH, LENGTH, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    torch.testing.assert_close(ours(kind, q, k, v, mask), expected(kind, q, k, v, bias, 2.0), rtol=1e-5, atol=1e-6)


def test_pieces_give_what_one_piece_gives(monkeypatch):
    q, k, v = qkv(4)
    whole = identity_and_text_attention(q, k, v, PICTURE, None, DIM**-0.5)
    monkeypatch.setattr(perturbation, "PIECE_BYTES", 1)
    torch.testing.assert_close(identity_and_text_attention(q, k, v, PICTURE, None, DIM**-0.5), whole)


def test_no_map_of_all_tokens_is_made_for_a_large_picture():
    """At FLUX.1's size (1024×1024: 4096 picture tokens, 512 of text) a piece holds few rows, not the whole map."""
    rows = perturbation.PIECE_BYTES // (4 * 24 * 513)
    assert 1 <= rows < 4096 / 8


def test_a_mask_of_one_row_for_all_is_left_as_it_is():
    mask = torch.zeros(2, 1, 1, LENGTH)
    assert mask_rows(mask, PICTURE).shape == (2, 1, 1, LENGTH)


@pytest.mark.parametrize("kind", ["typo", "Identity", "identity+text", "", None])
def test_a_kind_that_is_none_is_refused_by_name(kind):
    q = torch.ones(1, 1, 4, 8)
    with pytest.raises(ValueError, match=re.escape(f"negative {kind!r} is none of {', '.join(NEGATIVE.options)}")):
        negative_attention(kind, q, q, q, slice(1, 4), None, 2.0, 1.0, lambda *args: q)
