"""What a ComfyUI MODEL is, what NAG-PAG would do with it, and what else is on it, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from ..blocks import auto_blocks, blocks_name, merge_position, parse_blocks, with_strength
from ..patch.families import diffusion_model_of, find_model, known_models
from ..patch.family import Found
from ..schedule import USUAL_STEPS
from ..settings import Settings
from .neighbours import in_the_way, on_model

NAMES = {
    "float8_e4m3fn": "fp8 (e4m3)",
    "float8_e5m2": "fp8 (e5m2)",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
}


def inspect_model(model: Any, spec: str) -> str:
    """Describe a MODEL, and what the block spec `spec` would guide on it. Never fails on what it describes."""
    lines = [*_what_it_is(model), "", *_what_would_be_guided(model, spec), ""]
    lines += ["On this model", *(f"  {line}" for line in on_model(model) or ["nothing"])]
    lines += ["", "In the way", *(f"  {line}." for line in in_the_way(model) or ["nothing that is known"])]
    return "\n".join(lines)


# --- what it is ---


def _what_it_is(model: Any) -> Iterator[str]:
    diffusion_model = diffusion_model_of(model)
    family = type(getattr(model.model, "model_config", None)).__name__
    yield "Model"
    yield f"  family: {family}, class {type(diffusion_model).__name__}"
    yield from _blocks_and_width(model)
    yield f"  weights: {_weights(diffusion_model)}"
    cast = getattr(model.model, "manual_cast_dtype", None)
    yield f"  computes in: {_dtype(cast)}, cast while it runs" if cast else "  computes in: the weights' own type"


def _blocks_and_width(model: Any) -> Iterator[str]:
    found = find_model(model)
    if found.why:
        return
    (first, second), kinds = found.depths, found.family.naming.kinds
    yield f"  blocks: {first}" if len(kinds) == 1 else f"  blocks: {first} {kinds[0].word}, {second} {kinds[1].word}"
    widths = (
        getattr(found.model, name, None) for name in ("hidden_size", "inner_dim", "dim", "model_dim", "model_channels")
    )
    if width := next(filter(None, widths), None):
        yield f"  width: {width}, {found.heads} head{'s' if found.heads != 1 else ''} of {width // found.heads}"


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
    found = find_model(model)
    yield f"  works here: {_works(found)}"
    yield from (f"  {line}" for line in (_of_no_family(found, spec) if found.why else _of_blocks(found, spec)))


def _of_no_family(found: Found, spec: str) -> Iterator[str]:
    yield f"blocks: none are known, as {found.why}. Known are those of {known_models()}"
    if spec.strip() != "auto":
        yield f'"{spec.strip():.60}" guides: nothing here; leave blocks at auto'
    yield f"cost of reach prediction: {_of_prediction()}"


def _of_blocks(found: Found, spec: str) -> Iterator[str]:
    (doubles, singles), naming = found.depths, found.family.naming
    yield f"auto is: {naming.of_kind(False, ', '.join(map(str, auto_blocks(doubles))), 's')}"
    try:
        blocks = parse_blocks(spec, doubles, singles, found.heads, naming)
    except ValueError as error:
        yield str(error)
        return
    yield f'"{spec.strip()}" guides: {blocks_name(blocks, naming)}'
    for block in blocks:
        if block.scale is not None or block.heads is not None:
            name = naming.block(block.position(doubles), doubles)
            yield f"  {name}: {_strength(block.scale)}, {_heads(block.heads)}"
    yield "cost of reach, in blocks run a second time at a step that renews the branch:"
    yield from (f"  {line}" for line in _costs(found, tuple(with_strength(blocks, doubles))))


def _works(found: Found) -> str:
    """What guidance can do on this family."""
    reaches = f"reach {', '.join(found.family.reaches)}"
    if found.why:
        return f"{reaches}, with a negative prompt"
    if found.family.why_no_branch:
        return f"{reaches}, negative_prompt at the prediction; {found.family.why_no_branch}"
    same = "" if found.depths[1] else " (of which double blocks is output)"
    meets = "" if found.family.joint else "; at reach attention without one, as the text is not in the attention"
    return f"{reaches}{same}, negative_prompt{meets}"


def _strength(scale: float | None) -> str:
    if scale is None:
        return "the node's scale"
    return f"its own scale {scale:g}" if scale else "scale 0, so it stays plain"


def _heads(heads: tuple[tuple[int, int], ...] | None) -> str:
    if heads is None:
        return "all heads"
    return "heads " + ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in heads)


def _costs(found: Found, chosen: tuple[int, ...]) -> Iterator[str]:
    yield "attention: none"
    (doubles, singles), branch = found.depths, not found.family.why_no_branch
    if branch and found.family.joint and chosen:
        yield _cost("attention, with a negative prompt", chosen[-1] + 1, doubles + singles)
    for reach in ("double blocks", "output") if branch else ():
        merge = merge_position(chosen or (0,), doubles, singles, reach, 0)
        assert merge is not None
        of_blocks = [(chosen[0], reach)] if chosen else []
        for start, what in (*of_blocks, (0, f"{reach}, with a negative prompt")):
            yield _cost(what, merge - start + 1, doubles + singles)
    yield f"prediction: {_of_prediction()}"


def _cost(what: str, count: int, blocks: int) -> str:
    """What runs through so many of the blocks costs."""
    every, share = Settings().renewed_every(USUAL_STEPS), count / blocks
    return f"{what}: {count} of {blocks} ({share:.0%}; renewed every {every}th step {share / every:.0%})"


def _of_prediction() -> str:
    every = Settings().renewed_every(USUAL_STEPS)
    return f"the whole model (100%; renewed every {every}th step {1 / every:.0%})"
