"""What guidance does in numbers: one guided merge, and a number with its error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Tokens measured at once in float32, so that a large picture takes no large copy.
PIECE_TOKENS = 4096
# Places among the five numbers of `measure`.
CLAMPED, CHANGE = 1, 2


@dataclass(frozen=True)
class Measured:
    """A number with its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.error:.3f}"

    @property
    def helps(self) -> bool:
        """Above zero by more than two standard errors."""
        return self.value > 2 * self.error

    @property
    def harms(self) -> bool:
        """Below zero by more than two standard errors."""
        return self.value < -2 * self.error


def measure(z_pos: Tensor, z_neg: Tensor, z: Tensor, ratio: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Measure one guided merge; z_pos, z_neg, z: (rows, tokens, heads, head_dim), ratio: (rows, tokens).

    Returns five numbers, (5,), in the order of `Row`: mean ratio ‖Z̃‖₁ / ‖Z⁺‖₁ before the limit; share of tokens whose
    ratio is above tau; change Σ‖Z − Z⁺‖₁ / Σ‖Z⁺‖₁; mean cosine of Z⁺ and Z⁻; Σ‖Z⁻‖₁ / Σ‖Z⁺‖₁. Means and sums run over
    the tokens that are finite and not zero. And the change ‖Z − Z⁺‖₁ / ‖Z⁺‖₁ of each token of the first row, (tokens,).
    """
    pieces = zip(*(t.split(PIECE_TOKENS, dim=1) for t in (z_pos, z_neg, z)), strict=True)
    norm_pos, norm_neg, moved, cosine = torch.cat([_of_tokens(*piece) for piece in pieces], dim=1).unbind(-1)
    whole = torch.isfinite(ratio) & torch.isfinite(norm_neg + moved + cosine)
    count, ratio = whole.sum(), ratio.float()

    def total(values: Tensor) -> Tensor:
        return torch.where(whole, values, 0.0).sum()

    numbers = (
        total(ratio) / count,
        total((ratio > tau).float()) / count,
        total(moved) / total(norm_pos),
        total(cosine) / count,
        total(norm_neg) / total(norm_pos),
    )
    return torch.stack(numbers), torch.where(whole[0], moved[0] / norm_pos[0], 0.0)


def _of_tokens(z_pos: Tensor, z_neg: Tensor, z: Tensor) -> Tensor:
    """‖Z⁺‖₁, ‖Z⁻‖₁, ‖Z − Z⁺‖₁ and the cosine of Z⁺ and Z⁻, by token: (rows, tokens, 4)."""
    z_pos, z_neg, z = (t.flatten(2).float() for t in (z_pos, z_neg, z))
    norms = [t.abs().sum(dim=-1) for t in (z_pos, z_neg, z - z_pos)]
    return torch.stack((*norms, torch.cosine_similarity(z_pos, z_neg, dim=-1)), dim=-1)
