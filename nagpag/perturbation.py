"""The negative branch: what attention gives when its map is perturbed.

Shapes: q, k, v are (batch, heads, tokens, head_dim) after RoPE; `picture` is the slice of the picture's tokens, `text`
that of the text's, None where they are all that stands before the picture. Every function returns Z⁻ for the picture,
(batch, picture tokens, heads, head_dim).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# The rows of one attention map are worked out in pieces of at most this many bytes, so that no L×L matrix is made.
PIECE_BYTES = 8 * 2**20


def negative_attention(
    kind: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    picture: slice,
    mask: Tensor | None,
    temperature: float,
    attention_scale: float,
    attend: Callable,
    text: slice | None = None,
) -> Tensor:
    """Z⁻ of the kind asked for: identity, softened, mean or identity + text; the arguments are those below.

    Raises ValueError for any other kind.
    """
    if kind == "identity":
        return identity_attention(v, picture)
    if kind == "mean":
        return mean_attention(v, picture)
    if kind == "softened":
        return softened_attention(q, k, v, picture, mask, temperature, attend)
    if kind == "identity + text":
        return identity_and_text_attention(q, k, v, picture, mask, attention_scale, text)
    raise ValueError(f"negative {kind!r} is none of identity, softened, mean, identity + text")


def identity_attention(v: Tensor, picture: slice) -> Tensor:
    """Each token attends to itself alone: the map is the identity matrix, so Z⁻ = V.

    Perturbed-Attention Guidance, arXiv 2403.17377, section 4.2.
    """
    return v[:, :, picture].transpose(1, 2)


def mean_attention(v: Tensor, picture: slice) -> Tensor:
    """Each token attends to all of the picture's tokens alike."""
    values = identity_attention(v, picture)
    return values.mean(dim=1, keepdim=True, dtype=torch.float32).to(v.dtype).expand_as(values)


def softened_attention(
    q: Tensor, k: Tensor, v: Tensor, picture: slice, mask: Tensor | None, temperature: float, attend: Callable
) -> Tensor:
    """The same attention at a higher temperature T: Z⁻ = softmax(Q Kᵀ / (T √d)) V.

    attend(q, k, v, mask) is the host's own attention; it returns (batch, tokens, heads · head_dim).
    """
    rows = None if mask is None else mask_rows(mask, picture)
    return attend(q[:, :, picture] / temperature, k, v, rows).unflatten(-1, (q.shape[1], -1))


def identity_and_text_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    picture: slice,
    mask: Tensor | None,
    attention_scale: float,
    text: slice | None = None,
) -> Tensor:
    """Each picture token attends to itself and to the text tokens only, as in PAG for joint attention (diffusers).

    attention_scale: what Q Kᵀ is multiplied by, 1/√d as a rule.
    """
    text = slice(0, picture.start) if text is None else text
    size = max(1, PIECE_BYTES // (4 * q.shape[0] * q.shape[1] * (text.stop - text.start + 1)))
    z = torch.empty_like(identity_attention(v, picture), memory_format=torch.contiguous_format)
    for start in range(picture.start, picture.stop, size):
        piece = slice(start, min(start + size, picture.stop))
        z[:, start - picture.start : piece.stop - picture.start] = _identity_and_text(
            q, k, v, piece, text, mask, attention_scale
        )
    return z


def _identity_and_text(
    q: Tensor, k: Tensor, v: Tensor, piece: slice, text: slice, mask: Tensor | None, attention_scale: float
) -> Tensor:
    to_text = q[:, :, piece] @ k[:, :, text].transpose(-1, -2)
    to_self = (q[:, :, piece] * k[:, :, piece]).sum(dim=-1, keepdim=True, dtype=torch.float32)
    logits = torch.cat((to_text.float(), to_self), dim=-1).mul_(attention_scale)
    if mask is not None:
        logits = _masked(logits, mask_rows(mask, piece), piece, text)
    weights = logits.softmax(dim=-1).to(v.dtype)
    z = weights[..., :-1] @ v[:, :, text] + weights[..., -1:] * v[:, :, piece]
    return z.transpose(1, 2)


def _masked(logits: Tensor, rows: Tensor, piece: slice, text: slice) -> Tensor:
    """Apply the host's mask, of which a row's entries for the text and for the token itself count here."""
    own = rows[..., piece]
    own = own.expand(*own.shape[:-2], piece.stop - piece.start, -1).diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    to_text = rows[..., text].expand(*own.shape[:-1], -1)
    seen = torch.cat((to_text, own), dim=-1)
    if seen.dtype == torch.bool:
        return logits.masked_fill(~seen, float("-inf"))
    return logits + seen.to(logits.dtype)


def mask_rows(mask: Tensor, rows: slice) -> Tensor:
    """The rows of these query tokens, as (1 or batch, 1 or heads, 1 or tokens, keys)."""
    if mask.ndim == 2:
        mask = mask.unsqueeze(0)
    if mask.ndim == 3:
        mask = mask.unsqueeze(1)
    return mask if mask.shape[-2] == 1 else mask[:, :, rows]
