"""What a step costs: guidance, its peers and CFG beside the plain model, all in one run.

Plain and guided samplings alternate (plain, A, plain, B, plain, …), each plain one counted for both its neighbours.
Every step is timed by itself and divided by the mean of the plain steps of the same number before and after it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from tqdm import tqdm

from ...nagpag.blocks import published_blocks
from ...nagpag.inputs.guidance import NEGATIVE_PROMPT, START_PERCENT
from .. import host
from ..evidence.contenders import host_node
from ..in_host import enter_host
from . import page
from .live_bytes import LiveBytes
from .random_flux import FULL, Sizes, now, random_flux, step_seconds
from .results import CFG, DEFAULTS, SCALE_0, Entry, Graphs, Results, Shares, Times, nag_row, negative_row

CPU = Sizes(hidden=384, doubles=19, singles=38, context=64, pooled=32, text=32, latent=32)
COMPILED = Sizes(hidden=128, doubles=4, singles=2, context=64, pooled=32, text=8, latent=8)
STEPS, ROUNDS = 8, 8
RENEWALS = (1, 2, 4, 8)
NEGATIVE = {"negative_prompt": "sampler's"}
SKIPPED = (7, 8, 9)  # the layers that SkipLayerGuidanceDiT skips by default, of both kinds


def entries(model: Any, sizes: Sizes) -> list[Entry]:
    """Guidance at every reach, renewal and negative branch; the host's own peers; CFG."""
    published = ", ".join(map(str, published_blocks(sizes.doubles)))
    first = str(published_blocks(sizes.doubles)[0])
    return [
        _guided(model, SCALE_0, scale=0.0),
        _guided(model, DEFAULTS, negative_prompt=NEGATIVE_PROMPT.default, start_percent=START_PERCENT.default),
        *(
            _guided(model, f"attention, {negative}", reach="attention", blocks=published, negative=negative)
            for negative in ("identity", "softened", "mean", "identity + text")
        ),
        *(
            _guided(model, f"{reach}, renewed every {every}", reach=reach, blocks=first, renew_every=every)
            for reach in ("double blocks", "output")
            for every in RENEWALS
        ),
        *(
            _guided(model, negative_row(reach, every), reach=reach, renew_every=every, **NEGATIVE)
            for reach in ("double blocks", "output", "prediction")
            for every in (1, 4)
        ),
        *(
            _guided(model, nag_row(every), reach="attention", blocks="all", renew_every=every, **NEGATIVE)
            for every in (1, 4)
        ),
        Entry("ComfyUI's NAGuidance", host_node(model, "nodes_nag", "NAGuidance", (5.0, 0.5, 1.5)), whole=1),
        _skip_layers(model, sizes),
        Entry(CFG, model, whole=1, cfg=2.0),
    ]


def _guided(model: Any, name: str, **inputs: Any) -> Entry:
    from ...nagpag.patch import apply_guidance, find_model, make_plan
    from ...nagpag.settings import Settings

    # At every step, so that each is like the others; the defaults alone begin later.
    settings = Settings(**{"start_percent": 0.0, "negative_prompt": "off", **inputs})
    plan = make_plan(find_model(model), settings)
    branch = plan.positions if plan.beside_blocks and not settings.off else ()
    doubles = sum(position < plan.double_blocks for position in branch)
    every = settings.renew_every if plan.renews else 1  # 0: as often as the sampling has it
    blocks, whole = (doubles, len(branch) - doubles), int(plan.at_prediction and not settings.off)
    guided = apply_guidance(model, settings)
    return Entry(name, guided, blocks, every, settings.start_percent, whole, reach=settings.reach)


def _skip_layers(model: Any, sizes: Sizes) -> Entry:
    layers = ", ".join(map(str, SKIPPED))
    patched = host_node(model, "nodes_slg", "SkipLayerGuidanceDiT", (3.0, 0.0, 1.0, layers, layers))
    fewer = tuple(-sum(layer < depth for layer in SKIPPED) for depth in (sizes.doubles, sizes.singles))
    return Entry("ComfyUI's SkipLayerGuidanceDiT", patched, (fewer[0], fewer[1]), whole=1)


# --- time ---


def time_steps(model: Any, timed: list[Entry], sizes: Sizes, rounds: int = ROUNDS, steps: int = STEPS) -> Times:
    """Time all entries in alternation with the plain model, and its blocks after each round."""
    shares: list[Shares] = []

    def sample(model: Any, cfg: float) -> list[float]:
        return step_seconds(model, sizes, steps, cfg)

    step_seconds(model, sizes, 2)  # warm
    ratios, plain = alternated(sample, model, timed, rounds, lambda: shares.append(time_blocks(model, sizes, steps)))
    return Times(ratios, plain, Shares(*map(statistics.median, zip(*shares, strict=True))))


def alternated(
    sample: Callable[[Any, float], list[float]],
    model: Any,
    timed: list[Entry],
    rounds: int,
    after_round: Callable[[], object] = lambda: None,
) -> tuple[dict[str, list[list[float]]], list[float]]:
    """Of each entry, by name, the ratios of its steps to plain ones, one list a round; and the plain steps' seconds.

    Each second round is in the opposite order. sample: a sampling's seconds, step by step, of a model and a cfg.
    """
    ratios: dict[str, list[list[float]]] = {entry.name: [] for entry in timed}
    plain: list[float] = []
    with tqdm(total=rounds * len(timed), unit="run", desc="timing", leave=False) as bar:
        for number in range(rounds):
            before = sample(model, 1.0)
            plain += before
            for entry in timed[:: -1 if number % 2 else 1]:
                spent = sample(entry.model, entry.cfg)
                after = sample(model, 1.0)
                ratios[entry.name].append([2 * s / (b + a) for s, b, a in zip(spent, before, after, strict=True)])
                plain += after
                before = after
                bar.update()
            after_round()
    return ratios, plain


def time_blocks(model: Any, sizes: Sizes, steps: int) -> Shares:
    """Time each kind of block within a plain sampling."""
    flux, spent = model.model.diffusion_model, {"double_blocks": 0.0, "single_blocks": 0.0}
    starts: list[float] = []

    def begin(*args: Any) -> None:
        starts.append(now(model.load_device))

    def end(kind: str) -> Callable:
        def add(*args: Any) -> None:
            spent[kind] += now(model.load_device) - starts.pop()

        return add

    with contextlib.ExitStack() as handles:
        for kind in spent:
            for block in getattr(flux, kind):
                handles.enter_context(block.register_forward_pre_hook(begin))
                handles.enter_context(block.register_forward_hook(end(kind)))
        whole = sum(step_seconds(model, sizes, steps))
    return Shares(spent["double_blocks"] / whole / sizes.doubles, spent["single_blocks"] / whole / sizes.singles)


# --- memory, compiled graphs, synchronisations ---


def peak_bytes(model: Any, sizes: Sizes, cfg: float = 1.0) -> int:
    """The most memory that a sampling of two steps takes, as the device counts it; on a CPU, as its tensors do."""
    if model.load_device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.load_device)
        step_seconds(model, sizes, 2, cfg)
        return torch.cuda.max_memory_allocated(model.load_device)
    with LiveBytes() as live:
        step_seconds(model, sizes, 2, cfg)
    return live.peak


def compiled_graphs(entry: Entry, sizes: Sizes, steps: int = STEPS) -> Graphs:
    """Compile by the host's own wrapper, sample, and count; the compiler behind the graphs does not matter for that."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    compiled = entry.model.clone()
    set_torch_compile_wrapper(compiled, backend="eager", dynamic=False)
    with _attention_of_a_gpu():
        step_seconds(compiled, sizes, steps, entry.cfg)
    return Graphs(counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))


@contextlib.contextmanager
def _attention_of_a_gpu() -> Iterator[None]:
    # The host's attention for the CPU asks for free memory, which breaks the graph by itself.
    import comfy.ldm.flux.math
    from comfy.ldm.modules.attention import attention_pytorch

    with mock.patch.object(comfy.ldm.flux.math, "optimized_attention", attention_pytorch):
        yield


def synchronisations(entry: Entry, sizes: Sizes, steps: int = STEPS) -> int | None:
    """How often a sampling makes the host wait for the GPU, by torch's own warnings; None on a CPU."""
    if entry.model.load_device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step_seconds(entry.model, sizes, steps, entry.cfg)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


# --- all of it ---


def measure(
    sizes: Sizes, device: torch.device, compiled: Sizes = COMPILED, rounds: int = ROUNDS, steps: int = STEPS
) -> Results:
    """Time, memory, compiled graphs and synchronisations on a device, of random models of these sizes."""
    plain = random_flux(sizes, device)
    timed = entries(plain, sizes)
    times = time_steps(plain, timed, sizes, rounds, steps)
    everyone = [Entry("plain", plain), *timed]
    peaks = {e.name: peak_bytes(e.model, sizes, e.cfg) for e in tqdm(everyone, desc="memory")}
    waits = {e.name: synchronisations(e, sizes, steps) for e in everyone}
    graphs = _graphs(compiled, device, steps)
    # The models go: what is kept are numbers and names.
    timed = [dataclasses.replace(entry, model=None) for entry in timed]
    return Results(device, sizes, steps, rounds, timed, times, peaks, graphs, waits)


def _graphs(sizes: Sizes, device: torch.device, steps: int) -> dict[str, Graphs]:
    small = random_flux(sizes, device)
    everyone = [Entry("plain", small), *entries(small, sizes)]
    # One renewal stands for all: the graphs are those of a step that renews and one that does not.
    told = [entry for entry in everyone if entry.every in (1, 4)]
    return {e.name: compiled_graphs(e, sizes, steps) for e in tqdm(told, desc="torch.compile")}


def main(arguments: list[str]) -> int:
    """Measure, print the page and write it to docs/cost.md; on a GPU, at FLUX.1's full size, to docs/cost_gpu.md."""
    parser = argparse.ArgumentParser(prog="bench", description=main.__doc__)
    parser.add_argument("--full", action="store_true", help="FLUX.1's full size on the GPU, and nothing else")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="more rounds, smaller errors (default %(default)s)")
    asked = parser.parse_args(arguments)
    if asked.full and not torch.cuda.is_available():
        parser.error("--full wants a CUDA device with some 40 GB, and torch sees none")
    if torch.cuda.is_available() and not asked.full:
        # The host settles on a device once per process.
        again = [sys.executable, str(host.REPO / "lab" / "run.py"), "bench", "--full", "--rounds", str(asked.rounds)]
        subprocess.run(again, check=True)
    enter_host(gpu=asked.full)
    sizes, device = (FULL, torch.device("cuda")) if asked.full else (CPU, torch.device("cpu"))
    text = page.page(measure(sizes, device, rounds=asked.rounds))
    path = page.GPU_PAGE if asked.full else page.PAGE
    path.write_text(text)
    print(f"{text}\n{path.relative_to(host.REPO)} is written")
    return 0
