"""Normalized guidance: extrapolate away from a negative branch, bound by the L1 norm, blend."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(z_pos: Tensor, z_neg: Tensor, scale: float | Tensor, tau: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Guide the tokens z_pos away from z_neg (Normalized Attention Guidance, arXiv 2505.21179, section 3).

        Z̃ = Z⁺ + s (Z⁺ − Z⁻)      Ẑ = Z̃ · min(1, τ ‖Z⁺‖₁ / ‖Z̃‖₁)      Z = α Ẑ + (1 − α) Z⁺

    z_pos, z_neg: (batch, tokens, heads, head_dim), any float type; the norms run over heads and
    head_dim of a token and are accumulated in float32 (float64 where z_pos is). scale ≥ 0, tau ≥ 1, alpha in [0, 1];
    scale may be a tensor of no axes, so that torch.compile need not compile anew for each of its values.
    Returns the guided tokens, in z_pos's type, and the ratio ‖Z̃‖₁ / ‖Z⁺‖₁ before the limit,
    (batch, tokens), in the type of the norms. A token whose guided value is not finite keeps Z⁺.
    """
    z = torch.empty_like(z_pos, memory_format=torch.contiguous_format)
    if isinstance(scale, Tensor):
        # In z's type a factor s keeps its relative precision, where a weight 1 + s of lerp would drop a small s.
        torch.sub(z_pos, z_neg, out=z)
        torch.addcmul(z_pos, z, scale.to(z.dtype), out=z)
    else:
        torch.lerp(z_neg, z_pos, 1.0 + scale, out=z)
    norm_pos, norm = _l1(z_pos), _l1(z)
    # Z is a convex combination of Z̃, shortened, and Z⁺: finite exactly where these two are.
    finite = torch.isfinite(norm_pos) & torch.isfinite(norm)
    # 0/0 (a token of zeros) gives nan in the ratio, but no limit is needed there.
    limit = torch.nan_to_num(tau * norm_pos / norm, nan=1.0).clamp(max=1.0)
    # In place from here on: one activation of the guided tokens is all the memory this takes.
    z.mul_(alpha * limit).add_(z_pos, alpha=1.0 - alpha)
    torch.where(finite, z, z_pos, out=z)
    return z, (norm / norm_pos).flatten(1)


def _l1(z: Tensor) -> Tensor:
    dtype = torch.promote_types(z.dtype, torch.float32)
    return torch.linalg.vector_norm(z, ord=1, dim=(-2, -1), keepdim=True, dtype=dtype)
