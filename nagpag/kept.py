"""What was drawn lately, for the next run: bounded, and found again only for the very same inputs."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Ids = tuple[int, ...]
MOST_BYTES = 2**28  # of latents: 256 of 1024 by 1024 pixels
MOST_SOURCES = 4  # what conditioning may hold, such as a ControlNet, has no size that we know


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
    def ids(self) -> Ids:
        return tuple(map(id, (self.model, self.positive, self.negative, self.latent)))


class Kept:
    """Latents by what they were drawn from and how; beyond `most` bytes, or sources, the ones not used for longest go.

    A model is not kept alive by it. Conditioning and latent are, as long as something drawn from them is kept.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._found: OrderedDict[tuple[Ids, Hashable], tuple[weakref.ref, tuple, Tensor]] = OrderedDict()

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
        key = (source.ids, how)
        self._found[key] = (weakref.ref(source.model), alive, latents)
        self._found.move_to_end(key)
        self._forget()

    def _forget(self) -> None:
        alive = (ids for (ids, _), (model, *_) in reversed(self._found.items()) if model() is not None)
        used = list(dict.fromkeys(alive))[:MOST_SOURCES]
        for key in [key for key in self._found if key[0] not in used]:
            del self._found[key]
        while self.bytes > self._most:
            self._found.popitem(last=False)

    @property
    def bytes(self) -> int:
        """How many the latents have."""
        return sum(latents.nbytes for *_, latents in self._found.values())
