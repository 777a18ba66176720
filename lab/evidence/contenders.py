"""What is compared: NAG-PAG in its many forms, ComfyUI's own guidance nodes, classic PAG, CFG; each with its cost.

Every contender patches a MODEL as its node does; a sampler that is the host's own does the rest.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from ...nagpag.blocks import format_blocks, merge_position, parse_blocks, with_strength
from ...nagpag.settings import Settings
from ..toy.proportioned import SIZES
from .sampling import BATCH, STEPS

# Multiplications of all of FLUX.1's blocks of a kind at 1024×1024, in proportion: 170 a double one, 141 a single one.
DOUBLE_WEIGHT, SINGLE_WEIGHT = 170 * 19, 141 * 38
PICTURE_TOKENS = 64  # of a picture of 128×128 pixels; they come last
DOUBLES, SINGLES = SIZES.double_blocks, SIZES.single_blocks
DEPTHS = (DOUBLES, SINGLES)  # costs and keys are of a model with so many blocks of both kinds

# The branch beside the blocks, merged after the last of them: at the strength that was the default before the
# prediction could be reached, and at the one before that, more on undistilled models and too much on others.
BESIDE: dict[str, Any] = {"reach": "output", "alpha": 0.2}
STRONGER: dict[str, Any] = {**BESIDE, "alpha": 0.33}
FROM_THE_FIRST: dict[str, Any] = {**STRONGER, "start_percent": 0.0, "renew_every": 4}
# A negative prompt that is to decide what is there: from the first step on, and merged early in depth to cost no more.
EARLY: dict[str, Any] = {"reach": "double blocks", "start_percent": 0.0, "renew_every": 4}
# The gentle branch that carries the sampler's negative prompt and disturbs nothing else; spelled out, so that it stays
# what it is when defaults change.
CARRIED: dict[str, Any] = {
    **EARLY,
    "blocks": "auto",
    "scale": 0.5,
    "tau": 1.1,
    "alpha": 1.0,
    "perturbation": 0.0,
    "negative": "identity",
    "negative_prompt": "sampler's",
    "schedule": "constant",
}

Patch = Callable[[Any], Any]


@dataclass(frozen=True)
class Contender:
    """key: all that decides its pictures, for the file's name. passes: model passes a step, at FLUX.1's proportions.

    settings: the inputs of our node, or of the first of two, empty where guidance is not ours. batch: how many pictures
    are sampled at once.
    """

    name: str
    key: str
    patch: Patch = field(compare=False)
    passes: float
    cfg: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict, compare=False)
    batch: int = BATCH


def share(first: int, last: int, depths: tuple[int, int] = DEPTHS) -> float:
    """Of a plain pass, the part that blocks first … last − 1 take, double ones and then single ones, as on FLUX.1."""
    doubles = max(0, min(last, depths[0]) - first)
    singles = last - first - doubles
    whole = DOUBLE_WEIGHT + SINGLE_WEIGHT
    return (doubles * DOUBLE_WEIGHT / depths[0] + singles * SINGLE_WEIGHT / depths[1]) / whole


def plain() -> Contender:
    """The model alone."""
    return Contender("no guidance", "plain", _unchanged, 1.0)


def cfg(scale: float) -> Contender:
    """Classifier-free guidance (arXiv 2207.12598) against the empty prompt."""
    return Contender(f"CFG {scale:g}", f"cfg {scale:g}", _unchanged, 2.0, scale)


def _unchanged(model: Any) -> Any:
    return model


def nagpag(
    name: str = "", steps: int = STEPS, cfg: float = 1.0, depths: tuple[int, int] = DEPTHS, **inputs: Any
) -> Contender:
    """Our node with these inputs, the rest at their defaults. depths: double and single blocks of the model."""
    settings = Settings(**inputs)
    values = dataclasses.asdict(settings)
    del values["negative_conditioning"]  # a node's socket; here the sampler has the empty prompt
    # What the words mean may change; the key says what they mean now.
    if values["blocks"] in ("auto", "all"):
        values["blocks"] = format_blocks(parse_blocks(values["blocks"], *depths))
    values["renew_every"] = settings.renewed_every(steps)
    key = "nagpag " + json.dumps(values, sort_keys=True) + (f" cfg {cfg:g}" if cfg != 1 else "")
    # With cfg above 1 the negative prompt is worked out at each step, for nothing more.
    free = cfg != 1 and settings.moves_both
    cost = (0.0 if free else branch_cost(settings, steps, depths)) + (2.0 if cfg != 1 else 1.0)
    return Contender(name or describe(inputs), key, partial(_node, values=values), cost, cfg, values)


def in_turn(name: str, first: Contender, then: Contender) -> Contender:
    """Two of our nodes, one behind the other, each in its part of the sampling."""
    patch = partial(_in_turn, first=first.patch, then=then.patch)
    passes = first.passes + then.passes - 1.0
    return Contender(name, f"{first.key} + {then.key}", patch, passes, settings=first.settings)


def _in_turn(model: Any, first: Patch, then: Patch) -> Any:
    return then(first(model))


def carried(name: str = "", steps: int = STEPS, depths: tuple[int, int] = DEPTHS, **inputs: Any) -> Contender:
    """Our node with these inputs, the rest as in `CARRIED`."""
    return nagpag(name or f"negative: {describe(inputs)}", steps, depths=depths, **{**CARRIED, **inputs})


def describe(inputs: dict[str, Any]) -> str:
    """Inputs in a few words, such as "blocks 2, reach output, alpha 0.5"."""
    return ", ".join(f"{name} {value}" for name, value in inputs.items()) or "the node's defaults"


def branch_cost(settings: Settings, steps: int, depths: tuple[int, int] = DEPTHS) -> float:
    """Passes a step that the negative branch adds at FLUX.1's proportions, by counting blocks."""
    chosen = tuple(with_strength(parse_blocks(settings.blocks, *depths), depths[0])) or (0,)
    merge = merge_position(chosen, *depths, settings.reach, settings.reach_blocks)
    if merge is None and settings.carries_negative:  # a branch that meets each chosen block's attention
        merge = chosen[-1]
    if merge is None or settings.off:
        return 0.0
    guided = steps_between(settings.start_percent, settings.end_percent, steps)
    whole = settings.carries_negative or settings.at_prediction  # where nothing is shared
    return share(0 if whole else chosen[0], min(merge + 1, sum(depths)), depths) * (
        math.ceil(guided / settings.renewed_every(steps)) / steps
    )


def steps_between(start: float, end: float, steps: int = STEPS) -> int:
    """How many steps begin from start to end of the sampling, on a schedule of even timesteps such as `simple`."""
    return sum(start <= step / steps <= end for step in range(steps))


def renewed(steps: int, every: int) -> float:
    """The share of steps at which something is computed anew that is reused in between."""
    return math.ceil(steps / every) / steps


def _node(model: Any, values: dict[str, Any]) -> Any:
    from ...nodes.guidance import NAGPAGGuidance

    return NAGPAGGuidance.execute(model=model, **values).args[0]


def nag(scale: float = 5.0, alpha: float = 0.5, tau: float = 1.5, batch: int = 8) -> Contender:
    """ComfyUI's own NAGuidance against the empty prompt; its scale is the paper's s + 1.

    It works where the host runs both prompts in one batch. Where that has no room in memory the host runs them one
    after the other, and the node does nothing without a word, so that few pictures are sampled at once.
    """
    name = f"ComfyUI's NAGuidance, scale {scale:g}, alpha {alpha:g}, tau {tau:g}"
    patch = partial(host_node, module="nodes_nag", node="NAGuidance", inputs=(scale, alpha, tau))
    return Contender(name, f"{name}, batches of {batch}", patch, 2.0, batch=batch)


def skip_layer(
    block: int,
    scale: float = 3.0,
    start: float = 0.01,
    end: float = 0.15,
    steps: int = STEPS,
    depths: tuple[int, int] = DEPTHS,
) -> Contender:
    """ComfyUI's own SkipLayerGuidanceDiT, a second pass without one double block from start to end of the sampling."""
    key = f"SkipLayerGuidanceDiT, block {block}, {scale:g}, {start:g} to {end:g}"
    name = f"ComfyUI's SkipLayerGuidanceDiT, block {block}, scale {scale:g}, {start:g} to {end:g}"
    inputs = (scale, start, end, str(block), "")
    patch = partial(host_node, module="nodes_slg", node="SkipLayerGuidanceDiT", inputs=inputs)
    perturbed = steps_between(start, end, steps) / steps
    return Contender(name, key, patch, 1.0 + perturbed * (1.0 - share(block, block + 1, depths)))


def host_node(model: Any, module: str, node: str, inputs: tuple) -> Any:
    """The model as a node of comfy_extras patches it."""
    return getattr(importlib.import_module(f"comfy_extras.{module}"), node).execute(model, *inputs).args[0]


# --- what no node of the host does on FLUX ---


def pag(block: int, weight: float, every: int = 1, steps: int = STEPS) -> Contender:
    """Perturbed-Attention Guidance (arXiv 2403.17377, section 4) in one double block: v + w (v − v_perturbed).

    every: compute the difference at every so many steps and reuse it in between.
    """
    name = f"classic PAG, block {block}, w {weight:g}" + (f", every {every}" if every > 1 else "")
    # Its second pass shares nothing with the first: a peer computes it whole.
    patch = partial(_pag, block=block, weight=weight, every=every)
    return Contender(name, name, patch, 1.0 + renewed(steps, every))


def _pag(model: Any, block: int, weight: float, every: int) -> Any:
    kept = _Kept(every)

    def add(args: dict) -> Tensor:
        def difference() -> Tensor:
            return args["cond_denoised"] - second_pass(args, _identity_in(args["model_options"], block))

        return args["denoised"] + weight * kept.get(difference, float(args["sigma"][0]))

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(add)
    return patched


def second_pass(args: dict, transformer_options: dict) -> Tensor:
    """The denoised pictures of the prompt once more, under these options. args: what a post-CFG function gets."""
    import comfy.samplers

    options = {**args["model_options"], "transformer_options": transformer_options}
    what = (args["model"], [args["cond"]], args["input"], args["sigma"], options)
    return comfy.samplers.calc_cond_batch(*what)[0]


def _identity_in(model_options: dict, block: int) -> dict:
    """Transformer options under which this double block's picture tokens attend to themselves only."""

    def attention(plain: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **keywords: Any) -> Tensor:
        out = plain(q, k, v, heads, *args, **keywords)
        options = keywords.get("transformer_options", {})
        if (options.get("block_type"), options.get("block_index")) != ("double", block):
            return out
        out[:, -PICTURE_TOKENS:] = v.transpose(1, 2).flatten(2)[:, -PICTURE_TOKENS:]
        return out

    return {**model_options["transformer_options"], "optimized_attention_override": attention}


class _Kept:
    """A difference of denoised pictures that is computed at every so many steps and reused between them.

    What is kept is the difference of the velocities, which does not shrink with the noise as that of the pictures does.
    """

    def __init__(self, every: int, first: int = 0):
        self.every, self.first, self.step, self.sigma = every, first, 0, math.inf
        self.value: Tensor | float = 0.0

    def get(self, compute: Callable[[], Tensor], sigma: float) -> Tensor | float:
        """The difference at this noise level; 0 before the first step at which it is computed."""
        if sigma > self.sigma:  # a sampling begins where the noise level rises again
            self.step, self.value = 0, 0.0
        if self.step >= self.first and (self.step - self.first) % self.every == 0:
            self.value = compute() / sigma
        self.step, self.sigma = self.step + 1, sigma
        return self.value * sigma


def cfg_reused(scale: float, every: int = 4, steps: int = STEPS, start: float = 0.0) -> Contender:
    """CFG whose difference is computed at every so many steps and reused in between.

    start: from which share of the sampling on; late it is what our branch does, merged after the model's last layer.
    The host computes both predictions all the same; the cost is that of one that would not.
    """
    guided = steps_between(start, 1.0, steps)
    name = f"CFG {scale:g}" + (f" from {start:.0%}" if start else "") + f", every {every}"
    patch = partial(_cfg_reused, scale=scale, every=every, first=steps - guided)
    key = f"{name} {steps}" if start else name
    return Contender(name, key, patch, 1.0 + math.ceil(guided / every) / steps, scale)


def _cfg_reused(model: Any, scale: float, every: int, first: int) -> Any:
    kept = _Kept(every, first)

    def combine(args: dict) -> Tensor:
        # The host asks for what is subtracted from the input, so both parts are differences to it.
        difference = kept.get(lambda: args["cond"] - args["uncond"], float(args["timestep"][0]))
        return args["cond"] + (scale - 1) * difference

    patched = model.clone()
    patched.set_model_sampler_cfg_function(combine)
    return patched
