"""The pictures that a search draws, batch by batch, and what the plain model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.sample
import torch
from torch import Tensor

from ..inputs.kinds import SEEDS
from .probe import predict
from .recovery import Losses, loss

PARTIAL = ("area", "mask", "start_percent", "end_percent")  # what makes an entry of a CONDITIONING hold for a part only
TEXT = ("pooled_output", "attention_mask")  # what an entry holds of its text beside the text itself
NOISING = 1_000_003  # from the seed of what is sampled to that of what noises it again


class Batch(NamedTuple):
    """Pictures that are drawn at once.

    prompt: which of the series' prompts they are of, counted from 0. latent: empty, (pictures, channels, height,
    width). seed: of their noise.
    """

    prompt: int
    latent: Tensor
    seed: int


@dataclass(frozen=True)
class Series:
    """A series of pictures to draw: `pictures` in all, by turns of the prompts.

    prompts: entries of a CONDITIONING, each a prompt of its own. empty: CONDITIONING of the empty prompt. latent:
    (batch, channels, height, width), as the model wants it; so many pictures are drawn at once, of this size. sigma:
    the noise level, in (0, 1], at which they are looked at. Raises ValueError where that can't be, where an entry holds
    for a part of the picture or of the sampling only, and where some prompts would not be drawn.
    """

    prompts: list
    empty: list
    latent: Tensor
    pictures: int
    steps: int
    seed: int
    sigma: float

    def __post_init__(self) -> None:
        if not self.prompts or not self.empty:
            raise ValueError(
                "NAG-PAG Calibrate: positive and empty need a prompt each; one of them is an empty CONDITIONING"
            )
        if self.pictures < 1 or self.steps < 1 or not 0 < self.sigma <= 1:
            raise ValueError(
                f"NAG-PAG Calibrate: pictures {self.pictures!r}, steps {self.steps!r}, sigma {self.sigma!r}; "
                "valid are at least 1, at least 1, and a number above 0 and up to 1"
            )
        if partial := [key for _, extras in (*self.prompts, *self.empty) for key in PARTIAL if key in extras]:
            raise ValueError(
                f"NAG-PAG Calibrate: a prompt holds for a part of the picture or of the sampling only "
                f"({', '.join(partial)}); "
                "each is drawn by itself, so give whole ones"
            )
        if self.number < len(self.prompts):
            raise ValueError(
                f"NAG-PAG Calibrate: {self.pictures} pictures, {len(self.latent)} at once, are {self.number} batches "
                f"of a prompt each, and there are {len(self.prompts)} prompts; raise pictures to "
                f"{len(self.prompts) * len(self.latent)} or lower the latent's batch size"
            )

    def batches(self) -> Iterator[Batch]:
        """All of them, in order: a prompt each, by turns."""
        for i in range(self.number):
            rows = min(len(self.latent), self.pictures - i * len(self.latent))
            yield Batch(i % len(self.prompts), torch.zeros_like(self.latent[:rows]), (self.seed + i) % SEEDS)

    @property
    def number(self) -> int:
        """How many batches that is."""
        return -(-self.pictures // len(self.latent))

    def how(self, batch: Batch) -> Hashable:
        """What decides the pictures of a batch and what is seen in them, beside the models and the texts."""
        return batch.prompt, batch.latent.shape, batch.latent.dtype, batch.seed, self.steps, self.sigma


def draw(model: Any, series: Series, batch: Batch, step: Callable[[], None]) -> Tensor:
    """The latents of a batch as a MODEL draws them, (pictures, channels, height, width). step: called at each step.

    The empty prompt is the negative one, as in most graphs; at cfg 1 nobody but guidance asks for it.
    """
    prompt = [series.prompts[batch.prompt]]
    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(batch.latent, batch.seed),
        series.steps,
        1.0,
        "euler",
        "simple",
        prompt,
        _without_text(prompt, series.empty),
        batch.latent,
        callback=lambda *_: step(),
        disable_pbar=True,
        seed=batch.seed,
    )


def losses(plain: Any, series: Series, batch: Batch, pictures: Tensor) -> Losses:
    """What the plain MODEL makes of a batch that was drawn, with its own prompt and with the empty one."""
    again = comfy.sample.prepare_noise(batch.latent, (batch.seed + NOISING) % SEEDS)
    prompt, sigma = [series.prompts[batch.prompt]], torch.tensor([series.sigma])

    def loss_with(text: list) -> Tensor:
        # On the CPU: losses are summed in float64, which not every device has.
        return loss(*(found.cpu() for found in predict(plain, text, pictures, again, sigma)))[0]

    return Losses(loss_with(prompt), loss_with(_without_text(prompt, series.empty)))


def _without_text(prompt: list, empty: list) -> list:
    """The prompt's entry with the empty text; guidance, reference pictures and control stay: only the text differs."""
    (_, extras), (text, of_text) = prompt[0], empty[0]
    kept = {key: value for key, value in extras.items() if key not in TEXT}
    return [[text, {**kept, **{key: of_text[key] for key in TEXT if key in of_text}}]]
