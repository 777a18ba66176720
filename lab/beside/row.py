"""What was found of one node."""

from __future__ import annotations

from dataclasses import dataclass, field

YES = "yes"
NEXT_IN_ANOTHER = 3  # exit status of a process that a node has left changed


@dataclass
class Row:
    """What was found of one node, each in a word or in words. "": not come to.

    runs: by itself. acts: whether it changes the picture. both: by way of ours and by order, whether both act.
    renewed: by way the steps that computed the branch, of each order. exact: scale 0 is theirs to the bit. after: their
    model draws the same after ours was put on it. said: whether our log says it where ours can't act. inspect: whether
    Inspect's words hold. left: what it changes for other models.
    """

    node: str
    runs: str = ""
    acts: bool = False
    both: dict[str, dict[str, str]] = field(default_factory=dict)
    renewed: dict[str, list[int]] = field(default_factory=dict)
    exact: str = ""
    after: str = ""
    said: str = ""
    inspect: str = ""
    left: str = ""

    @property
    def kept(self) -> bool:
        """Whether every promise is kept: no failure that is only there with ours, no silence, no false word."""
        crashed = any("fails" in words for orders in self.both.values() for words in orders.values())
        words = (self.exact, self.after, self.said, self.inspect)
        return not crashed and not any(word.startswith("NO") for word in words)
