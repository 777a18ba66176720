"""Other training-free guidance from recent papers, as its authors state it, to be compared with ours.

Geometry-Aware Attention Guidance (arXiv 2603.02531) is not among them: where it goes in FLUX's joint attention stands
in a part of its paper that was not to be had.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .contenders import DOUBLES, Contender, second_pass


def free_round(doubles: int = DOUBLES) -> list[Contender]:
    """Settings of each to choose among, on a model with so many double blocks; ours, as the authors' were not found.

    Token perturbation's weight of 3 is its authors', for SDXL.
    """
    half = doubles // 2
    return [
        *(momentum(alpha, 0.6) for alpha in (0.25, 0.5, 1.0)),
        *(momentum(alpha, 0.8) for alpha in (0.25, 0.5)),
        momentum(0.5, 0.0),  # on even steps, Adams and Bashforth's method of second order
        *(token_perturbation(0, half - 1, weight) for weight in (0.3, 1.0, 3.0) if half),
        *(token_perturbation(half, doubles - 1, weight) for weight in (0.3, 1.0, 3.0)),
    ]


def momentum(alpha: float, beta: float) -> Contender:
    """Momentum Guidance (arXiv 2602.20360, Algorithm 1): v + α (v − m), away from the average of earlier velocities.

    m is the first velocity at first, and (1 − β) v + β m after each step, 0 ≤ β < 1. Their appendix's unbiased average
    and rescaling, and their interval of guided steps, are left out.
    """
    name = f"momentum guidance, alpha {alpha:g}, beta {beta:g}"
    return Contender(name, name, partial(_momentum, alpha=alpha, beta=beta), 1.0)


def _momentum(model: Any, alpha: float, beta: float) -> Any:
    average: Tensor | None = None

    def extrapolate(args: dict) -> Tensor:
        nonlocal average
        sigma = args["sigma"][0]
        velocity = (args["input"] - args["denoised"]) / sigma
        earlier = velocity if average is None or _step(args) == 0 else average
        average = (1 - beta) * velocity + beta * earlier
        # The denoised picture is x − σ v.
        return args["denoised"] - sigma * alpha * (velocity - earlier)

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(extrapolate)
    return patched


def token_perturbation(first: int, last: int, weight: float) -> Contender:
    """Token Perturbation Guidance (arXiv 2506.10036, Algorithm 1): v + γ (v − v_shuffled), γ being the weight.

    In a second pass the picture's tokens come into each of the double blocks from first to last in another random
    order, and stay in it; another in every block and step, the same for all pictures, as in the authors' code. That is
    for the transformer blocks of SDXL's U-Net, and has γ = 3; which blocks of FLUX they would take they do not say.
    """
    name = f"token perturbation, double blocks {first}-{last}, w {weight:g}"
    return Contender(name, name, partial(_token_perturbation, first=first, last=last, weight=weight), 2.0)


def _token_perturbation(model: Any, first: int, last: int, weight: float) -> Any:
    def add(args: dict) -> Tensor:
        options = _shuffled_in(args["model_options"], range(first, last + 1), _step(args))
        return args["denoised"] + weight * (args["cond_denoised"] - second_pass(args, options))

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(add)
    return patched


def _shuffled_in(model_options: dict, blocks: range, step: int) -> dict:
    """Transformer options under which the picture's tokens are shuffled before each of these double blocks."""
    orders = torch.Generator().manual_seed(step)  # so that a picture is the same whenever it is made

    def shuffled(args: dict, extra: dict[str, Callable]) -> dict:
        img = args["img"]
        order = torch.randperm(img.shape[1], generator=orders)
        return extra["original_block"]({**args, "img": img[:, order]})

    options = model_options["transformer_options"]
    replacements = options.get("patches_replace", {})
    ours = dict.fromkeys((("double_block", block) for block in blocks), shuffled)
    return {**options, "patches_replace": {**replacements, "dit": {**replacements.get("dit", {}), **ours}}}


def _step(args: dict) -> int:
    """How many noise levels of the schedule lie above this one: 0 where a sampling begins."""
    sigmas = args["model_options"]["transformer_options"]["sample_sigmas"]
    return int((sigmas > float(args["sigma"][0])).sum())
