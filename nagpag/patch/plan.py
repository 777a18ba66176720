"""What one application of the node does to one model, in every sampling run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..blocks import Block, blocks_name
from ..settings import Settings
from .family import Family

# Where a model's options hold every application of the node, and a run's options what reports of it.
PLANS, RECORDINGS = "nag_pag_plans", "nag_pag_recordings"

_keys = itertools.count()


@dataclass(eq=False)
class Call:
    """How a block was called in the sampling now going on: without any options, or so that guidance failed at once."""

    without_options: bool = False
    failed: bool = False


@dataclass(eq=False)
class Plan:
    """Settings fitted to a model.

    chosen: the blocks that are guided or perturbed, by position, ascending. merge: the position after which the
    branch is merged, None inside the attention; positions count the double blocks and then the single blocks; a family
    with one kind of block has them as double_blocks. depth: all blocks, and the position of the model's prediction.
    patch: the size of a token, (frames, height, width).
    replacements: our functions in the blocks' slots; earlier: what stood there before, which ours call. disturbing: the
    same at the prediction, both by position, where they stand in the options of some forwards only.
    calls: of the sampling now going on, what blocks know that can't find its run; said: what was said of them.
    """

    settings: Settings
    chosen: dict[int, Block]
    merge: int | None
    family: Family
    double_blocks: int
    depth: int
    patch: tuple[int, int, int]
    # Each application has its own keys, so that several on one model don't mix up their states.
    key: str = field(default_factory=lambda: f"nag_pag_{next(_keys)}")
    replacements: dict[int, Callable] = field(default_factory=dict)
    earlier: dict[int, Callable] = field(default_factory=dict)
    disturbing: dict[int, tuple[Callable | None, Callable]] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    @property
    def run_key(self) -> str:
        """Where a sampling's options hold the run."""
        return f"{self.key}_run"

    @property
    def negative_key(self) -> str:
        """Under which name a guider's conditions hold the node's own negative prompt."""
        return f"{self.key}_negative"

    @property
    def forward_key(self) -> str:
        """Where a forward's options hold the forward."""
        return f"{self.key}_forward"

    @property
    def disturbed_key(self) -> str:
        """What marks the options of an evaluation whose attention this application is to disturb."""
        return f"{self.key}_disturbed"

    def __deepcopy__(self, memo: dict) -> Plan:
        """Itself: packs copy a model's options deeply, and the functions in them go on knowing this one."""
        return self

    def start_sampling(self) -> None:
        """Forget what was kept of the sampling before."""
        for call in self.calls.values():
            call.without_options = call.failed = False
        self.said.clear()

    @property
    def blocks(self) -> tuple[int, ...]:
        """The positions of the chosen blocks."""
        return tuple(self.chosen)

    def scale(self, position: int) -> float:
        """The strength in a chosen block, or of the merge: its own, or the node's."""
        own = self.chosen[position].scale if self.merge is None else None
        return self.settings.scale if own is None else own

    def perturbation(self, position: int) -> float:
        """How much of the negative attention a branch has in a chosen block, u, at most all of it.

        The branch is merged by the node's scale s, so a block's own scale is a share of that. Inside the attention it
        would be the same: own · u (Z⁺ − Z⁻) = s (Z⁺ − ((1 − v) Z⁺ + v Z⁻)) with v = u · own / s.
        """
        own = self.chosen[position].scale
        share = 1.0 if own is None else own / self.settings.scale
        return min(1.0, self.settings.perturbation * share)

    @property
    def acts(self) -> bool:
        """True where it changes anything."""
        elsewhere = self.settings.carries_negative and not self.settings.in_attention
        return not self.settings.off and (bool(self.chosen) or elsewhere)

    @property
    def disturbs(self) -> bool:
        """True where the attention is disturbed in some block."""
        return bool(self.chosen) and self.settings.perturbation > 0

    @property
    def at_prediction(self) -> bool:
        """True where the branch is a whole evaluation of the model, merged into what the sampler is given."""
        return self.merge == self.depth

    @property
    def beside_blocks(self) -> bool:
        """True where the branch runs beside the model's blocks; merged in the attention, if it carries a prompt."""
        return not self.at_prediction and (self.merge is not None or self.settings.carries_negative)

    @property
    def holds_each_block(self) -> bool:
        """True where a difference is held for each chosen block."""
        return self.merge is None and self.renews

    @property
    def start(self) -> int:
        """Where the branch, or guidance, starts: with the text of a negative prompt in the first block."""
        return 0 if self.settings.carries_negative else self.blocks[0]

    @property
    def positions(self) -> tuple[int, ...]:
        """The blocks that are replaced: the chosen ones, or all that a branch beside the blocks runs through."""
        if not self.beside_blocks:
            return self.blocks
        last = self.blocks[-1] if self.merge is None else self.merge
        return tuple(range(self.start, last + 1))

    def needed(self, carried: bool) -> set[int]:
        """The blocks without which guidance is not what was asked for. carried: whether there was a negative prompt."""
        if self.merge is None:
            return {self.start, *self.blocks} if carried else set(self.blocks)
        if self.at_prediction:
            return set() if carried else set(self.blocks)
        return {self.start, self.merge} if carried else {*self.blocks, self.merge}

    @property
    def renews(self) -> bool:
        """True where differences are kept from one step to the next."""
        return (self.merge is not None or self.settings.carries_negative) and self.settings.renew_every != 1

    def slot(self, position: int) -> tuple[str, int]:
        """The key of a block in the host's table of replacements."""
        if position < self.double_blocks:
            return self.family.slots[0], position
        return self.family.slots[1], position - self.double_blocks

    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """The tokens of a latent of this shape, (height, width), a video's frames below one another."""
        frames, height, width = (-(-size // of) for size, of in zip((1, *shape[2:])[-3:], self.patch, strict=True))
        return frames * height, width

    def name(self, position: int) -> str:
        """A position as a block, in words."""
        if position == self.depth:
            return "prediction"
        return self.family.naming.block(position, self.double_blocks)

    @property
    def merged(self) -> str:
        """Where a branch is merged, in words."""
        if self.at_prediction:
            return "merged at the prediction"
        if self.merge is None:
            return "merged in the attention of each" if self.settings.carries_negative else ""
        return f"merged after {self.name(self.merge)}"

    def names(self, positions: Iterable[int]) -> str:
        """The same of several."""
        return ", ".join(map(self.name, positions))

    def words(self, blocks: Iterable[Block]) -> str:
        """Blocks with their scales and heads, in words."""
        return blocks_name(blocks, self.family.naming)


def replacements(transformer_options: dict) -> dict:
    """The host's table of block replacements."""
    return transformer_options.get("patches_replace", {}).get("dit", {})
