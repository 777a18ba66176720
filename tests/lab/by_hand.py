"""Euler's method on the module that was trained, which shares nothing with the host."""

import dataclasses
import itertools

import torch
from nag_pag_flux.lab.evidence import sampling
from nag_pag_flux.lab.evidence.contenders import plain
from nag_pag_flux.lab.evidence.runs import REPORTING, Part, draw
from nag_pag_flux.lab.evidence.subjects import Subject
from nag_pag_flux.lab.toy import flux as flux_module
from nag_pag_flux.lab.toy import training
from safetensors.torch import load_file

SHIPPED = Subject("shipped")


def sampled(model, rows, steps, contender=None):
    """The first rows of the reporting set, as a contender draws them whose patch is on the model already."""
    part = Part(SHIPPED, contender or plain(), dataclasses.replace(REPORTING, steps=steps), 0)
    questions, seeds = part.prompts.rows(0)
    return draw(model, part, questions[:rows], seeds[:rows])


def pictures(velocity, rows, steps):
    """As `sampled` makes them. velocity(flux, forward, step): of a step, forward() being the plain model's."""
    flux, (questions, seeds) = trained_module(), REPORTING.rows(0)
    context = training.embed(training.caption_ids([question.prompt for question in questions[:rows]]))
    x = torch.stack([torch.randn(sampling.LATENT, generator=torch.Generator().manual_seed(s)) for s in seeds[:rows]])
    for step, (sigma, following) in enumerate(itertools.pairwise([*flux_sigmas(steps), 0.0])):
        inputs = x, torch.full((rows,), sigma), context
        x = x + (following - sigma) * velocity(flux, lambda inputs=inputs: flux(*inputs), step)
    return sampling.shapes.from_latent(x)


def flux_sigmas(steps):
    """Even timesteps under FLUX.1's time shift of mu = 1.15 (its code: e^mu / (e^mu + 1/t − 1))."""
    shift = torch.tensor(1.15).exp()
    return [float(shift / (shift + 1 / (1 - step / steps) - 1)) for step in range(steps)]


def trained_module():
    """The shipped weights in the module they were trained in."""
    flux, state = flux_module.Flux(), load_file(SHIPPED.file)
    state = {name.replace("norm.scale", "norm.weight"): tensor.float() for name, tensor in state.items()}
    state["txt_in.weight"] = state["txt_in.weight"][:, :768]
    flux.load_state_dict({name: state[name] for name in flux.state_dict()})
    return flux.requires_grad_(False)
