"""Pictures under several settings, through the host's sampler as its KSampler and VAE Decode draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.utils
import latent_preview
from torch import Tensor

from ..inputs.comparison import MOST_PICTURES
from ..inputs.kinds import SEEDS
from ..kept import Kept, Source
from ..patch import apply_guidance
from ..patch.families import refuse_guided
from ..settings import Settings

KEPT = Kept()  # of all comparisons in this process
# How far a picture is: its steps done, and a preview as ComfyUI's progress bar takes it.
Progress = Callable[[int, Any], None]


@dataclass(frozen=True)
class Sampling:
    """How every picture is sampled, by the names of KSampler's inputs."""

    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float


@dataclass(frozen=True)
class Shot:
    """One sampling: under which settings, None for off, and with which seed. A latent of a batch gives a batch."""

    settings: Settings | None
    seed: int


def shots(different: Sequence[Settings | None], seed: int, seeds: int, batch: int) -> list[Shot]:
    """All to draw: every setting with the first seed, then with the next. Raises ValueError where it is too much."""
    if (number := len(different) * seeds * batch) > MOST_PICTURES:
        at_once = f" and {batch} pictures at once" if batch > 1 else ""
        raise ValueError(
            f"NAG-PAG Compare: {len(different)} settings (off counts) with {seeds} seeds{at_once} are {number} "
            f"pictures; at most {MOST_PICTURES} are drawn"
        )
    return [Shot(one, (seed + i) % SEEDS) for i in range(seeds) for one in different]


def models_for(model: Any, different: Sequence[Settings | None]) -> dict[Settings | None, Any]:
    """The model under each of the settings; for None the model itself.

    Raises ValueError for one that can't be guided or is guided already, and for settings that don't fit it.
    """
    refuse_guided(model, "NAG-PAG Compare")
    return {one: model if one is None else apply_guidance(model, one) for one in different}


def draw(source: Source, vae: Any, wanted: Sequence[Shot], sampling: Sampling, kept: Kept) -> list[Tensor]:
    """The pictures of each shot, (batch, height, width, 3) in [0, 1]; what is kept is decoded only.

    All are sampled before any is decoded, so that the host need not change between model and autoencoder.
    """
    models = models_for(source.model, [shot.settings for shot in wanted])
    found = {shot: latent for shot in wanted if (latent := kept.get(source, (shot, sampling))) is not None}
    missing = [shot for shot in wanted if shot not in found]
    bar = comfy.utils.ProgressBar(len(missing) * sampling.steps + len(wanted))
    for i, shot in enumerate(missing):
        progress = _progress_from(bar, i * sampling.steps)
        found[shot] = _sample(models[shot.settings], source, shot.seed, sampling, progress)
        kept.put(source, (shot, sampling), found[shot])
    return [decode(vae, found[shot], bar, len(wanted) - i - 1) for i, shot in enumerate(wanted)]


def _progress_from(bar: Any, before: int) -> Progress:
    return lambda steps, preview: bar.update_absolute(before + steps, preview=preview)


def _sample(model: Any, source: Source, seed: int, sampling: Sampling, progress: Progress) -> Tensor:
    """What KSampler gives: the same calls, with a progress of our own."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    given = source.latent
    # An empty latent may be of another model's size.
    latent = comfy.sample.fix_empty_latent_channels(model, given["samples"], given.get("downscale_ratio_spacial"))
    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latent, seed, given.get("batch_index")),
        sampling.steps,
        sampling.cfg,
        sampling.sampler_name,
        sampling.scheduler,
        source.positive,
        source.negative,
        latent,
        denoise=sampling.denoise,
        noise_mask=given.get("noise_mask"),
        callback=_callback(model, sampling.steps, progress),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    ).cpu()


def _callback(model: Any, steps: int, progress: Progress) -> Callable[[int, Tensor, Tensor, int], None]:
    """What the sampler calls after each step: it tells how far the picture is, and shows it as the host would."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def step(i: int, x0: Tensor, x: Tensor, total: int) -> None:
        preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
        progress(min(i + 1, steps), preview)  # some samplers count further than they were asked to

    return step


def decode(vae: Any, latent: Tensor, bar: Any, left: int) -> Tensor:
    """The pictures of a latent, (pictures, height, width, 3) in [0, 1]; the bar then stands so far from its end."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    pictures = vae.decode(latent)
    bar.update_absolute(bar.total - left)
    # Autoencoders of films have a dimension more; their pictures count one by one, as in VAE Decode.
    return pictures.reshape(-1, *pictures.shape[-3:])
