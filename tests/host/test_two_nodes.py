"""Several applications of the node on one model: each works on what the others leave, and on no negative branch."""

import comfy.ldm.flux.layers as layers
import pytest
import torch
from oracle import guided_tokens
from sampling import guided, picture_tokens, prompt, sample
from two_streams import Branch

POSITIVE = prompt(1)


def outputs_of_block(model, index):
    """What block `index` gave for the image tokens, call by call, in one step."""
    seen = []
    block = model.model.diffusion_model.double_blocks[index]
    handle = block.register_forward_hook(lambda module, args, out: seen.append(out[0].clone()))
    try:
        sample(model, POSITIVE, steps=1)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("later", [{"blocks": "2"}, {"blocks": "1, 2"}, {"blocks": "2", "negative": "softened"}])
def test_a_later_node_does_not_guide_an_earlier_ones_negative_branch(flux, later):
    first = guided(flux, reach="double blocks", blocks="1", renew_every=1)
    negative, positive = outputs_of_block(first, 2)
    negative_with_both, positive_with_both = outputs_of_block(guided(first, **later), 2)
    assert not torch.equal(positive_with_both, positive)
    assert torch.equal(negative_with_both, negative)


@pytest.mark.parametrize("later", ["identity", "softened"])
def test_two_nodes_on_the_same_block_with_extra_attention_calls(flux, later):
    """The later node's attention is called first; the earlier one guides what comes of it, away from the plain one."""
    first = guided(flux, blocks="2", negative="softened", temperature=3.0, scale=2.0)
    ours = sample(guided(first, blocks="2", negative=later, temperature=5.0, scale=1.0), POSITIVE, steps=2)
    plain, tokens = layers.attention, picture_tokens()

    def attention(q, k, v, pe, mask=None, transformer_options={}):
        z = plain(q, k, v, pe, mask=mask, transformer_options=transformer_options)
        if transformer_options["block_type"] == "double" and transformer_options["block_index"] == 2:
            text = z.shape[1] - tokens
            for kind, temperature, scale in ((later, 5.0, 1.0), ("softened", 3.0, 2.0)):
                minus = Branch((2,), None, tokens, kind, temperature).attention(text, plain)
                minus = minus(q, k, v, pe, mask, transformer_options)[:, text:]
                z[:, text:] = guided_tokens(z[:, text:], minus, scale, 2.5, 0.25).to(z.dtype)
        return z

    layers.attention = attention
    try:
        expected = sample(flux, POSITIVE, steps=2)
    finally:
        layers.attention = plain
    effect = (expected - sample(flux, POSITIVE, steps=2)).abs().max()
    assert effect > 1e-3 and (ours - expected).abs().max() <= 1e-3 * effect


@pytest.mark.parametrize("inputs", [{}, {"reach": "output", "blocks": "1-3", "renew_every": 1}])
def test_a_tensor_that_an_earlier_override_keeps_is_not_changed(flux, inputs):
    kept = []

    def caching(func, *args, **kwargs):
        z = func(*args, **kwargs)
        kept.append((z, z.clone()))
        return z

    model = flux.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = caching
    sample(guided(model, **inputs), POSITIVE, steps=1)
    assert kept and all(torch.equal(z, before) for z, before in kept)
