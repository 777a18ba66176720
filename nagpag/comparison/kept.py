"""What was drawn lately, for the next run: bounded, and found again only for the very same inputs."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

MOST_BYTES = 2**28  # of latents: 256 of 1024 by 1024 pixels


@dataclass(frozen=True, eq=False)
class Source:
    """What pictures are drawn from. model: a ComfyUI MODEL; positive, negative: CONDITIONING; latent: a LATENT.

    Two are the same where these are the same objects: while nothing in front of a node changes, the host hands it the
    same ones again. Equal contents don't count, as nobody can tell of a model's patches what they do.
    """

    model: Any
    positive: Any
    negative: Any
    latent: Any

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(map(id, (self.model, self.positive, self.negative, self.latent)))


class Kept:
    """Latents by what they were drawn from and how; beyond `most` bytes the ones not used for longest go.

    A model is not kept alive by it. Conditioning and latent are, as long as something drawn from them is kept.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._found: OrderedDict[Hashable, tuple[weakref.ref, tuple, Tensor]] = OrderedDict()

    def get(self, source: Source, how: Hashable) -> Tensor | None:
        """The latents that were drawn so, None if they are not kept."""
        key = (source.ids, how)
        model, _, latents = self._found.get(key, (None, None, None))
        if model is None or model() is not source.model:  # another one may have got the id of one that is gone
            return None
        self._found.move_to_end(key)
        return latents

    def put(self, source: Source, how: Hashable, latents: Tensor) -> None:
        """Keep what was drawn."""
        # With these alive no other object gets their ids.
        alive = (source.positive, source.negative, source.latent)
        self._found[source.ids, how] = (weakref.ref(source.model), alive, latents)
        for key in [key for key, (model, *_) in self._found.items() if model() is None]:
            del self._found[key]
        while self.bytes > self._most:
            self._found.popitem(last=False)

    @property
    def bytes(self) -> int:
        """How many the latents have."""
        return sum(latents.nbytes for *_, latents in self._found.values())


KEPT = Kept()  # of all comparisons in this process
