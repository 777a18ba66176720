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


@contextlib.contextmanager
def guided_host(blocks, picture, references=0, scale=3.0, tau=2.5, alpha=0.25, on=lambda sigma: True):
    """While this is open, the host itself guides `blocks`.

    picture: tokens of the picture being made; references: tokens of reference pictures after them.
    on: whether a step with this sigma is guided. Yields the list of (block, sigma, guided rows).
    """
    plain, calls = layers.attention, []

    def attention(q, k, v, pe, mask=None, transformer_options={}):
        z = plain(q, k, v, pe, mask=mask, transformer_options=transformer_options)
        options = transformer_options
        sigma = options["sigmas"][0].item()
        if options["block_type"] != "double" or options["block_index"] not in blocks or not on(sigma):
            return z
        chunks = options["cond_or_uncond"]
        kinds = torch.tensor(chunks).repeat_interleave(z.shape[0] // len(chunks))
        first = z.shape[1] - references - picture
        values = v.permute(0, 2, 1, 3).flatten(2)
        for row in torch.nonzero(kinds == 0).flatten().tolist():
            tokens = slice(first, first + picture)
            new = guided_tokens(z[row, tokens], values[row, tokens], scale, tau, alpha)
            z[row, tokens] = new.to(z.dtype)
        calls.append((options["block_index"], sigma, int((kinds == 0).sum())))
        return z

    layers.attention = attention
    try:
        yield calls
    finally:
        layers.attention = plain
