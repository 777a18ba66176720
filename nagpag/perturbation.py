"""The negative branch: what attention gives when its map is perturbed."""

from __future__ import annotations

from torch import Tensor


def identity_attention(v: Tensor) -> Tensor:
    """Attention with the identity matrix as its map: each token attends to itself alone, so Z⁻ = V.

    v: (batch, heads, tokens, head_dim) → (batch, tokens, heads, head_dim), a view.
    Perturbed-Attention Guidance, arXiv 2403.17377, section 4.2.
    """
    return v.transpose(1, 2)
