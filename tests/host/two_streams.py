"""The negative branch done a second way: the host's forward written out with two whole streams, none of our code.

The negative stream is computed at every row and token of the batch, from the branch point on, and only the
conditional rows are merged. Attention in a perturbed block is dense, with its whole map.
"""

import contextlib

import comfy.ldm.flux.layers as layers
import comfy.ldm.flux.model as flux_model
import torch
from oracle import feature_columns, guided_tokens


def perturbed_map(kind, logits, text, picture, temperature):
    """The attention map of the negative branch; logits: (batch, heads, tokens, tokens) with the mask in them."""
    length = logits.shape[-1]
    own = torch.eye(*logits.shape[-2:], dtype=torch.bool)  # a cache may have added keys of its own at the end
    if kind == "identity":
        return own.to(logits.dtype).expand_as(logits)
    if kind == "mean":
        uniform = torch.zeros(length, dtype=logits.dtype)
        uniform[text : text + picture] = 1 / picture
        return uniform.expand_as(logits)
    seen = own.clone()
    seen[:, :text] = True
    return logits.masked_fill(~seen, float("-inf")).softmax(dim=-1)


class Branch:
    """What to do: see `nagpag.settings`. blocks and merge are positions: the double blocks and then the single ones.

    reuse: whether a step takes the difference of the last computed one. strength: what multiplies the scale at a sigma;
    0 is a step without guidance. heads: by block, the heads that are perturbed; shares: by block, how much, where that
    is not u. kinds: the guided rows.
    """

    def __init__(self, blocks, merge, picture, kind="identity", temperature=2.0, u=1.0, strengths=(3.0, 2.5, 0.25)):
        self.blocks, self.merge, self.picture = blocks, merge, picture
        self.kind, self.temperature, self.u, self.strengths = kind, temperature, u, strengths
        self.computed = []  # the sigma of every condition's branch that was computed
        self.kept = {}
        self.reuse = lambda sigma: False
        self.strength = lambda sigma: 1.0
        self.heads, self.shares = {}, {}
        self.kinds = (0,)

    @contextlib.contextmanager
    def perturbing(self, position, text):
        """While this is open, the host's attention is that of the negative stream in this block."""
        plain = layers.attention
        if position in self.blocks:
            layers.attention = self.attention(text, plain, self.shares.get(position), self.heads.get(position))
        try:
            yield
        finally:
            layers.attention = plain

    def attention(self, text, plain, u=None, heads=None):
        """A stand-in for the host's attention that mixes the perturbed map into the picture's rows, in these heads."""

        u = self.u if u is None else u

        def attention(q, k, v, pe, mask=None, transformer_options={}):
            z = plain(q, k, v, pe, mask=mask, transformer_options=transformer_options)
            q, k = flux_model_rope(q, k, pe)
            q, k, values = q.double(), k.double(), v.double()
            bias = 0.0 if mask is None else mask.double().reshape(-1, 1, *mask.shape[-2:])
            logits = q @ k.mT / q.shape[-1] ** 0.5 + bias
            if self.kind == "softened":
                weights = (q @ k.mT / q.shape[-1] ** 0.5 / self.temperature + bias).softmax(dim=-1)
            else:
                weights = perturbed_map(self.kind, logits, text, self.picture, self.temperature)
            mixed = (1 - u) * logits.softmax(dim=-1) + u * weights
            rows = slice(text, text + self.picture)
            columns = feature_columns(range(q.shape[1]) if heads is None else heads, q.shape[3])
            z[:, rows, columns] = (mixed @ values)[:, :, rows].transpose(1, 2).flatten(2)[:, :, columns].to(z.dtype)
            return z

        return attention

    def merged(self, h_pos, h_neg, options):
        """Merge the conditional rows; both are (batch, picture tokens, hidden)."""
        sigma = options["sigmas"][0].item()
        out, size = h_pos.clone(), h_pos.shape[0] // len(options["cond_or_uncond"])
        scale, tau, alpha = self.strengths
        if self.strength(sigma) == 0:
            return out
        for i, (kind, uuid) in enumerate(zip(options["cond_or_uncond"], options["uuids"], strict=True)):
            if kind not in self.kinds:
                continue
            rows = slice(i * size, (i + 1) * size)
            if self.reuse(sigma):
                difference = self.kept[uuid]
            else:
                difference = self.kept[uuid] = h_neg[rows].double() - h_pos[rows].double()
                self.computed.append(sigma)
            minus = h_pos[rows].double() + difference
            out[rows] = guided_tokens(h_pos[rows], minus, scale * self.strength(sigma), tau, alpha).to(out.dtype)
        return out


def flux_model_rope(q, k, pe):
    from comfy.ldm.flux.math import apply_rope

    return apply_rope(q, k, pe)


def forward_orig(branch):
    def forward(
        self,
        img,
        img_ids,
        txt,
        txt_ids,
        timesteps,
        y,
        guidance=None,
        control=None,
        transformer_options={},  # by position in 0.16.3, where there is no timestep_zero_index yet
        attn_mask=None,
        timestep_zero_index=None,
    ):
        embed = layers.timestep_embedding
        img, txt = self.img_in(img), self.txt_in(txt)
        vec = self.time_in(embed(timesteps, 256).to(img.dtype)) + self.guidance_in(embed(guidance, 256).to(img.dtype))
        vec = vec + self.vector_in(y[:, : self.params.vec_in_dim])
        pe = self.pe_embedder(torch.cat((txt_ids, img_ids), dim=1))
        text = txt.shape[1]
        common = {"vec": vec, "pe": pe, "attn_mask": attn_mask, "transformer_options": transformer_options}
        control = control or {}

        def residual(kind, i):
            found = control.get(kind) or []
            return found[i] if i < len(found) and found[i] is not None else None

        negative = None
        for i, block in enumerate(self.double_blocks):
            if i == branch.blocks[0]:
                negative = [img.clone(), txt.clone()]
            if negative is not None and i <= branch.merge:
                with branch.perturbing(i, text):
                    negative = list(block(img=negative[0], txt=negative[1], **common))
            img, txt = block(img=img, txt=txt, **common)
            if i == branch.merge:
                picture = slice(0, branch.picture)
                img[:, picture] = branch.merged(img[:, picture], negative[0][:, picture], transformer_options)
            add = residual("input", i)
            for stream in (img,) if negative is None else (img, negative[0]):
                if add is not None:
                    stream[:, : add.shape[1]] += add
        img = torch.cat((txt, img), 1)
        negative = None if negative is None else torch.cat((negative[1], negative[0]), 1)
        for i, block in enumerate(self.single_blocks):
            position = len(self.double_blocks) + i
            if position == branch.blocks[0]:
                negative = img.clone()
            if negative is not None and position <= branch.merge:
                with branch.perturbing(position, text):
                    negative = block(negative, **common)
            img = block(img, **common)
            if position == branch.merge:
                picture = slice(text, text + branch.picture)
                img[:, picture] = branch.merged(img[:, picture], negative[:, picture], transformer_options)
            add = residual("output", i)
            for stream in (img,) if negative is None else (img, negative):
                if add is not None:
                    stream[:, text : text + add.shape[1]] += add
        return self.final_layer(img[:, text:], vec)

    return forward


@contextlib.contextmanager
def two_stream_host(branch):
    """While this is open, the host's FLUX runs both streams itself."""
    plain = flux_model.Flux.forward_orig
    flux_model.Flux.forward_orig = forward_orig(branch)
    try:
        yield branch
    finally:
        flux_model.Flux.forward_orig = plain
