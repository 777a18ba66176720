"""Which blocks does a model itself say to guide? Signals that need no judge, for every block and reach, as a table.

python3 lab/host.py run lab/run.py calibrate [seed | seed-early …]: the named trained models, all three signals; what is
measured already is kept in the cache and not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from . import shapes, training
from .flux_module import DEFAULT_SIZES
from .in_host import enter_host

PICTURES, SCENES, NOISE = 64, 5_000, 6_000  # how many, and the seeds of their scenes and noise
SIGMAS = (0.9, 0.7, 0.5, 0.3)
STRENGTHS: dict[str, dict[str, float]] = {
    "limited": {"scale": 1.0, "tau": 1.5, "alpha": 0.5},
    "free": {"scale": 1.0, "tau": 10.0, "alpha": 1.0},
    "published": {"scale": 3.0, "tau": 2.5, "alpha": 0.25},
}
STEPS = 10  # of a whole sampling; a reconstruction takes those from RECONSTRUCT_FROM on
RECONSTRUCT_FROM = 0.8
RECOVERY_SIGMAS = (0.8, 0.6)
Numbers = dict[str, list[float]]  # what was measured, by name: one number a picture


@dataclass(frozen=True)
class Contender:
    """One way to guide. block: as a block spec names it, "" for CFG. strength: a key of STRENGTHS; "" where none is."""

    reach: str  # of the node's, or "PAG" or "CFG"
    block: str = ""
    strength: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.reach, self.block, self.strength)))

    def patch(self, model: Any) -> Any:
        """The model with this guidance; PAG's and CFG's is in how it is evaluated."""
        from ..nagpag.config import Settings
        from ..nagpag.patch import apply_guidance

        if self.reach in ("PAG", "CFG"):
            return model
        numbers = STRENGTHS[self.strength]
        return apply_guidance(model, Settings(blocks=self.block, reach=self.reach, renew_every=1, **numbers))


def contenders(doubles: int, singles: int, strengths: tuple[str, ...] = ("limited", "free")) -> list[Contender]:
    """Every block with every reach that it can have, at each strength; classic PAG at every block; CFG."""
    double, single = [str(i) for i in range(doubles)], [f"s{i}" for i in range(singles)]
    found = [Contender("CFG"), *(Contender("PAG", block) for block in (*double, *single))]
    for strength in strengths:
        for reach in ("attention", "double blocks", "output"):
            blocks = double if reach == "double blocks" else [*double, *single]
            found += [Contender(reach, block, strength) for block in blocks]
    return found


def perturbed(model: Any, block: str) -> Any:
    """A model whose attention is the identity for the picture's tokens in one block: PAG's second pass."""
    kind, index = ("single_block", int(block[1:])) if block.startswith("s") else ("double_block", int(block))

    def replacement(args: dict, extra: dict) -> dict:
        def attention(func: Callable, q: Tensor, k: Tensor, v: Tensor, *more: Any, **kwargs: Any) -> Tensor:
            out = func(q, k, v, *more, **kwargs)
            text = args["txt"].shape[1] if "txt" in args else args["transformer_options"]["img_slice"][0]
            out[:, text:] = v[:, :, text:].transpose(1, 2).flatten(2)
            return out

        options = {**args["transformer_options"], "optimized_attention_override": attention}
        return extra["original_block"]({**args, "transformer_options": options})

    patched = model.clone()
    patched.set_model_patch_replace(replacement, "dit", kind, index)
    return patched


# --- pictures and the model ---


class Bench:
    """A trained model in the host, held-out renders with their captions, and what the plain model makes of them."""

    def __init__(self, path: Path, pictures: int = PICTURES):
        import comfy.sd

        self.model = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.bfloat16})
        self.model.set_model_compute_dtype(torch.bfloat16)
        generator = torch.Generator().manual_seed(SCENES)
        self.scenes = shapes.random_scenes(pictures, generator)
        # Latents as a VAE gives them, from those that the model knows.
        self.latents = self.model.model.latent_format.process_out(shapes.to_latent(shapes.render(self.scenes)))
        self.noise = torch.randn(self.latents.shape, generator=torch.Generator().manual_seed(NOISE))
        captions = [scene.caption for scene in self.scenes]
        self.captions = conditioning(captions)
        self.nothing = conditioning([""] * pictures)
        self.others = conditioning([*captions[1:], captions[0]])
        self.near_misses = conditioning([near_miss(scene) for scene in self.scenes])

    def contenders(self) -> list[Contender]:
        flux = self.model.model.diffusion_model
        return contenders(len(flux.double_blocks), len(flux.single_blocks))

    def predict(self, contender: Contender | None, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """x̂₀ at each sigma and x₀, under this guidance; None is the plain model."""
        from ..nagpag.patch.probe import predict

        about = (self.latents, self.noise, sigmas)
        if contender is None:
            return predict(self.model, self.captions, *about)
        if contender.reach == "CFG":
            return predict(self.model, self.captions, *about, cfg=2.0, negative=self.nothing)
        if contender.reach == "PAG":
            worse, truth = predict(perturbed(self.model, contender.block), self.captions, *about)
            return 2 * self.plain[: len(sigmas)] - worse, truth
        return predict(contender.patch(self.model), self.captions, *about)

    @cached_property
    def plain(self) -> Tensor:
        return self.predict(None, torch.tensor(SIGMAS))[0]

    def sample(self, contender: Contender | None, start: float = 1.0) -> Tensor:
        """Euler from the renders noised to `start`, in equal steps down to 0; latents as a VAE gives them."""
        from comfy.samplers import CFGGuider, ksampler

        guider = CFGGuider(contender.patch(self.model) if contender else self.model)
        guider.set_conds(self.captions, self.nothing)
        guider.set_cfg(2.0 if contender and contender.reach == "CFG" else 1.0)
        sigmas = torch.linspace(start, 0, round(STEPS * start) + 1)
        latents = self.latents if start < 1 else torch.zeros_like(self.latents)
        return guider.sample(self.noise, latents, ksampler("euler"), sigmas, disable_pbar=True, seed=0)


def conditioning(captions: list[str]) -> list:
    """One CONDITIONING of a caption for each picture of the batch, as the host's own text encoder path gives it."""
    context = training.embed(training.caption_ids(captions))
    context = torch.nn.functional.pad(context, (0, 4096 - context.shape[-1]))
    return [[context, {"pooled_output": torch.zeros(len(captions), 768), "guidance": 3.5}]]


def near_miss(scene: shapes.Scene) -> str:
    """The scene's caption with every shape another one."""
    things = [replace(t, shape=(t.shape + 1 + t.color % 5) % len(shapes.SHAPES)) for t in scene.things]
    return replace(scene, things=tuple(things)).caption


# --- signals ---


def alignment(bench: Bench, contender: Contender) -> Numbers:
    """Does guidance point to the truth? At each sigma and over all: cosine, best weight, explained, gain."""
    from ..nagpag.calibration import align, together

    guided, truth = bench.predict(contender, torch.tensor(SIGMAS))
    found = [align(g - p, truth - p) for g, p in zip(guided, bench.plain, strict=True)]
    numbers: Numbers = {}
    for label, a in (*zip(map(str, SIGMAS), found, strict=True), ("all", together(found))):
        weight = a.weight
        numbers[f"cosine {label}"] = a.cosines.tolist()
        numbers[f"gain {label}"] = a.gains.tolist()
        numbers[f"weight {label}"] = [weight.value, weight.error]
        numbers[f"explained {label}"] = [a.explained]
        numbers[f"size {label}"] = [float((a.moved.sum() / a.missed.sum()).sqrt())]
    return numbers


def reconstruction(bench: Bench, contender: Contender | None) -> Numbers:
    """How far from a render a sampling ends that began at the render noised to RECONSTRUCT_FROM."""
    from ..nagpag.calibration import errors

    return {"error": errors(bench.sample(contender, RECONSTRUCT_FROM), bench.latents).tolist()}


def recovery(bench: Bench, contender: Contender | None) -> Numbers:
    """How surely the plain model finds the captions again in what was sampled from noise, and how well it predicts it."""
    from ..nagpag import calibration
    from ..nagpag.patch.probe import predict

    samples = bench.sample(contender)
    generator = torch.Generator().manual_seed(NOISE + 1)
    noise, sigmas = torch.randn(samples.shape, generator=generator), torch.tensor(RECOVERY_SIGMAS)

    def loss(captions: list) -> Tensor:
        return calibration.errors(*predict(bench.model, captions, samples, noise, sigmas))

    right = loss(bench.captions)
    numbers: Numbers = {"loss": right.mean(0).tolist()}
    for name, captions in (("nothing", bench.nothing), ("others", bench.others), ("near misses", bench.near_misses)):
        margins, found = calibration.recovery(right, loss(captions)[None])
        numbers[f"margin {name}"], numbers[f"found {name}"] = margins.tolist(), found.tolist()
    return numbers


# What is looked at of each signal: (signal, number, whether less is better). Those beside alignment as changes from plain.
COLUMNS = (
    ("alignment", "cosine all", False),
    ("reconstruction", "error", True),
    ("recovery", "margin near misses", False),
    ("recovery", "margin others", False),
    ("recovery", "margin nothing", False),
    ("recovery", "loss", True),
)
SIGNALS: dict[str, Callable[[Bench, Any], Numbers]] = {
    "alignment": alignment,
    "reconstruction": reconstruction,
    "recovery": recovery,
}

# --- measuring and keeping ---


def asked(bench: Bench, signal: str) -> list[Contender | None]:
    """Who is measured: alignment is cheap and takes all, the others sample and take the limited branches and CFG."""
    everyone = bench.contenders()
    if signal == "alignment":
        return [*everyone]
    return [None, *(c for c in everyone if c.reach == "CFG" or (c.strength == "limited" and "s" not in c.block))]


def results_path(path: Path) -> Path:
    """Where a model's numbers are kept."""
    return path.with_suffix(".calibration.json")


def measure(path: Path, pictures: int = PICTURES, only: Callable[[Any], bool] = lambda contender: True) -> dict:
    """All signals of one model: {signal: {contender's name, "plain": its Numbers}}; goes on from what is kept."""
    kept = results_path(path)
    results: dict = json.loads(kept.read_text()) if kept.exists() else {}
    bench = Bench(path, pictures)
    todo = [(signal, contender) for signal in SIGNALS for contender in asked(bench, signal) if only(contender)]
    for signal, contender in tqdm(todo, desc=path.stem, unit="setting"):
        name = contender.name if contender else "plain"
        if name not in results.setdefault(signal, {}):
            results[signal][name] = SIGNALS[signal](bench, contender)
            kept.write_text(json.dumps(results))
    return results


# --- tables ---


def change(results: dict, signal: str, number: str, name: str) -> Tensor:
    """One number a picture of one contender, less what the plain model has, (pictures,)."""
    numbers = torch.tensor(results[signal][name][number], dtype=torch.float64)
    plain = results[signal].get("plain")
    return numbers if plain is None else numbers - torch.tensor(plain[number], dtype=torch.float64)


def signal_table(results: dict[str, dict], signal: str, number: str, less: bool = False) -> dict[tuple, float]:
    """{(model, block, reach, strength): value}, as `calibration.rank_agreement` compares it with gains; more is better.

    results: what `measure` found, by model.
    """
    found = {}
    for model, measured in results.items():
        for contender in contenders(DEFAULT_SIZES.double_blocks, DEFAULT_SIZES.single_blocks, tuple(STRENGTHS)):
            if contender.name in measured.get(signal, {}):
                value = float(change(measured, signal, number, contender.name).mean())
                key = (model, contender.block, contender.reach, contender.strength)
                found[key] = -value if less else value
    return found


def table(results: dict) -> str:
    """One model's signals as Markdown: means over pictures with standard errors, in percent; losses relative to plain."""
    from ..nagpag.calibration import mean

    rows = ["| | " + " | ".join(number for _, number, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in results["alignment"]:
        cells = []
        for signal, number, less in COLUMNS:
            if name not in results.get(signal, {}):
                cells.append("")
                continue
            size = mean(torch.tensor(results[signal]["plain"][number])).value if less else 1.0
            value, error = mean(change(results, signal, number, name) / size)
            cells.append(f"{100 * value:+.1f} ± {100 * error:.1f}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def model_path(name: str) -> Path:
    """The trained model that a word names: its seed, with -early behind it for the earlier state."""
    seed, _, state = name.partition("-")
    if not seed.isdigit() or state not in ("", "early"):
        raise SystemExit(f"calibrate: {name!r} is not a model; valid is a seed such as 0, or 0-early")
    path = training.checkpoint(int(seed), early=state == "early")
    if not path.exists():
        raise SystemExit(f"calibrate: {path} is not trained yet; python3 lab/host.py run -- lab/run.py training {seed}")
    return path


def main(arguments: list[str]) -> int:
    """Measure the models that are named and print their tables: lab/run.py calibrate 0 0-early."""
    paths = [model_path(name) for name in arguments or ["0", "0-early"]]
    enter_host()
    torch.set_num_threads(1)
    for path in paths:
        print(f"\n{path.stem}\n{table(measure(path))}")
    return 0
