"""What a small FLUX learns from: latents with the token ids of their captions, whatever the pictures show.

The prompts' embeddings come from a CLIP-L of seeded random weights (small_models) with another table of positions:
smooth, so that a word finds its neighbours. Of the padding a prompt keeps one token: what the host would add besides
says nothing, and costs half of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from . import small_models

WIDTH, POSITIONS = 768, 77
TOKENS_KEY = "text_model.embeddings.token_embedding.weight"


@dataclass(frozen=True)
class Pictures:
    """A training set.

    name: for files, such as "shapes". digest: of all that makes it. latents: (pictures, 16, height, width). ids:
    (pictures + 1, 77), token ids of the captions as the host's tokenizer gives them; the last row is of "".
    """

    name: str
    digest: str
    latents: Tensor
    ids: Tensor

    def __post_init__(self) -> None:
        if self.ids.shape != (len(self.latents) + 1, POSITIONS):
            raise ValueError(
                f"{len(self.latents)} pictures need ids of {len(self.latents) + 1} × {POSITIONS}: "
                f"one row each and one of the empty prompt; they are {tuple(self.ids.shape)}"
            )


def words_of(ids: Tensor) -> int:
    """How many tokens of the longest caption are not padding, its begin and end among them. ids: (captions, 77)."""
    padding = ids[0, -1]
    return int((ids != padding).any(0).nonzero().max()) + 2


def positions(words: int) -> Tensor:
    """A table of positions, (words + 1, 768): waves, and zeros for the padding."""
    frequencies = torch.logspace(math.log10(0.05), math.log10(3.0), WIDTH // 2)
    turn = torch.arange(words)[:, None] * frequencies
    return functional.pad(torch.cat((turn.sin(), turn.cos()), dim=1) / 2, (0, 0, 0, 1))


class Table:
    """The embeddings of all captions' tokens, so that a batch costs a look-up."""

    def __init__(self, ids: Tensor, words: int):
        used = ids.unique()
        clip = load_file(small_models.ensure_models() / small_models.CLIP_FILE)
        self.tokens = clip[TOKENS_KEY][used.long()].float()
        self.positions = positions(words)
        self.rows = torch.searchsorted(used, ids)[:, : words + 1]

    def __call__(self, rows: Tensor) -> Tensor:
        """Embeddings of these captions, (captions, words + 1, 768)."""
        return self.tokens[self.rows[rows]] + self.positions


def embed(ids: Tensor, words: int) -> Tensor:
    """The embeddings of token ids (captions, 77), as a `Table` gives them: (captions, words + 1, 768)."""
    clip = load_file(small_models.ensure_models() / small_models.CLIP_FILE)
    return clip[TOKENS_KEY].float()[ids[:, : words + 1].long()] + positions(words)
