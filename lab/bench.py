"""What a step costs: whole-step ratios of guidance, its peers and CFG to the plain model, all in one run.

Every round samples with each contender once, between two plain ones, on a FLUX of FLUX.1's 19 double and 38 single
blocks that a CPU can run; a contender's ratio is its time over the mean of the plain times around it.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from . import host
from .in_host import enter_host
from .small_models import make_flux

DOUBLES, SINGLES, FIRST = 19, 38, 8
HIDDEN, CONTEXT, TEXT, LATENT = 384, 64, 64, 48  # LATENT: 384×384 pixels, 576 tokens
STEPS, ROUNDS = 8, 3
OUTPUT = host.REPO / "docs" / "cost.md"


@dataclass(frozen=True)
class Contender:
    """Something to time. passes: what counting blocks predicts for it, given a block's share of a step."""

    name: str
    patch: Callable[[Any], Any]
    passes: Callable[[Shares], float]
    cfg: float = 1.0


@dataclass(frozen=True)
class Shares:
    """What one block takes of a plain step, as timed in this run."""

    double: float
    single: float

    def of(self, doubles: int, singles: int) -> float:
        return doubles * self.double + singles * self.single


def contenders() -> list[Contender]:
    """Guidance at every reach, renewal and negative branch; the host's own peers; CFG."""
    return [
        Contender("scale 0", _guided(scale=0.0), lambda shares: 1.0),
        *(
            Contender(f"reach attention, {negative}", _guided(negative=negative), lambda shares: 1.0)
            for negative in ("identity", "softened", "mean", "identity + text")
        ),
        *(_branch(reach, every) for reach in ("double blocks", "output") for every in (1, 2, 4, 8)),
        Contender("ComfyUI's NAGuidance", _peer("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5), lambda shares: 2.0),
        Contender(
            "ComfyUI's SkipLayerGuidanceDiT",
            _peer("nodes_slg", "SkipLayerGuidanceDiT", 3.0, 0.0, 1.0, "7, 8, 9", "7, 8, 9"),
            lambda shares: 2.0 - shares.of(3, 3),
        ),
        Contender("CFG 2", lambda model: model, lambda shares: 2.0, cfg=2.0),
    ]


def _guided(**inputs: Any) -> Callable[[Any], Any]:
    from ..nagpag.config import Settings
    from ..nagpag.patch import apply_guidance

    return lambda model: apply_guidance(model, Settings(**inputs))


def _branch(reach: str, every: int) -> Contender:
    singles = SINGLES if reach == "output" else 0
    return Contender(
        f"reach {reach}, from block {FIRST}, renewed every {every}",
        _guided(reach=reach, renew_every=every, blocks=str(FIRST)),
        lambda shares: 1.0 + shares.of(DOUBLES - FIRST, singles) / every,
    )


def _peer(module: str, node: str, *inputs: Any) -> Callable[[Any], Any]:
    def patch(model: Any) -> Any:
        import importlib

        return getattr(importlib.import_module(f"comfy_extras.{module}"), node).execute(model, *inputs).args[0]

    return patch


# --- sampling ---


def _load(folder: Path) -> Any:
    import comfy.sd

    path = folder / "flux_bench.safetensors"
    make_flux(path, HIDDEN, DOUBLES, SINGLES, context_dim=CONTEXT, vec_dim=32, dtype=torch.bfloat16)
    return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.bfloat16})


def _prompt(seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, TEXT, CONTEXT, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, 32, generator=generator), "guidance": 3.5}]]


def _seconds(model: Any, cfg: float = 1.0) -> float:
    """One sampling of STEPS steps, in seconds."""
    import comfy.sample

    latent = torch.zeros(1, 16, LATENT, LATENT)
    noise = comfy.sample.prepare_noise(latent, 0)
    what = (model, noise, STEPS, cfg, "euler", "simple", _prompt(1), _prompt(2), latent)
    start = time.perf_counter()
    comfy.sample.sample(*what, disable_pbar=True, seed=0)
    return time.perf_counter() - start


def _shares(model: Any) -> Shares:
    """Time each kind of block within a plain sampling."""
    flux, starts, spent = model.model.diffusion_model, [], {"double_blocks": 0.0, "single_blocks": 0.0}

    def begin(module: nn.Module, *args: Any) -> None:
        starts.append(time.perf_counter())

    def end(kind: str) -> Callable:
        def add(module: nn.Module, *args: Any) -> None:
            spent[kind] += time.perf_counter() - starts.pop()

        return add

    handles = []
    for kind in spent:
        for block in getattr(flux, kind):
            handles += [block.register_forward_pre_hook(begin), block.register_forward_hook(end(kind))]
    whole = _seconds(model)
    for handle in handles:
        handle.remove()
    return Shares(spent["double_blocks"] / whole / DOUBLES, spent["single_blocks"] / whole / SINGLES)


def measure(model: Any, rounds: int = ROUNDS) -> tuple[dict[str, list[float]], Shares]:
    """Each contender's ratios to the plain model, one a round, and the shares for the prediction."""
    entries = [(contender, contender.patch(model)) for contender in contenders()]
    ratios: dict[str, list[float]] = {contender.name: [] for contender, _ in entries}
    _seconds(model)  # warm
    with tqdm(total=rounds * len(entries), unit="run", desc="bench") as bar:
        for _ in range(rounds):
            before = _seconds(model)
            for contender, patched in entries:
                spent, after = _seconds(patched, contender.cfg), _seconds(model)
                ratios[contender.name].append(2 * spent / (before + after))
                before = after
                bar.update()
    return ratios, _shares(model)


# --- the table ---


def table(ratios: dict[str, list[float]], shares: Shares) -> str:
    """The results as Markdown."""
    rows = ["| | whole step | spread | counting blocks |", "|---|---|---|---|"]
    rows += [
        f"| {contender.name} | {statistics.median(values):.3f}× | {min(values):.3f} to {max(values):.3f} | "
        f"{contender.passes(shares):.3f}× |"
        for contender in contenders()
        if (values := ratios[contender.name])
    ]
    return "\n".join(rows)


def page(ratios: dict[str, list[float]], shares: Shares) -> str:
    """The whole page, docs/cost.md."""
    return f"""# What a step costs

Made by `make bench`: a FLUX of {DOUBLES} double and {SINGLES} single blocks, width {HIDDEN}, random bfloat16 weights,
{(LATENT // 2) ** 2:,} picture and {TEXT} text tokens, {STEPS} Euler steps, {ROUNDS} rounds, ComfyUI {_version()}, on
{platform.machine()} CPU with {torch.get_num_threads()} threads. Ratios of whole samplings to the plain model's before and
after; median, and smallest to largest. Where nothing else is said, blocks `auto` (8, 12, 16).

{table(ratios, shares)}

*Counting blocks*: the blocks that the negative branch runs through, each at its share of a plain step as timed in the same
run ({shares.double:.2%} a double block, {shares.single:.2%} a single one), divided by the renewal.
"""


def _version() -> str:
    import comfyui_version

    return comfyui_version.__version__


def main(arguments: list[str]) -> int:
    """Measure, print the table and write docs/cost.md."""
    enter_host()
    with tempfile.TemporaryDirectory() as folder:
        ratios, shares = measure(_load(Path(folder)))
    print(table(ratios, shares))
    OUTPUT.write_text(page(ratios, shares))
    print(f"\n{OUTPUT.relative_to(host.REPO)} is written")
    return 0
