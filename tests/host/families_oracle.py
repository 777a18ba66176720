"""Guidance done a second way for the families beside FLUX: inside the host's own attention and blocks, with none of our
code. Which row and token is which is told by the test, or read from what the host says about the forward."""

import contextlib

import comfy.ldm.lightricks.model as ltxv
import comfy.ldm.modules.attention as attention
import pytest
import torch
from oracle import guided_tokens
from other_families import attention_module
from own_forward import hooked, of_rows

# What of a forward's arguments is a prompt's own text.
OF_TEXT = "c_crossattn", "y", "attention_mask", "txt_byt5"
STRENGTHS = 3.0, 2.5, 0.25  # of `sampling.guided`: scale, tau, alpha


def dense(q, k, v, mask, kind, picture, text, temperature=2.0):
    """Z⁻ of all tokens with its whole map, in float64; q, k, v: (batch, heads, tokens, head_dim)."""
    q, k, v = q.double(), k.double(), v.double()
    bias = 0.0 if mask is None else mask.double().reshape(-1, 1, *mask.shape[-2:])
    logits = q @ k.mT / q.shape[-1] ** 0.5
    own = torch.eye(q.shape[2], dtype=torch.bool)
    if kind == "identity":
        weights = own.to(q.dtype).expand_as(logits)
    elif kind == "mean":
        weights = torch.zeros_like(logits)
        weights[..., picture] = 1 / (picture.stop - picture.start)
    elif kind == "softened":
        weights = (logits / temperature + bias).softmax(dim=-1)
    else:
        seen = own.clone()
        seen[:, text] = True
        weights = (logits + bias).masked_fill(~seen, float("-inf")).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class InAttention:
    """Takes the place of the attention that a family's blocks call. change(z, z_neg, picture, options) → z.

    behind, ahead: how many tokens of references stand behind the picture, and between it and the text.
    """

    def __init__(self, case, blocks, kind, change, behind=0, ahead=0):
        self.case, self.blocks, self.kind, self.change, self.behind = case, blocks, kind, change, behind
        self.ahead, self.calls, self.asked = ahead, [], 0

    def __call__(self, q, k, v, heads, mask=None, **kwargs):
        case, options = self.case, kwargs.get("transformer_options", {})
        block = options.get("block_index")
        block = ("single", block) if case.singles and options.get("block_type") == "single" else block
        axis = 2 if case.split else 1
        if case.attentions:
            block = case.attentions[self.asked % len(case.attentions)]
            self.asked += not case.sound or q.shape[axis] > case.sound + case.tokens  # what refines a text comes first
        z = self.plain(q, k, v, heads, mask=mask, **kwargs)
        # Of itself: the attention to a text has other keys, and a text's own, under an index of before, fewer tokens.
        whole = k.shape[axis] == q.shape[axis] >= case.tokens
        if block not in self.blocks or not whole:
            return z
        if not case.split:
            q, k, v = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
        # Heads that share keys and values stand side by side.
        k, v = (t[:, torch.arange(heads) * t.shape[1] // heads] for t in (k, v))
        start = q.shape[2] - self.behind - case.keyframes - -(-case.tokens // case.pad) * case.pad
        text = slice(0, start - self.ahead - case.given - case.sound)
        if case.picture_first:
            start, text = 0, slice(case.tokens, None)
        picture = slice(start, start + case.tokens)
        self.calls.append((block, len(q)))
        return self.change(z, dense(q, k, v, mask, self.kind, picture, text), picture, options)

    @contextlib.contextmanager
    def at_work(self):
        module = attention_module(self.case)
        names = self.case.attention.split()
        self.plain = getattr(module, names[0])

        def replaced(q, k, v, heads, mask=None, **kwargs):
            return self(q, k, v, heads, mask, **kwargs)

        with pytest.MonkeyPatch.context() as patched:
            for name in names:
                patched.setattr(module, name, replaced)
            patched.setattr(ltxv, "_attention_with_guide_mask", in_one_call, raising=False)
            yield self


def in_one_call(q, k, v, heads, guide_mask, attn_precision, transformer_options):
    """LTXV's attention with a mask that weakens keyframes: with the whole mask, as older hosts do it, not in parts."""
    start, stop = guide_mask.guide_start, guide_mask.guide_start + guide_mask.tracked_count
    mask = q.new_zeros(1, 1, q.shape[1], k.shape[1])
    mask[:, :, :start], mask[:, :, start:stop] = guide_mask.noisy_mask, guide_mask.tracked_mask
    return attention.optimized_attention(q, k, v, heads, mask=mask, transformer_options=transformer_options)


def conditional_rows(options, batch):
    kinds = options["cond_or_uncond"]
    return torch.tensor([kind == 0 for kind in kinds]).repeat_interleave(batch // len(kinds))


def guided_in_attention(case, blocks, kind, behind=0, ahead=0):
    """In-attention guidance of the prompt's rows."""

    def change(z, z_neg, picture, options):
        z = z.clone()
        rows = conditional_rows(options, len(z)).nonzero().flatten().tolist()
        for row in rows:
            z[row, picture] = guided_tokens(z[row, picture], z_neg[row, picture], *STRENGTHS).to(z.dtype)
        return z

    return InAttention(case, blocks, kind, change, behind, ahead)


def disturbed_attention(case, blocks, kind, u, behind=0, ahead=0):
    """A negative stream's attention: a share u of Z⁻ at the picture, in all rows."""

    def change(z, z_neg, picture, options):
        z = z.clone()
        z[:, picture] = torch.lerp(z[:, picture].double(), z_neg[:, picture], u).to(z.dtype)
        return z

    return InAttention(case, blocks, kind, change, behind, ahead)


class SecondForward:
    """A branch done as the host's own forward: on the negative prompt, or on the prompt with a disturbed attention.

    A model function wrapper runs it for every prompt, keeps what the merge block gave, and then runs the prompt's
    forward, into which it merges that. negative: a conditioning, or None. disturbed: of `disturbed_attention`, or None.
    """

    def __init__(self, case, model, merge, negative=None, disturbed=None, every=1, ahead=0):
        self.case, self.model, self.merge = case, model.model, merge
        self.negative, self.disturbed, self.every = negative, disturbed, every
        self.kept, self.sigmas, self.computed = {}, [], 0
        self.picture = slice(ahead + case.given, ahead + case.given + case.tokens)
        self.place = case.img
        if not isinstance(merge, int):  # a single block, whose one sequence the picture ends
            self.picture, self.place = slice(-case.tokens, None), None

    @property
    def block(self):
        model = self.model.diffusion_model
        if isinstance(self.merge, int):
            return getattr(model, self.case.stack)[self.merge]
        return getattr(model, self.case.second)[self.merge[1]]

    def img(self, out):
        return out if self.place is None else out[self.place]

    def with_img(self, out, img):
        return img if self.place is None else tuple(img if i == self.place else o for i, o in enumerate(out))

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
        rows_of = {i: slice(i * size, (i + 1) * size) for i, kind in enumerate(kinds) if kind == 0}
        minus = {i: self.hidden(apply_model, x[rows], t[rows], c, rows) for i, rows in rows_of.items() if renew}

        def merge(module, args, out):
            hidden = self.img(out).clone()
            for i, rows in rows_of.items():
                plus, uuid = hidden[rows, self.picture], options["uuids"][i]
                if renew:
                    self.kept[uuid] = minus[i].double() - plus.double()
                hidden[rows, self.picture] = guided_tokens(plus, plus.double() + self.kept[uuid], *STRENGTHS).to(
                    plus.dtype
                )
            return self.with_img(out, hidden)

        with hooked(self.block, merge):
            return apply_model(x, t, **c)

    def hidden(self, apply_model, x, t, c, rows):
        """The picture's tokens after the merge block in the branch's own forward."""
        found, own = [], of_rows(c, rows)
        self.computed += 1
        own["c_crossattn"] = own["c_crossattn"].clone()  # what works on the text before the blocks may do so in place
        if self.negative is not None:
            ((context, extras),) = self.negative
            extras = {**(self.case.reference or {}), **extras}
            conds = self.model.extra_conds(cross_attn=context, noise=x, device=x.device, **extras)
            theirs = {name: conds[name].cond for name in OF_TEXT if name in conds}
            own = {name: value for name, value in own.items() if name not in OF_TEXT}
            own |= {name: value.repeat(len(x), *[1] * (value.ndim - 1)) for name, value in theirs.items()}
        disturbed = contextlib.nullcontext()
        if self.disturbed is not None:
            disturbed = self.disturbed.at_work()
        keep = lambda module, args, out: found.append(self.img(out)[:, self.picture].clone())  # noqa: E731
        with hooked(self.block, keep), disturbed:
            apply_model(x, t, **own)
        return found[0]
