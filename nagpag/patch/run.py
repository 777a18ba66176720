"""One sampling run: what has happened in it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from ..schedule import USUAL_STEPS, Steps
from ..settings import Settings
from .copies import Copies
from .plan import Plan


@dataclass(eq=False)
class NegativeText:
    """A negative prompt as the blocks take it.

    txt: (1 or rows, text tokens, hidden), after the model's own projection. pe: the text's rotary positions, (1, 1,
    text tokens, …), None where it has none; shape: of the latent that they hold for, without rows and channels, empty
    where they hold for any. pooled: its part of the modulation vector, (1 or rows, hidden), None where the family has
    none. mask: its attention mask, None where it has none.
    """

    txt: Tensor
    pe: Tensor | None
    pooled: Tensor | None
    mask: Tensor | None
    shape: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """How many text tokens it has."""
        return self.txt.shape[1]


class Kept(NamedTuple):
    """The noise level at which it was computed, and h⁻ − h⁺ at the merge, (rows, picture tokens, hidden).

    differences: where the branch is merged in the attention, Z⁻ − Z⁺ by block, (rows, picture tokens, heads, head_dim).
    """

    sigma: float
    difference: Tensor | None
    differences: dict[int, Tensor] = {}  # noqa: RUF012


class KeptNoise(NamedTuple):
    """v⁻ − v⁺ at the prediction, (batch, channels, …), what evaluation computed it, and its noise level if known."""

    difference: Tensor
    evaluation: int
    sigma: float | None


@dataclass(eq=False)
class Run:
    """What has happened in one sampling run. Of tensors it keeps scalars, and the differences kept for renewal.

    prompts: the identities of the conditions that are the prompt's, as the guider has them; negatives: of those of the
    negative prompt that the branch carries. conditional: which of the
    numbered lists of conditions now worked out are; rows: how many rows each condition has. unclear: forwards whose
    rows nobody told apart. against: the conditions of the negative prompt that the branch carries, as the host has
    worked them out; text: what the blocks take of it, made from the tensor text_of. heard_negative: what is odd about
    it was said; zeroed: it is all zeros, and counts as none; carried: there was one. schedule: the sampler's sigmas,
    (steps + 1,), None where nobody says. sigma: of the forward going on, where it is needed as a number. differences:
    those kept for renewal, by evaluation (see `renewal`); held: those at the prediction, by conditions; pushes: what
    was added to the prompt's prediction in this evaluation, by the part of the latent; unmoved: the parts whose
    negative prompt's prediction was handed out before (see `prediction`); turns: how often what came in the evaluation
    going on, and evaluation counts these; untold: forwards that had to compute their branch as nobody said which of
    several they are (tiles); latent: that the sampler has; areas: the identities of conditions that hold for an area of
    it. copies: what other patches keep, for each negative stream, by its conditions. unguarded: whether torch.compile
    would run what it compiled for other patches, so that it is left out. begun: forwards that the host called;
    forwards: those that ended well. asked: evaluations of the sampler that passed by where the prediction is guided.
    said: what was warned of in blocks; blind: blocks that were called without options. ended: how the sampling ended,
    in words, empty where it went well.
    """

    prompts: set[Hashable] = field(default_factory=set)
    negatives: set[Hashable] = field(default_factory=set)
    areas: set[Hashable] = field(default_factory=set)
    conditional: set[int] = field(default_factory=lambda: {0})
    rows: int = 0
    unclear: int = 0
    tried: bool = False
    complained: bool = False
    against: list[dict] = field(default_factory=list)
    heard_negative: bool = False
    zeroed: bool = False
    carried: bool = False
    text: NegativeText | None = None
    text_of: Tensor | None = None
    guided: set[int] = field(default_factory=set)
    schedule: Tensor | None = None
    steps: Steps | None = None
    sigma: float | None = None
    latent: Tensor | None = None
    differences: dict[Hashable, Kept] = field(default_factory=dict)
    held: dict[tuple, KeptNoise] = field(default_factory=dict)
    pushes: dict[Hashable, Tensor] = field(default_factory=dict)
    unmoved: set[Hashable] = field(default_factory=set)
    turns: dict[Hashable, int] = field(default_factory=dict)
    evaluation: int = 0
    untold: int = 0
    copies: dict[Hashable, Copies] = field(default_factory=dict)
    unguarded: bool = False
    begun: int = 0
    asked: int = 0
    forwards: int = 0
    said: set[str] = field(default_factory=set)
    blind: set[int] = field(default_factory=set)
    ended: str = ""
    guided_sigmas: list[Tensor] = field(default_factory=list)
    renewed_sigmas: list[Tensor] = field(default_factory=list)
    reached: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    statistics: list[Tensor] = field(default_factory=list)

    def __deepcopy__(self, memo: dict) -> Run:
        """Itself: packs copy a model's options deeply while it samples, and this is of one sampling."""
        return self

    @property
    def negative(self) -> dict | None:
        """What the host has worked out of the negative prompt, the first one where there are several; None of none."""
        return self.against[0]["model_conds"] if self.against else None

    def begin_evaluation(self) -> None:
        """The sampler, or a step of it, asks for its conditions anew."""
        self.turns.clear()
        self.pushes.clear()
        self.unmoved.clear()
        self.evaluation += 1

    def at(self, sigma: float | None) -> None:
        """A forward begins at this noise level."""
        if sigma is not None and self.sigma is not None and sigma > self.sigma and self._known_steps().rises:
            self.forget_differences()  # after a restart what was computed at lower noise is no stand-in
        if sigma != self.sigma:
            self.begin_evaluation()
        self.sigma = sigma

    def forget_differences(self) -> None:
        """What was computed before is no stand-in for what comes."""
        self.differences.clear()
        self.held.clear()

    def renewed_every(self, settings: Settings) -> int:
        """At every how many of the sampler's steps the branch is computed; of the usual number where unknown."""
        return settings.renewed_every(USUAL_STEPS if self.schedule is None else len(self.schedule) - 1)

    def steps_between(self, sigma: float) -> int:
        """How many of the sampler's steps lie between `sigma` and the forward going on."""
        return self._known_steps().between(sigma, sigma if self.sigma is None else self.sigma)

    def _known_steps(self) -> Steps:
        if self.steps is None:
            self.steps = Steps(() if self.schedule is None else self.schedule.tolist())
        return self.steps

    def free(self) -> None:
        """The sampling has ended: keep no large tensor."""
        self.forget_differences()
        self.pushes.clear()
        self.copies.clear()
        self.text = self.text_of = self.latent = None
        self.against = []

    def guided_blocks(self, plan: Plan) -> list[int]:
        """The chosen blocks in which guidance worked, by position; of a longer reach, those that its branch passed."""
        if plan.merge is None:
            return sorted(self.guided & set(plan.blocks))
        disturbed = plan.settings.perturbation > 0 and not self.carried and plan.merge in self.guided
        return sorted(self.reached & set(plan.blocks)) if disturbed else []
