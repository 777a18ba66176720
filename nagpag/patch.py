"""How ComfyUI is hooked: the only module that knows its patches, wrappers and options.

Four functions are registered on a clone of the model, nothing else:
- an OUTER_SAMPLE wrapper makes the state of one sampling run, and reports and frees it at its end;
- an APPLY_MODEL wrapper works out, once per forward, what depends on the step and not on the block.
  (It is outside of what torch.compile compiles, and DIFFUSION_MODEL wrappers are inside.)
- a replacement of each chosen double block calls the block with one changed thing,
- an attention function, put into that one call's own copy of the transformer options.

What stood in the two one-place slots before (an earlier block patch, an earlier attention override
such as SageAttention) is kept and called.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .blocks import format_blocks, parse_blocks
from .config import Settings
from .guidance import guide
from .perturbation import identity_attention
from .schedule import guided_at

log = logging.getLogger("nag_pag_flux")

OVERRIDE = "optimized_attention_override"
# Statistics for the log line look at this many tokens of each picture at most: enough for a mean, and free.
SAMPLED_TOKENS = 256
_keys = itertools.count()


@dataclass(eq=False)
class Plan:
    """One application of the node to one model: what to do, for every sampling run."""

    settings: Settings
    blocks: tuple[int, ...]
    patch_size: int
    # Each application has its own key, so that several on one model don't mix up their states.
    key: str = field(default_factory=lambda: f"nag_pag_{next(_keys)}")
    replacements: dict[int, Callable] = field(default_factory=dict)


@dataclass(eq=False)
class Run:
    """One sampling run: what has happened so far, for the report at its end. Keeps scalars only."""

    guided_sigmas: list[Tensor] = field(default_factory=list)
    forwards: int = 0
    reached: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass(eq=False)
class Forward:
    """One forward of the model: which rows and tokens are guided, and what the blocks leave behind.

    rows: the conditional rows of the batch, empty where guidance is off in this forward.
    tokens: how many tokens the picture being made has; they come first among the image tokens.
    """

    rows: tuple[slice, ...]
    tokens: int
    sigmas: Tensor | None
    run: Run
    reached: set[int] = field(default_factory=set)
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def apply_guidance(model: Any, settings: Settings) -> Any:
    """Return a clone of a ComfyUI MODEL that samples with guidance; `model` itself stays as it is.

    Raises ValueError where the model has no double blocks of the FLUX kind or where the block spec
    does not fit it.
    """
    flux = find_flux(model)
    plan = Plan(settings, parse_blocks(settings.blocks, len(flux.double_blocks)), flux.patch_size)
    patched = model.clone()
    if settings.off:
        return patched
    for block in plan.blocks:
        earlier = _replacements(patched.model_options.get("transformer_options", {})).get(("double_block", block))
        plan.replacements[block] = _double_block(plan, block, earlier)
        patched.set_model_patch_replace(plan.replacements[block], "dit", "double_block", block)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, plan.key, _outer_sample(plan))
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, plan.key, _apply_model(plan))
    return patched


def find_flux(model: Any) -> Any:
    """The diffusion model inside a MODEL, where it is of the FLUX family.

    Raises ValueError that names the class and the families that work.
    """
    diffusion_model = model.get_model_object("diffusion_model")
    diffusion_model = getattr(diffusion_model, "_orig_mod", diffusion_model)  # under torch.compile
    if isinstance(diffusion_model, (Flux, Chroma)) and len(diffusion_model.double_blocks) > 0:
        return diffusion_model
    raise ValueError(
        f"NAG-PAG can't guide this model: {type(diffusion_model).__name__} has no double blocks as FLUX has them. "
        "Models that work: FLUX.1 (dev, schnell, Krea, Kontext, Fill, Redux) and its fine-tunes, FLUX.2, "
        "Chroma and Chroma Radiance."
    )


def _replacements(transformer_options: dict) -> dict:
    return transformer_options.get("patches_replace", {}).get("dit", {})


# --- once per sampling run ---


def _outer_sample(plan: Plan) -> Callable:
    def outer_sample(executor, *args, **kwargs):
        run = Run()
        # The guider's options are this run's own copy, dropped by the host at the end: the run goes with them.
        executor.class_obj.model_options["transformer_options"][plan.key] = run
        finished = False
        try:
            samples = executor(*args, **kwargs)
            finished = True
            return samples
        finally:
            _report(plan, run, finished)

    return outer_sample


def _report(plan: Plan, run: Run, finished: bool) -> None:
    """One line that says what was guided, and a warning for chosen blocks that the model never called."""
    if finished and run.forwards:
        _warn_unreached(plan, run)
    blocks = tuple(sorted((run.reached & set(plan.blocks)) - run.failed))
    if not run.guided_sigmas or not blocks:
        log.info("NAG-PAG guided nothing: %s.", _why_nothing(run))
        return
    # Only a run that went well is asked for its numbers: after an error the device may not answer.
    detail = f"{_steps(run)} steps, {_means(run)}" if finished else "stopped early"
    log.info("NAG-PAG guided double blocks %s: %s (%s).", format_blocks(blocks), detail, plan.settings.summary())


def _why_nothing(run: Run) -> str:
    if not run.forwards:
        return "the model was not called"
    if not run.guided_sigmas:
        return "no step of this sampling lay between start_percent and end_percent, or no row was conditional"
    return "no chosen block was reached"


def _steps(run: Run) -> int:
    return len(set(torch.stack(run.guided_sigmas).tolist()))


def _means(run: Run) -> str:
    change, limited = torch.stack([torch.stack(pair) for pair in run.statistics]).mean(dim=0).tolist()
    return f"mean change {change:.1%}, {limited:.0%} of tokens at the limit"


def _warn_unreached(plan: Plan, run: Run) -> None:
    taken = tuple(sorted(run.replaced - run.reached))
    silent = tuple(sorted(set(plan.blocks) - run.reached - run.replaced))
    if taken:
        log.warning(
            "NAG-PAG: double blocks %s were not guided: a node after NAG-PAG Guidance replaced them without "
            "calling what was there. Put NAG-PAG Guidance after that node.",
            format_blocks(taken),
        )
    if silent:
        log.warning(
            "NAG-PAG: double blocks %s were never reached: another patch skips them or replaced the model's forward "
            "(a block cache, a layer skip, another pack's own FLUX forward). Switch that off, or choose other blocks.",
            format_blocks(silent),
        )


# --- once per forward ---


def _apply_model(plan: Plan) -> Callable:
    def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        run = transformer_options.get(plan.key) or Run()
        forward = _begin_forward(plan, run, executor.class_obj.model_sampling, x, transformer_options)
        options = {**transformer_options, plan.key: forward}
        out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        _end_forward(plan, run, forward, transformer_options)
        return out

    return apply_model


def _begin_forward(plan: Plan, run: Run, model_sampling: Any, x: Tensor, transformer_options: dict) -> Forward:
    sigmas = transformer_options.get("sigmas")
    on = _in_window(plan.settings, model_sampling, sigmas)
    rows = _conditional_rows(transformer_options.get("cond_or_uncond"), x.shape[0]) if on else ()
    height, width = x.shape[-2:]
    tokens = -(-height // plan.patch_size) * -(-width // plan.patch_size)
    return Forward(rows, tokens, sigmas, run)


def _in_window(settings: Settings, model_sampling: Any, sigmas: Tensor | None) -> bool:
    start, end = settings.start_percent, settings.end_percent
    if sigmas is None or (start, end) == (0.0, 1.0):
        return True  # Reading the sigma makes the device wait; where every step is guided, it need not.
    to_sigma = model_sampling.percent_to_sigma
    return guided_at(float(sigmas[0]), float(to_sigma(start)), float(to_sigma(end)))


def _conditional_rows(cond_or_uncond: list[int] | None, batch: int) -> tuple[slice, ...]:
    """The rows of the conditional chunks; without the host's word every row counts as conditional."""
    chunks = cond_or_uncond or [0]
    size = batch // len(chunks)
    return tuple(slice(i * size, (i + 1) * size) for i, kind in enumerate(chunks) if kind == 0)


def _end_forward(plan: Plan, run: Run, forward: Forward, transformer_options: dict) -> None:
    run.forwards += 1
    run.reached |= forward.reached
    run.statistics += forward.statistics
    if forward.rows and forward.sigmas is not None:
        run.guided_sigmas.append(forward.sigmas[0])
    slots = _replacements(transformer_options)
    run.replaced |= {b for b in plan.blocks if slots.get(("double_block", b)) is not plan.replacements[b]}


# --- in a block ---


def _double_block(plan: Plan, block: int, earlier: Callable | None) -> Callable:
    def double_block(args: dict, extra: dict) -> dict:
        options = args["transformer_options"]
        forward = options.get(plan.key)
        if isinstance(forward, Forward):
            forward.reached.add(block)
            if forward.rows and block not in forward.run.failed:
                attention = _guided_attention(plan, forward, block, args["txt"].shape[1], options)
                args = {**args, "transformer_options": {**options, OVERRIDE: attention}}
        return earlier(args, extra) if earlier else extra["original_block"](args)

    return double_block


def _guided_attention(plan: Plan, forward: Forward, block: int, txt_tokens: int, options: dict) -> Callable:
    """The attention function of one block in one forward; txt_tokens come before the image tokens."""
    earlier = options.get(OVERRIDE)
    tokens = slice(txt_tokens, txt_tokens + forward.tokens)

    def attention(func, q, k, v, heads, *args, **kwargs):
        if "transformer_options" in kwargs:
            kwargs["transformer_options"] = options  # as it was, without this function
        z = earlier(func, q, k, v, heads, *args, **kwargs) if earlier else func(q, k, v, heads, *args, **kwargs)
        try:
            for rows in forward.rows:
                forward.statistics.append(_guide_rows(plan.settings, z[rows, tokens], v[rows, :, tokens]))
        except Exception as error:
            if _belongs_to_host(error):
                raise
            _give_up(forward, block, error)
        return z

    return attention


def _guide_rows(settings: Settings, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Guide one group of rows in place; z: (batch, tokens, heads · head_dim), v: (batch, heads, tokens, head_dim).

    Returns the mean relative change and the share of tokens at the limit, both on the device.
    """
    z_pos, z_neg = z.unflatten(-1, (v.shape[1], -1)), identity_attention(v)
    if z_pos.shape != z_neg.shape:
        raise ValueError(f"attention gave {tuple(z_pos.shape)} where values are {tuple(z_neg.shape)}")
    guided, ratio = guide(z_pos, z_neg, settings.scale, settings.tau, settings.alpha)
    every = slice(None, None, max(1, z.shape[1] // SAMPLED_TOKENS))
    change = (guided[:, every] - z_pos[:, every]).abs().sum(dtype=torch.float32)
    change = change / z_pos[:, every].abs().sum(dtype=torch.float32)
    # The last thing that happens: whatever fails before this leaves Z⁺ as it was.
    z_pos.copy_(guided)
    return change, (ratio > settings.tau).float().mean()


def _belongs_to_host(error: Exception) -> bool:
    """True for out-of-memory and interrupts, which the host must see to act on them."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, comfy.model_management.InterruptProcessingException):
        return True
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)


def _give_up(forward: Forward, block: int, error: Exception) -> None:
    forward.run.failed.add(block)
    log.warning(
        "NAG-PAG: double block %d goes on without guidance from sigma %s on: %s: %s",
        block,
        "unknown" if forward.sigmas is None else f"{float(forward.sigmas[0]):.4g}",
        type(error).__name__,
        error,
    )
