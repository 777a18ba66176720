"""What requests hold of the server's memory while their pictures come in, all of them together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

MOST_BYTES = 256 * 2**20


class Busy(Exception):
    """The server has as much in hand as it takes at once, in words for the one who asked."""


class Share:
    """What one request holds."""

    def __init__(self, held: Held):
        self.held, self.bytes = held, 0

    def add(self, more: int) -> None:
        """Hold so many bytes more. Raises Busy where all requests together would hold too many."""
        if self.held.bytes + more > self.held.most:
            raise Busy(f"the pictures of other requests take all of the {self.held.most // 2**20} MiB; try again later")
        self.held.bytes += more
        self.bytes += more


class Held:
    """The bytes that all requests hold, at most so many."""

    def __init__(self, most: int = MOST_BYTES):
        self.most, self.bytes = most, 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """A share for one request, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.bytes -= share.bytes
