"""Make lab/trained, the small models that are shipped: `make ship`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from .. import host
from . import autoencoder, shapes, training
from .small_models import TRAINED

SHIPPED = 0  # the seed
MOST_BYTES = 16_000_000
FLUX, DECODER, CARD = TRAINED / training.SHAPES_FILE, TRAINED / autoencoder.DECODER_FILE, TRAINED / "MODEL_CARD.md"
LICENSE = "Apache-2.0"


def main(arguments: list[str]) -> int:
    """Train what is missing, or other seeds that are named, and write what is shipped anew."""
    try:
        seeds = [int(argument) for argument in arguments] or [SHIPPED]
    except ValueError as error:
        print(f"lab: seeds are whole numbers, such as 0 1 2 3: {error}", file=sys.stderr)
        return 2
    run = [sys.executable, str(host.REPO / "lab" / "run.py")]
    jobs = {f"seed {seed}": [*run, "training", str(seed)] for seed in seeds if not training.checkpoint(seed).exists()}
    if SHIPPED in seeds and not autoencoder.decoder_file(SHIPPED).exists():
        jobs["the decoder"] = [*run, "autoencoder", str(SHIPPED)]
    try:
        failed = side_by_side(jobs, os.cpu_count() or 1)
    except KeyboardInterrupt:
        print("\nlab: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    if failed:
        print(f"lab: failed: {', '.join(failed)}; the same command tries again", file=sys.stderr)
        return 1
    if SHIPPED in seeds:
        ship()
        print(f"{TRAINED.relative_to(host.REPO)} is written: {size() / 1e6:.1f} MB")
    return 0


def side_by_side(jobs: dict[str, list[str]], slots: int) -> list[str]:
    """Run commands, so many at once, one thread each; the names of those that failed. None outlives this call."""
    waiting, running, failed = list(jobs), dict[str, subprocess.Popen](), list[str]()
    places = set(range(slots))
    held: dict[str, int] = {}
    try:
        while waiting or running:
            while waiting and places:
                name = waiting.pop(0)
                held[name] = min(places)  # the line of its progress bar
                places.remove(held[name])
                surroundings = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_POSITION": str(held[name])}
                # A session of its own, so that Ctrl-C in the terminal reaches us alone.
                running[name] = subprocess.Popen(jobs[name], env=surroundings, start_new_session=True)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                failed += [name] if running.pop(name).returncode else []
                places.add(held[name])
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.kill()  # what it did is kept every hundred steps
            process.wait()
    return failed


# --- what is shipped ---


def ship() -> None:
    """Write lab/trained from the cache: the two models with their recipes in their headers, and the card."""
    TRAINED.mkdir(exist_ok=True)
    flux = {"recipe": training.recipe_digest(), "seed": str(SHIPPED), "step": str(training.RECIPE.steps)}
    save_file(load_file(training.checkpoint(SHIPPED)), str(FLUX), {**flux, "license": LICENSE})
    weights = load_file(autoencoder.decoder_file(SHIPPED))
    decoder = {"recipe": autoencoder.recipe_digest(), "seed": str(SHIPPED)}
    decoder |= {f"psnr_noise_{noise}": f"{quality(weights, noise):.1f}" for noise in (0.0, 0.1)}
    save_file(weights, str(DECODER), {**decoder, "license": LICENSE})
    for path in (FLUX, DECODER):
        path.chmod(0o644)  # safetensors leaves them to their owner alone
    CARD.write_text(card())


def quality(weights: dict[str, torch.Tensor], noise: float, count: int = 64) -> float:
    """PSNR in dB of decoded renders that training has not seen, with so much noise in their latents."""
    generator = torch.Generator().manual_seed(7)
    pictures = shapes.render(shapes.random_scenes(count, generator))
    latents = shapes.to_latent(pictures)
    decoder = autoencoder.new_decoder(0)
    decoder.load_state_dict(weights)
    with torch.no_grad():
        made = decoder(latents + noise * torch.randn(latents.shape, generator=generator)).clamp(0, 1)
    return float(-10 * (made - pictures).square().mean().log10())


def size() -> int:
    """Bytes of all that is shipped."""
    return sum(path.stat().st_size for path in TRAINED.iterdir())


def metadata(path: Path) -> dict[str, str]:
    """What a shipped file says of itself."""
    with safe_open(str(path), "pt") as file:
        return file.metadata()


def card() -> str:
    """The model card, from what the shipped files and the recipe say."""
    flux, decoder, recipe = metadata(FLUX), metadata(DECODER), training.RECIPE
    return f"""# A small FLUX that draws coloured shapes

Trained from nothing by this repo on pictures that it draws itself. It is **not** FLUX.1, shares no weights with it and
says nothing about FLUX.1's pictures; it has its architecture, so that guidance can be seen and measured on a model
whose every mistake can be counted.

| file | what | bytes | recipe | seed |
|---|---|---|---|---|
{_rows(flux, decoder)}

The encoder is not trained and not shipped: lab/toy/autoencoder.py writes it down. \
The text encoder is a CLIP-L of seeded
random weights whose layers add nothing (lab/toy/small_models.py), so a prompt reaches FLUX as a list of its words.
`lab/toy/small_models.py` puts all of them into one `models` folder.

**Prompts.** One or two objects and a background, each object in a place of its own:
"a red ring top left, a blue cross bottom right, on grey".

- shapes: {", ".join(shapes.SHAPES)}
- colours: {", ".join(shapes.COLOR_NAMES)}
- places: {", ".join(shapes.PLACE_NAMES)}
- backgrounds: {", ".join(shapes.BACKGROUND_NAMES)}

Other words are noise to it. Pictures are {shapes.SIZE}×{shapes.SIZE} pixels; other sizes were never trained.

**How it was made.** `make ship`: {recipe.steps} steps of {recipe.batch} from {training.POOL:,} drawn pictures with
captions, flow matching, Muon on the blocks' matrices and AdamW on the rest, averaged weights, one prompt in
{round(1 / recipe.no_prompt)} left empty for classifier-free guidance, one thread of a CPU. The decoder:
{autoencoder.RECIPE.steps} steps of {autoencoder.RECIPE.batch} crops. The recipe columns are hashes of all that
decides the weights; a test holds them to the code. Another kind of CPU may sum in another order and give other bytes.

**What it is for.** The demo, the pictures in the README, tests, and measuring what guidance does. For nothing else.

**Known failures.** It is stopped while structure still fails, as a test bed has to: shapes that are torn, doubled, of a
wrong kind or mixed with each other, thin ones most of all; now and then an object that is missing. The decoder has seen
only such pictures and turns others into flat patches; \
on renders it has not seen it reaches {decoder["psnr_noise_0.0"]} dB
PSNR, {decoder["psnr_noise_0.1"]} dB with noise of 0.1 in the latent.

**Data and licence.** Only pictures and captions that lab/toy/shapes.py makes; no other data, no other weights. \
{LICENSE}, as the repo.
"""


def _rows(flux: dict[str, str], decoder: dict[str, str]) -> str:
    """The card's table of files. flux, decoder: what they say of themselves."""
    weights = load_file(FLUX)
    doubles, singles = (
        len({name.split(".")[1] for name in weights if name.startswith(f"{kind}_blocks.")})
        for kind in ("double", "single")
    )
    hidden, parameters = weights["img_in.weight"].shape[0], sum(map(torch.Tensor.numel, weights.values()))
    return f"""\
| {FLUX.name} | FLUX for the stock UNETLoader: hidden {hidden}, heads {hidden // 128}, \
double blocks {doubles}, single blocks {singles}, {parameters / 1e6:.1f} M parameters, bf16 | \
{FLUX.stat().st_size} | {flux["recipe"]} | {flux["seed"]}, step {flux["step"]} |
| {DECODER.name} | decoder for the stock VAELoader's `taef1` (TAESD's layers), fp16 | \
{DECODER.stat().st_size} | {decoder["recipe"]} | {decoder["seed"]} |"""
