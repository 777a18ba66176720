"""What else is on a ComfyUI MODEL, named and not called, and what of it is known to get in guidance's way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

from comfy.patcher_extension import WrappersMP

from ..patch.caches import CACHES
from ..patch.families import FAMILIES, diffusion_model_of
from ..patch.plan import PLANS, RECORDINGS, replacements
from ..patch.report import plan_summary
from .recording import KEY as RECORD_KEY

OURS = "nag_pag_"
IN_BLOCKS = "with a reach inside the model guidance is missing at those steps"
# What is known to get in the way, by what is found in the name of a module, a class or a wrapper's key.
KNOWN = {
    **{
        word: f"{name} skips blocks where it reuses a step: {IN_BLOCKS}, with reach prediction at cfg 1 at all steps"
        for word, name in CACHES.items()
    },
    "easycache": f"EasyCache skips the model where it reuses a step: {IN_BLOCKS}",
    "lazycache": "LazyCache skips the model where it reuses a step: guidance is missing at those steps",
    "nunchaku": "Nunchaku runs a forward of its own, without ComfyUI's blocks: only reach prediction gets in, with a "
    "negative prompt",
    "pulid": "PuLID replaces FLUX's forward by its own: chosen blocks may never be reached",
}
# What the host's sampler calls around cfg: the option that holds it (one function, or a list), and in words.
AROUND_CFG = {
    "sampler_calc_cond_batch_function": "in place of a step's evaluations",
    "sampler_pre_cfg_function": "before cfg",
    "sampler_cfg_function": "in place of cfg",
    "sampler_post_cfg_function": "after cfg",
}
# By these names a function has the host evaluate the model.
EVALUATIONS = {"calc_cond_batch", "calc_cond_uncond_batch", "apply_model"}
AGAIN = (
    "has the model evaluated once more in a step: a longer reach inside the model keeps a difference for each "
    "evaluation that it can tell apart, and computes the branch of the others at every step"
)


def on_model(model: Any) -> list[str]:
    """What is on this model, a line each; of other packs' functions the names, without where they lie on the disk."""
    kinds = (_applications, _block_patches, _other_patches, _wrappers_on, _around_sampling, _beside_the_options)
    return [line for kind in kinds for line in kind(model)]


def in_the_way(model: Any) -> list[str]:
    """What is known to keep guidance out, or to cost it something, a sentence each."""
    kinds = (_known, _evaluated_again, _replaced_forwards, _replaced_blocks)
    return list(dict.fromkeys(line for kind in kinds for line in kind(model)))


# --- what is on it ---


def _applications(model: Any) -> Iterator[str]:
    for plan in _options(model).get(PLANS, ()):
        yield f"NAG-PAG Guidance, {plan_summary(plan)}{' (switched off)' if plan.settings.off else ''}"
    count = len(_wrappers(model, WrappersMP.OUTER_SAMPLE).get(RECORD_KEY, ()))
    if count:
        yield f"NAG-PAG Record{f', {count} times' if count > 1 else ''}"


def _block_patches(model: Any) -> Iterator[str]:
    options = _options(model)
    plans = options.get(PLANS, ())
    ours = {id(function) for plan in plans for function in plan.replacements.values()}
    slots = list(replacements(options).items())
    # An earlier patch that NAG-PAG Guidance took in is in no slot any more.
    slots += [(plan.slot(position), patch) for plan in plans for position, patch in plan.earlier.items()]
    found: dict[str, list[str]] = {}
    for (kind, index, *_), patch in slots:
        if id(patch) not in ours:
            found.setdefault(_name(patch), []).append(f"{kind.replace('_', ' ')} {index}")
    for name, places in found.items():
        yield f"block patch {name} in {', '.join(places)}: kept, NAG-PAG calls it"
    if override := options.get("optimized_attention_override"):
        yield f"attention override {_name(override)}: kept, guided blocks call it"


def _other_patches(model: Any) -> Iterator[str]:
    options = _options(model)
    for place, patches in options.get("patches", {}).items():
        yield f"{place}: {_names(patches)}: kept, beside guidance"
    for place, patches in options.get("patches_replace", {}).items():
        if place != "dit" and patches:
            yield f"{place} replaced by {_names(patches.values())}: kept"
    told = ("patches", "patches_replace", "optimized_attention_override", "wrappers", "callbacks", PLANS, RECORDINGS)
    if others := [name for name in map(str, options) if name not in told and not name.startswith(OURS)]:
        yield f"options {', '.join(map(_short, others))}: kept"


def _wrappers_on(model: Any) -> Iterator[str]:
    for kind in vars(WrappersMP).values():
        if isinstance(kind, str) and not kind.startswith(("_", "comfy.")):
            for key, wrappers in _wrappers(model, kind).items():
                if wrappers and not str(key).startswith(OURS):
                    name = _short(str(key)) if key else _names(wrappers)
                    yield f"{kind} wrapper {name}: kept, around guidance or inside of it"
    if wrapper := model.model_options.get("model_function_wrapper"):
        yield f"model function wrapper {_name(wrapper)}: kept, around guidance"


def _around_sampling(model: Any) -> Iterator[str]:
    options = model.model_options
    for place, words in AROUND_CFG.items():
        if functions := _functions(options.get(place)):
            yield f"{words}: {_names(functions)}: kept, it gets the guided predictions"
    if options.get("disable_cfg1_optimization"):
        yield "the negative prompt is evaluated at cfg 1, too, as a node on this model asks for it"
    told = ("transformer_options", "model_function_wrapper", "disable_cfg1_optimization", *AROUND_CFG)
    for name, value in options.items():
        if name not in told:
            yield f"{_short(str(name))}{f' {_name(value)}' if callable(value) else ''}: kept"


def _beside_the_options(model: Any) -> Iterator[str]:
    if foreign := _foreign_class(model):
        yield f"class {foreign} in place of ComfyUI's"
    if getattr(model, "patches", None):
        yield f"weights of {len(model.patches)} layers patched (LoRA or the like): kept"
    for name, value in getattr(model, "object_patches", {}).items():
        yield f"object patch {name}{f' by {_name(value)}' if callable(value) else ''}: kept"
    for kind, by_key in getattr(model, "callbacks", {}).items():
        if functions := [f for key, fs in by_key.items() if not str(key).startswith(OURS) for f in fs]:
            yield f"{kind} callback {_names(functions)}: kept"
    for kind in ("injections", "additional_models"):
        if names := [str(key) for key, held in getattr(model, kind, {}).items() if held]:
            yield f"{kind.replace('_', ' ')} {', '.join(map(_short, names))}: kept"


def _options(model: Any) -> dict:
    return model.model_options.get("transformer_options", {})


def _wrappers(model: Any, kind: str) -> dict:
    """By key; a node puts them on the model, or, as some do, straight into its options."""
    on_it = getattr(model, "wrappers", {}).get(kind, {})
    return {**_options(model).get("wrappers", {}).get(kind, {}), **on_it}


def _functions(value: Any) -> list[Callable]:
    return list(value) if isinstance(value, list | tuple) else [value] if value else []


# --- names ---


def _names(functions: Iterable[Callable]) -> str:
    return ", ".join(sorted({_name(function) for function in functions}))


def _name(function: Callable) -> str:
    """Where a patch comes from: its module and its name."""
    function = getattr(function, "func", function)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{_module(named)}.{named.__qualname__.replace('.<locals>', '')}"


def _module(named: Any) -> str:
    """A module's last two parts. The host names a pack's modules by the path of its folder: then from there on."""
    module = str(named.__module__)
    from_pack = _short(module)
    return from_pack if from_pack != module else ".".join(module.split(".")[-2:])


def _short(name: str) -> str:
    """Without the folders before it, and with the dots that the host wrote otherwise."""
    return re.split(r"[/\\]", name)[-1].replace("_x_", ".")


# --- what gets in the way ---


def _known(model: Any) -> Iterator[str]:
    diffusion_model = type(diffusion_model_of(model))
    lines = [line for line in on_model(model) if not line.startswith("NAG-PAG")]
    text = " ".join((diffusion_model.__name__, diffusion_model.__module__, *lines)).lower()
    yield from (said for pattern, said in KNOWN.items() if pattern in text)


def _evaluated_again(model: Any) -> Iterator[str]:
    for place in AROUND_CFG:
        for function in _functions(model.model_options.get(place)):
            code = getattr(getattr(function, "func", function), "__code__", None)
            if code and place != "sampler_calc_cond_batch_function" and EVALUATIONS & _names_used(code):
                yield f"{_name(function)} {AGAIN}"


def _names_used(code: CodeType) -> set[str]:
    """The names that a function and the functions within it use of others."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*map(_names_used, inner))


def _foreign_class(model: Any) -> str | None:
    """The model's class, where it is not the host's: some packs swap it."""
    cls = type(diffusion_model_of(model))
    return None if cls.__module__.startswith("comfy.") else f"{_module(cls)}.{cls.__qualname__}"


def _replaced_forwards(model: Any) -> Iterator[str]:
    if foreign := _foreign_class(model):
        yield f"the model's class is {foreign}, not ComfyUI's: its forward may not call the blocks"
    own = vars(diffusion_model_of(model))
    for name in ("forward", "forward_orig", "_forward"):
        if name in own:
            yield f"the model's {name} was replaced by {_name(own[name])}: it may not call the blocks"
    patched = [name for name in getattr(model, "object_patches", {}) if name.split(".")[-1].startswith("forward")]
    yield from (f"{name} is replaced while sampling: it may not call the blocks" for name in patched)


def _replaced_blocks(model: Any) -> Iterator[str]:
    for kind in dict.fromkeys(stack for family in FAMILIES for stack in family.stacks):
        blocks = list(getattr(diffusion_model_of(model), kind, ()))
        taken = [str(i) for i, block in enumerate(blocks) if "forward" in vars(block)]
        foreign = {_module(type(block)) for block in blocks if not type(block).__module__.startswith("comfy.")}
        if taken:
            where = f"{kind} {', '.join(taken)}"
            yield f"{where}: their forward was replaced; guidance works where it calls the host's attention"
        if foreign:
            yield f"{kind} come from {', '.join(sorted(foreign))}, not from ComfyUI: they may not call its attention"
