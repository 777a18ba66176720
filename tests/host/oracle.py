"""In-attention guidance done a second way: inside the host's flux layers, with none of our code.

The host's `attention` function is replaced where the double blocks call it. Which block, row and
token is which is told by the test, or read from what the host says about the forward.
"""

import contextlib

import comfy.ldm.flux.layers as layers
import torch


def guided_tokens(z_pos, z_neg, scale, tau, alpha):
    """The formula as the NAG authors' code writes it (nag_scale = s + 1), in float64."""
    z_pos, z_neg = z_pos.double(), z_neg.double()
    nag_scale = scale + 1
    z_tilde = z_pos * nag_scale - z_neg * (nag_scale - 1)
    ratio = z_tilde.norm(p=1, dim=-1, keepdim=True) / z_pos.norm(p=1, dim=-1, keepdim=True)
    z_hat = torch.where(ratio > tau, z_tilde / ratio * tau, z_tilde)
    return z_hat * alpha + z_pos * (1 - alpha)


def feature_columns(heads, head_dim):
    """Where the features of these heads lie in H·D concatenated ones."""
    return [column for head in heads for column in range(head * head_dim, (head + 1) * head_dim)]


@contextlib.contextmanager
def guided_host(
    blocks,
    picture,
    references=0,
    scale=3.0,
    tau=2.5,
    alpha=0.25,
    on=lambda sigma: True,
    strength=lambda sigma: 1.0,
    own=None,
    unconditional=False,
):
    """While this is open, the host itself guides `blocks`: a number is a double block, ("single", number) a single one.

    picture: tokens of the picture being made; references: tokens of reference pictures after them.
    on: whether a step with this sigma is guided; strength: what multiplies the scale at it. own: by block, its own
    (scale, heads), either None. unconditional: guide these rows too. Yields the list of (block, sigma, guided rows).
    """
    plain, calls, own = layers.attention, [], own or {}

    def attention(q, k, v, pe, mask=None, transformer_options={}):
        z = plain(q, k, v, pe, mask=mask, transformer_options=transformer_options)
        options = transformer_options
        sigma, block = options["sigmas"][0].item(), options["block_index"]
        block = block if options["block_type"] == "double" else ("single", block)
        if block not in blocks or not on(sigma):
            return z
        chunks = options["cond_or_uncond"]
        kinds = torch.tensor(chunks).repeat_interleave(z.shape[0] // len(chunks))
        first = z.shape[1] - references - picture
        values = v.permute(0, 2, 1, 3).flatten(2)
        own_scale, heads = own.get(block, (None, None))
        s = (scale if own_scale is None else own_scale) * strength(sigma)
        columns = feature_columns(range(q.shape[1]) if heads is None else heads, q.shape[3])
        rows = torch.nonzero((kinds == 0) | unconditional).flatten().tolist()
        for row in rows:
            tokens = torch.arange(first, first + picture)[:, None]
            new = guided_tokens(z[row, tokens, columns], values[row, tokens, columns], s, tau, alpha)
            z[row, tokens, columns] = new.to(z.dtype)
        calls.append((block, sigma, len(rows)))
        return z

    layers.attention = attention
    try:
        yield calls
    finally:
        layers.attention = plain
