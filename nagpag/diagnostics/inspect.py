"""What a ComfyUI MODEL is, what NAG-PAG would do with it, and what else is on it, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ..blocks import auto_blocks, block_name, blocks_name, merge_position, parse_blocks, with_strength
from ..patch.families import diffusion_model_of, find_flux
from ..patch.plan import PLANS, replacements
from ..patch.report import plan_summary
from ..settings import Settings
from .recording import KEY as RECORD_KEY

OURS = "nag_pag_"
# What is known to get in the way, by what is found in the name of a module, a class or a wrapper's key.
KNOWN = {
    "teacache": "TeaCache skips blocks where it reuses a step: guidance is missing at those steps",
    "magcache": "MagCache skips blocks where it reuses a step: guidance is missing at those steps",
    "fbcache": "a first-block cache skips blocks where it reuses a step: guidance is missing at those steps",
    "first_block": "a first-block cache skips blocks where it reuses a step: guidance is missing at those steps",
    "wavespeed": "WaveSpeed's cache skips blocks where it reuses a step: guidance is missing at those steps",
    "easycache": "EasyCache skips the model where it reuses a step: guidance is missing at those steps",
    "lazycache": "LazyCache skips the model where it reuses a step: guidance is missing at those steps",
    "cachedit": "Cache-DiT skips blocks where it reuses a step: guidance is missing at those steps",
    "nunchaku": "Nunchaku runs a forward of its own, without ComfyUI's blocks: guidance never gets in",
    "pulid": "PuLID replaces FLUX's forward by its own: chosen blocks may never be reached",
    r"(?<![a-z])nag(?![a-z]|[-_ ]pag)": "another NAG pack may replace FLUX's forward or attention: "
    "chosen blocks may never be reached",
}
NAMES = {
    "float8_e4m3fn": "fp8 (e4m3)",
    "float8_e5m2": "fp8 (e5m2)",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
}


def inspect_model(model: Any, spec: str) -> str:
    """Describe a MODEL, and what the block spec `spec` would guide on it. Never fails on what it describes."""
    lines = [*_what_it_is(model), "", *_what_would_be_guided(model, spec), "", *_what_is_on_it(model)]
    problems = list(dict.fromkeys(_in_the_way(model)))
    lines += ["", "In the way", *(f"  {line}." for line in problems or ["nothing that is known"])]
    return "\n".join(lines)


# --- what it is ---


def _what_it_is(model: Any) -> Iterator[str]:
    diffusion_model = diffusion_model_of(model)
    family = type(getattr(model.model, "model_config", None)).__name__
    yield "Model"
    yield f"  family: {family}, class {type(diffusion_model).__name__}"
    if hasattr(diffusion_model, "double_blocks"):
        doubles, singles = (len(getattr(diffusion_model, name, ())) for name in ("double_blocks", "single_blocks"))
        yield f"  blocks: {doubles} double, {singles} single"
    if hasattr(diffusion_model, "num_heads") and hasattr(diffusion_model, "hidden_size"):
        heads, width = diffusion_model.num_heads, diffusion_model.hidden_size
        yield f"  width: {width}, {heads} head{'s' if heads != 1 else ''} of {width // heads}"
    yield f"  weights: {_weights(diffusion_model)}"
    cast = getattr(model.model, "manual_cast_dtype", None)
    yield f"  computes in: {_dtype(cast)}, cast while it runs" if cast else "  computes in: the weights' own type"


def _weights(diffusion_model: Any) -> str:
    """The kinds of weights by their share of all numbers, those above 1 %."""
    counts: Counter[str] = Counter()
    for weight in diffusion_model.parameters():
        counts[_kind(weight)] += max(1, weight.numel())
    total = sum(counts.values())
    kinds = [f"{kind} {count / total:.0%}" for kind, count in counts.most_common() if count > total / 100]
    return ", ".join(kinds) or "none found"


def _kind(weight: torch.Tensor) -> str:
    """A weight's type; where it is wrapped (quantised by the host, GGUF, bitsandbytes), by its wrapper."""
    layout = getattr(weight, "_layout_cls", None)
    if layout:
        return f"quantised ({layout})"
    gguf = getattr(weight, "tensor_type", None)
    if gguf is not None:
        return f"GGUF ({getattr(gguf, 'name', gguf)})"
    if type(weight) not in (torch.Tensor, torch.nn.Parameter):
        return f"{type(weight).__name__} ({_dtype(weight.dtype)})"
    return _dtype(weight.dtype)


def _dtype(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return NAMES.get(name, name)


# --- what would be guided ---


def _what_would_be_guided(model: Any, spec: str) -> Iterator[str]:
    yield "Guidance"
    try:
        flux = find_flux(model)
    except ValueError as error:
        yield f"  {error}"
        return
    doubles, singles = len(flux.double_blocks), len(flux.single_blocks)
    yield f"  auto is: double blocks {', '.join(map(str, auto_blocks(doubles)))}"
    try:
        blocks = parse_blocks(spec, doubles, singles, flux.num_heads)
    except ValueError as error:
        yield f"  {error}"
        return
    yield f'  "{spec.strip()}" guides: {blocks_name(blocks)}'
    for block in blocks:
        if block.scale is not None or block.heads is not None:
            yield f"    {block_name(block.position(doubles), doubles)}: {_strength(block.scale)}, {_heads(block.heads)}"
    yield "  cost of reach, in blocks run a second time at a step that renews the branch:"
    yield from (f"    {line}" for line in _costs(tuple(with_strength(blocks, doubles)), doubles, singles))


def _strength(scale: float | None) -> str:
    if scale is None:
        return "the node's scale"
    return f"its own scale {scale:g}" if scale else "scale 0, so it stays plain"


def _heads(heads: tuple[tuple[int, int], ...] | None) -> str:
    if heads is None:
        return "all heads"
    return "heads " + ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in heads)


def _costs(chosen: tuple[int, ...], doubles: int, singles: int) -> Iterator[str]:
    yield "attention: none"
    every = Settings().renew_every
    for reach in ("double blocks", "output"):
        merge = merge_position(chosen or (0,), doubles, singles, reach, 0)
        assert merge is not None
        of_blocks = [(chosen[0], reach)] if chosen else []
        for start, what in (*of_blocks, (0, f"{reach}, with a negative prompt")):
            count = merge - start + 1
            share = count / (doubles + singles)
            rest = f"{share:.0%}; renewed every {every}th step {share / every:.0%}"
            yield f"{what}: {count} of {doubles + singles} ({rest})"


# --- what is on it ---


def _what_is_on_it(model: Any) -> Iterator[str]:
    yield "On this model"
    lines = [*_applications(model), *_block_patches(model), *_other_patches(model)]
    yield from (f"  {line}" for line in lines or ["nothing"])


def _applications(model: Any) -> Iterator[str]:
    for plan in _options(model).get(PLANS, ()):
        yield f"NAG-PAG Guidance, {plan_summary(plan)}{' (switched off)' if plan.settings.off else ''}"
    count = len(_wrappers(model, WrappersMP.OUTER_SAMPLE).get(RECORD_KEY, ()))
    if count:
        yield f"NAG-PAG Record{f', {count} times' if count > 1 else ''}"


def _block_patches(model: Any) -> Iterator[str]:
    options = _options(model)
    plans = options.get(PLANS, ())
    ours = {function for plan in plans for function in plan.replacements.values()}
    slots = list(replacements(options).items())
    # An earlier patch that NAG-PAG Guidance took in is in no slot any more.
    slots += [(plan.slot(position), patch) for plan in plans for position, patch in plan.earlier.items()]
    found: dict[str, list[str]] = {}
    for (kind, index, *_), patch in slots:
        if patch not in ours:
            found.setdefault(_name(patch), []).append(f"{kind.replace('_', ' ')} {index}")
    for name, places in found.items():
        yield f"block patch {name} in {', '.join(places)}: kept, NAG-PAG calls it"
    if override := options.get("optimized_attention_override"):
        yield f"attention override {_name(override)}: kept, guided blocks call it"


def _other_patches(model: Any) -> Iterator[str]:
    for place, patches in _options(model).get("patches", {}).items():
        yield f"{place}: {', '.join(sorted({_name(patch) for patch in patches}))}: kept, beside guidance"
    for kind in vars(WrappersMP).values():
        if isinstance(kind, str) and not kind.startswith(("_", "comfy.")):
            for key, wrappers in _wrappers(model, kind).items():
                if wrappers and not str(key).startswith(OURS):
                    yield f"{kind} wrapper {key or _name(wrappers[0])}: kept, around guidance or inside of it"
    if wrapper := model.model_options.get("model_function_wrapper"):
        yield f"model function wrapper {_name(wrapper)}: kept, around guidance"
    if getattr(model, "patches", None):
        yield f"weights of {len(model.patches)} layers patched (LoRA or the like): kept"
    for name in getattr(model, "object_patches", {}):
        yield f"object patch {name}: kept"


def _options(model: Any) -> dict:
    return model.model_options.get("transformer_options", {})


def _wrappers(model: Any, kind: str) -> dict:
    return getattr(model, "wrappers", {}).get(kind, {})


def _name(function: Callable) -> str:
    """Where a patch comes from: its module's last parts and its name."""
    function = getattr(function, "func", function)
    named = function if hasattr(function, "__qualname__") else type(function)
    module = ".".join(str(named.__module__).split(".")[-2:])
    return f"{module}.{named.__qualname__.replace('.<locals>', '')}"


# --- what gets in the way ---


def _in_the_way(model: Any) -> Iterator[str]:
    diffusion_model = diffusion_model_of(model)
    names = [type(diffusion_model).__name__, type(diffusion_model).__module__]
    names += [line for line in _what_is_on_it(model) if not line.strip().startswith("NAG-PAG")]
    text = " ".join(names).lower()
    yield from (said for pattern, said in KNOWN.items() if re.search(pattern, text))
    for name in ("forward", "forward_orig", "_forward"):
        if name in vars(diffusion_model):
            yield f"the model's {name} was replaced by {_name(vars(diffusion_model)[name])}: it may not call the blocks"
    patched = [name for name in getattr(model, "object_patches", {}) if name.split(".")[-1].startswith("forward")]
    yield from (f"{name} is replaced while sampling: it may not call the blocks" for name in patched)
    for kind in ("double_blocks", "single_blocks"):
        blocks = list(getattr(diffusion_model, kind, ()))
        taken = [str(i) for i, block in enumerate(blocks) if "forward" in vars(block)]
        foreign = {type(block).__module__ for block in blocks if not type(block).__module__.startswith("comfy.")}
        if taken:
            where = f"{kind} {', '.join(taken)}"
            yield f"{where}: their forward was replaced; guidance works where it calls the host's attention"
        if foreign:
            yield f"{kind} come from {', '.join(sorted(foreign))}, not from ComfyUI: they may not call its attention"
