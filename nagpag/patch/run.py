"""One sampling run: what has happened in it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor

from ..schedule import Renewal
from .plan import Plan


@dataclass(eq=False)
class Run:
    """What has happened in one sampling run. Of tensors it keeps scalars, and the differences kept for renewal.

    prompts: the identities of the conditions that are the prompt's, as the guider has them. conditional: which of the
    numbered lists of conditions now worked out are; rows: how many rows each condition has. unclear: forwards whose
    rows nobody told apart.
    differences: h⁻ − h⁺ at the merge, by condition and shape. seen: the conditions of the evaluation going on;
    repeated: those that one evaluation asked for more than once (tiles, windows), which can't be told apart.
    """

    renewal: Renewal
    prompts: set[Hashable] = field(default_factory=set)
    conditional: set[int] = field(default_factory=lambda: {0})
    rows: int = 0
    unclear: int = 0
    tried: bool = False
    complained: bool = False
    guided: set[int] = field(default_factory=set)
    differences: dict[Hashable, Tensor] = field(default_factory=dict)
    seen: set[Hashable] = field(default_factory=set)
    repeated: set[Hashable] = field(default_factory=set)
    forwards: int = 0
    guided_sigmas: list[Tensor] = field(default_factory=list)
    renewed_sigmas: list[Tensor] = field(default_factory=list)
    reached: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    statistics: list[Tensor] = field(default_factory=list)

    def guided_blocks(self, plan: Plan) -> list[int]:
        """The chosen blocks in which guidance worked, by position; of a longer reach, those that its branch passed."""
        reached = self.guided if plan.merge is None else self.reached if plan.merge in self.guided else set()
        return sorted(reached & set(plan.blocks))
