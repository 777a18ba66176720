"""A branch with a negative prompt done a second way: the host's own forward on the negative conditioning, none of our
code.

A model function wrapper runs the host's forward on the negative prompt, keeps what the merge block gave, and then runs
the prompt's forward, into which it merges that by the formula in float64.
"""

import contextlib

import comfy.ldm.flux.layers as layers
import torch
from oracle import guided_tokens


class OwnForward:
    """merge: a position. branch: a two_streams.Branch whose `attention` disturbs, in its blocks, or None."""

    def __init__(self, model, negative, merge, picture, strengths=(3.0, 1.5, 0.15), branch=None, every=1):
        self.model, self.flux = model.model, model.model.diffusion_model
        self.negative, self.merge, self.picture = negative, merge, picture
        self.strengths, self.branch, self.every = strengths, branch, every
        self.kept, self.sigmas, self.computed = {}, [], 0

    @property
    def block(self):
        doubles = len(self.flux.double_blocks)
        if self.merge < doubles:
            return self.flux.double_blocks[self.merge]
        return self.flux.single_blocks[self.merge - doubles]

    def first(self, text):
        """Where the picture begins in what the merge block gives."""
        return 0 if self.merge < len(self.flux.double_blocks) else text

    def patched(self, model):
        model = model.clone()
        model.set_model_unet_function_wrapper(self.run)
        return model

    def run(self, apply_model, given):
        x, t, c, kinds = given["input"], given["timestep"], given["c"], given["cond_or_uncond"]
        size, options = x.shape[0] // len(kinds), c["transformer_options"]
        sigma = float(options["sigmas"][0])
        self.sigmas += [sigma] if sigma not in self.sigmas else []
        renew = self.sigmas.index(sigma) % self.every == 0
        minus = {}
        for i, (kind, uuid) in enumerate(zip(kinds, options["uuids"], strict=True)):
            if kind == 0:
                rows = slice(i * size, (i + 1) * size)
                minus[i] = self.negative_hidden(apply_model, x[rows], t[rows], c, rows) if renew else uuid
        text = c["c_crossattn"].shape[1]

        def merge(module, args, out):
            hidden = (out if torch.is_tensor(out) else out[0]).clone()
            for i, found in minus.items():
                rows, tokens = slice(i * size, (i + 1) * size), slice(self.first(text), self.first(text) + self.picture)
                plus = hidden[rows, tokens]
                if renew:
                    self.kept[options["uuids"][i]] = found.double() - plus.double()
                difference = self.kept[options["uuids"][i]]
                hidden[rows, tokens] = guided_tokens(plus, plus.double() + difference, *self.strengths).to(plus.dtype)
            return hidden if torch.is_tensor(out) else (hidden, *out[1:])

        with hooked(self.block, merge):
            return apply_model(x, t, **c)

    def negative_hidden(self, apply_model, x, t, c, rows):
        """The picture's tokens after the merge block in the host's own forward on the negative prompt."""
        found = []
        self.computed += 1
        ((context, extras),) = self.negative

        # As the host works a conditioning out: FLUX.2's text is padded, for instance.
        conds = self.model.extra_conds(cross_attn=context, noise=x, device=x.device, **extras)
        theirs = {name: conds[name].cond for name in ("c_crossattn", "y", "attention_mask") if name in conds}
        text = theirs["c_crossattn"].shape[1]

        def keep(module, args, out):
            hidden = out if torch.is_tensor(out) else out[0]
            found.append(hidden[:, self.first(text) : self.first(text) + self.picture].clone())

        own = {name: value for name, value in of_rows(c, rows).items() if name != "attention_mask"}
        own |= {name: value.repeat(len(x), *[1] * (value.ndim - 1)) for name, value in theirs.items()}
        with hooked(self.block, keep), self.disturbed(text):
            apply_model(x, t, **own)
        return found[0]

    @contextlib.contextmanager
    def disturbed(self, text):
        plain, branch = layers.attention, self.branch

        def attention(q, k, v, pe, mask=None, transformer_options={}):
            where = transformer_options["block_index"]
            if transformer_options["block_type"] == "single":
                where += len(self.flux.double_blocks)
            here = branch.attention(text, plain) if where in branch.blocks else plain
            return here(q, k, v, pe, mask=mask, transformer_options=transformer_options)

        if branch is not None:
            layers.attention = attention
        try:
            yield
        finally:
            layers.attention = plain


@contextlib.contextmanager
def hooked(module, hook):
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def of_rows(c, rows):
    """The host's arguments for these rows of its batch, wherever they have a batch axis."""
    total = c["transformer_options"]["sigmas"].shape[0] * len(c["transformer_options"]["cond_or_uncond"])

    def own(value):
        if torch.is_tensor(value) and value.ndim and value.shape[0] == total:
            return value[rows]
        if isinstance(value, (list, tuple)):
            return type(value)(own(item) for item in value)
        if isinstance(value, dict):
            return {name: own(item) for name, item in value.items()}
        return value

    return {name: value if name == "transformer_options" else own(value) for name, value in c.items()}
