"""Guidance of the prediction done a second way: on what the host's own guiders predict, with none of our code.

A guider's prediction is what it is without us, plus the push, once: the formula at each place of the latent in float64,
on predictions that the host works out by themselves.
"""

import inspect

import comfy.sample
import comfy.samplers
import numpy
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_custom_sampler import Guider_Basic
from oracle import feature_columns, guided_tokens
from sampling import prompt
from two_streams import perturbed_map


def in_windows(model, length, overlap, schedule="standard_static", dim=3):
    """The host's own context windows, over the width unless something else is said."""
    asked = {"context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": dim, "freenoise": False}
    if dim == 0 and "causal_window_fix" in inspect.signature(ContextWindowsManualNode.execute).parameters:
        # With it the first picture of a batch stands in each window.
        asked["causal_window_fix"] = False
    return ContextWindowsManualNode.execute(model, length, overlap, schedule, **asked).args[0]


def cfg_guider(model, positive=None, negative=None, cfg=1.0, **more):
    """As KSampler has it. more: other lists of conditions, by name."""
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive or prompt(1), "negative": negative or prompt(2), **more})
    guider.set_cfg(cfg)
    return guider


def basic_guider(model, positive=None):
    guider = Guider_Basic(model)
    guider.set_conds(positive or prompt(1))
    return guider


@torch.no_grad()  # as the host's nodes are run: weights of older ones want gradients
def draw(guider, sampler="euler", steps=4, size=(1, 5, 7), sigmas=None, latent=None, denoise=1.0, seed=7, **extra):
    """A sampling as SamplerCustomAdvanced does it, from an empty latent or the one given."""
    batch, height, width = size
    start = torch.zeros(batch, 16, height, width) if latent is None else latent
    if sigmas is None:
        sampling = guider.model_patcher.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", round(steps / denoise))[-steps - 1 :]
    noise, how = comfy.sample.prepare_noise(start, seed), comfy.samplers.sampler_object(sampler)
    return guider.sample(noise, start, how, torch.as_tensor(sigmas), disable_pbar=True, seed=seed, **extra)


def negative(name="negative"):
    """The branch that carries one of the guider's own lists of conditions."""

    def branch(guider, listed, x, t, options):
        return predicted(guider, guider.conds[name], x, t, options)

    return branch


def disturbed(blocks, picture, kind="identity", temperature=2.0, u=1.0, heads=None, shares=None):
    """The branch that is the same conditions' with a disturbed attention. blocks: ("double" or "single", number)."""
    heads, shares = heads or {}, shares or {}

    def attention(func, q, k, v, count, *args, **kwargs):
        z, options = func(q, k, v, count, *args, **kwargs), kwargs["transformer_options"]
        here = options["block_type"], options["block_index"]
        if here not in blocks:
            return z
        text, logits = z.shape[1] - picture, q.double() @ k.double().mT / q.shape[-1] ** 0.5
        if kind == "softened":
            weights = (logits / temperature).softmax(dim=-1)
        else:
            weights = perturbed_map(kind, logits, text, picture, temperature)
        share = shares.get(here, u)
        mixed = ((1 - share) * logits.softmax(dim=-1) + share * weights) @ v.double()
        z, rows = z.clone(), slice(text, text + picture)
        columns = feature_columns(heads.get(here, range(count)), q.shape[3])
        z[:, rows, columns] = mixed.transpose(1, 2).flatten(2)[:, rows][:, :, columns].to(z.dtype)
        return z

    def branch(guider, listed, x, t, options):
        told = {**options["transformer_options"], "optimized_attention_override": attention}
        return predicted(guider, listed, x, t, {**options, "transformer_options": told})

    return branch


def predicted(guider, listed, x, t, options):
    return comfy.samplers.calc_cond_batch(guider.inner_model, [listed], x, t, options)[0]


class Pushed:
    """What to do: see `nagpag.settings`. strength: what multiplies the scale at a sigma, 0 without guidance.

    lists: the conditions that are guided, by name, each with what its own push counts for in the guider's result.
    """

    def __init__(self, branch, scale=3.0, tau=1.75, alpha=0.4, every=1, strength=lambda sigma: 1.0, lists=None):
        self.branch, self.scale, self.tau, self.alpha, self.every = branch, scale, tau, alpha, every
        self.strength, self.lists = strength, lists or {"positive": 1.0}
        self.held, self.last, self.computed, self.changes = {}, None, [], []

    def on(self, guider):
        """The guider, which now adds the push to what it predicts."""
        plain = guider.predict_noise

        def predict_noise(x, timestep, model_options={}, seed=None):
            found = plain(x, timestep, model_options, seed)
            return found + self.push(guider, x, timestep, model_options)

        guider.predict_noise = predict_noise
        return guider

    def push(self, guider, x, t, options):
        sigma, begins = t[0].item(), options["transformer_options"]["sample_sigmas"][:-1].tolist()
        if self.last is not None and sigma > self.last and sorted(begins, reverse=True) != begins:
            self.held.clear()  # a restart
        self.last, strength = sigma, self.strength(sigma)
        if strength == 0:
            self.held.clear()
            return 0.0
        step = sum(begin >= 0.999 * sigma for begin in set(begins))
        return sum(
            share * self.push_of(name, guider, x, t, options, step, strength) for name, share in self.lists.items()
        )

    def push_of(self, name, guider, x, t, options, step, strength):
        listed, sigma = guider.conds[name], t.double().reshape(-1, *[1] * (x.ndim - 1))
        plus = predicted(guider, listed, x, t, options).double()
        held_step, difference, held_by = self.held.get(name, (None, None, None))
        now = holding(guider, t[0].item())
        if difference is None or not 0 < step - held_step < self.every or held_by != now:
            difference = (plus - self.branch(guider, listed, x, t, options).double()) / sigma
            self.held[name] = step, difference, now
            self.computed.append(step)
        places = lambda v: v.flatten(2).transpose(1, 2)  # noqa: E731
        noise = places((x.double() - plus) / sigma)
        guided = guided_tokens(noise, noise + places(difference), self.scale * strength, self.tau, self.alpha)
        self.changes.append((step, noise, noise + places(difference), guided))
        return (-sigma * (guided - noise).transpose(1, 2).reshape(x.shape)).float()


def holding(guider, sigma):
    """Which of a guider's conditions have their part of the sampling at this noise level, list and number."""
    return {
        (name, number)
        for name, listed in guider.conds.items()
        for number, cond in enumerate(listed)
        if cond.get("timestep_end", 0.0) <= sigma <= cond.get("timestep_start", float("inf"))
    }


def progress(model, start=0.0, end=1.0):
    """How far a sigma lies between two percents, from a table of the host's own function, which falls."""
    percents = numpy.linspace(start, end, 20001)
    sigma_of = model.get_model_object("model_sampling").percent_to_sigma
    table = numpy.array([float(sigma_of(p)) for p in percents])

    def found(sigma):
        if not (sigma_of(end) if end < 1 else 0) <= sigma <= (sigma_of(start) if start > 0 else float("inf")):
            return None
        return float(numpy.interp(sigma, table[::-1], numpy.linspace(1, 0, 20001)))

    return found
