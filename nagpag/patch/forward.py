"""One forward of the model: which rows and tokens are guided at this step, and what the blocks leave behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .copies import Copies
from .run import NegativeText, Run

# Marks the options of what is worked out for a negative branch: other applications of the node leave it alone.
NEGATIVE_MARK = "nag_pag_negative"


@dataclass(eq=False)
class Chunk:
    """The rows of one condition in a forward's batch, conditional or not, that are guided.

    index: its place among the forward's conditions, None where the rows are those of all. evaluation: under which its
    difference is kept, None where it can't be. difference: h⁻ − h⁺ kept from an earlier step, where it stands in for
    the branch; differences: Z⁻ − Z⁺ by block, where the branch is merged in the attention. stream: the negative stream
    in which its branch runs, until that is merged or given up. renewed, renewed_in: the new ones, to be kept. text: of
    the negative prompt that the branch carries, None where it carries the prompt's own; shift: what that adds to the
    modulation vector, (1 or rows, hidden).
    """

    rows: slice
    condition: tuple | None
    index: int | None = None
    evaluation: Hashable | None = None
    difference: Tensor | None = None
    differences: dict[int, Tensor] = field(default_factory=dict)
    stream: Stream | None = None
    renewed: Tensor | None = None
    renewed_in: dict[int, Tensor] = field(default_factory=dict)
    text: NegativeText | None = None
    shift: Tensor | None = None

    @property
    def size(self) -> int:
        """How many rows it has."""
        return self.rows.stop - self.rows.start

    @property
    def reuses(self) -> bool:
        """Whether what was kept stands in for its branch."""
        return self.difference is not None or bool(self.differences)

    def end_branch(self) -> None:
        """The branch has been merged, or is given up."""
        self.stream = None

    def free(self) -> None:
        """The forward has ended: keep no tensor."""
        if self.stream is not None:
            self.stream.free()
        self.end_branch()
        self.difference = self.renewed = self.text = self.shift = None
        self.differences, self.renewed_in = {}, {}


@dataclass(eq=False)
class Stream:
    """A negative stream between blocks: the branches of one chunk, or of several that run in one batch.

    rows: of the forward's batch. index: as a chunk's. chunks: those whose branch it is; the other rows are undisturbed,
    and there because another patch looks at the batch as a whole. copies: what other patches keep, for this stream;
    copied: their functions, and lists of such, each with this stream's own.
    img and txt, (rows, image or text tokens, hidden), between double blocks; joined, (rows, text and image tokens,
    hidden), between single ones; pe: the rotary positions of its sequence, where they are its own. left: the positive
    stream as it left the last block, under the host's names; watched: whether that is a copy, as others may have
    changed it in place before the next block.
    """

    rows: slice
    index: int | None
    chunks: tuple[Chunk, ...]
    copies: Copies
    copied: list[tuple[Any, Any]] = field(default_factory=list)
    img: Tensor | None = None
    txt: Tensor | None = None
    joined: Tensor | None = None
    pe: Tensor | None = None
    left: dict[str, Tensor] = field(default_factory=dict)
    watched: bool = False

    def free(self) -> None:
        """The forward has ended: keep no tensor."""
        self.img = self.txt = self.joined = self.pe = None
        self.left, self.copied = {}, []

    def copy(self, patches: list[Any]) -> None:
        """Have copies of other patches' functions, and of lists of such."""
        self.copies.begin()
        self.copied = []
        for patch in patches:
            own = [self.copies.of(each) for each in patch] if isinstance(patch, list) else self.copies.of(patch)
            self.copied.append((patch, own))

    def catch_up(self) -> None:
        """Before a block: copy what other patches have kept since, for instance how often they were called."""
        if self.copies.keep:
            self.copy([original for original, _ in self.copied])

    def own(self, patch: Any) -> Any:
        """This stream's own of another patch's function, or of a list of such."""
        for original, own in self.copied:
            if original is patch:
                return own
        return patch

    @property
    def text(self) -> NegativeText | None:
        """Of the negative prompt that its branches carry, the same one for all."""
        return self.chunks[0].text

    def rows_in(self, chunk: Chunk) -> slice:
        """A chunk's rows among the stream's own."""
        return slice(chunk.rows.start - self.rows.start, chunk.rows.stop - self.rows.start)

    @property
    def mixed(self) -> bool:
        """Whether there are rows that no branch has."""
        return sum(chunk.size for chunk in self.chunks) < self.rows.stop - self.rows.start


class Merge(NamedTuple):
    """One guided merge, measured for a record (see `record.measure`): numbers (5,), moved (picture tokens,).

    first: whether it is the first condition's, whose picture is shown.
    """

    position: int
    reused: bool
    first: bool
    numbers: Tensor
    moved: Tensor


@dataclass(eq=False)
class Visit:
    """What a forward leaves behind in one block.

    reached: it was called, knowing this forward; failed: guidance is given up here. asked: its attention was to be
    guided or disturbed; heard: it was so. guided: something was merged here; statistics, merges: see `Forward`.
    torch.compile compiles anew wherever Python's state is another one: so each block has a state of its own, the same
    in each of them before it is called, where a set of blocks would grow from one to the next.
    """

    position: int
    failed: bool = False
    reached: bool = False
    asked: bool = False
    heard: bool = False
    guided: bool = False
    statistics: tuple[tuple[Tensor, Tensor], ...] = ()
    merges: tuple[Merge, ...] = ()

    def expect(self) -> None:
        """A call of the block begins in which the first attention is to be guided or disturbed.

        A second one within it is not the block's own: what an adapter adds, or other blocks wrapped in this one.
        """
        self.asked, self.heard = True, False


@dataclass(eq=False)
class Forward:
    """What the blocks need to know of this forward, and what they leave behind.

    chunks: the rows to be guided, none where guidance is off at this step. batch: rows in all.
    grid: the picture being made, (height, width) in tokens, a video's frames below one another; they come first among
    the image tokens, save for `ahead` tokens of references and given frames. joint: whether the attention's sequence
    has the text, which begins it, or ends it where picture_first. prompt_tokens: of the prompt's text, as the host
    gives it to the model. recorded: whether every merge is measured for a record; else statistics has the two numbers
    of the log line.
    start: the block in which the negative branch starts, None where there is none; meets: whether it is merged in each
    chosen block's attention, and goes on from there.
    y: what the schedule multiplies the scale by at this step, as a number for reports; strength: the same as the
    blocks use it, a tensor of no axes on the device where it changes from step to step: a number that changes
    would be compiled in, anew at each step. txt_tokens: as a block says it, None before. counted: blocks
    that were at work, where the host does not say which. visits: what the blocks leave
    behind, by position.
    """

    chunks: tuple[Chunk, ...]
    batch: int
    grid: tuple[int, int]
    sigmas: Tensor | None
    run: Run
    recorded: bool
    joint: bool = True
    picture_first: bool = False
    ahead: int = 0
    prompt_tokens: int = 0
    start: int | None = None
    meets: bool = False
    y: float = 1.0
    strength: float | Tensor = 1.0
    txt_tokens: int | None = None
    counted: int = 0
    visits: dict[int, Visit] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict) -> Forward:
        """Itself, as its run: what a pack copies deeply goes on reporting here."""
        return self

    @property
    def reached(self) -> set[int]:
        """The blocks that were called."""
        return {position for position, visit in self.visits.items() if visit.reached}

    @property
    def guided(self) -> set[int]:
        """The blocks in which something was merged."""
        return {position for position, visit in self.visits.items() if visit.guided}

    @property
    def statistics(self) -> list[tuple[Tensor, Tensor]]:
        """The two numbers of each merge for the log line."""
        return [pair for visit in self.visits.values() for pair in visit.statistics]

    @property
    def merges(self) -> list[Merge]:
        """Each merge as measured for a record."""
        return [merge for visit in self.visits.values() for merge in visit.merges]

    @property
    def tokens(self) -> int:
        """How many tokens the picture being made has."""
        return self.grid[0] * self.grid[1]

    @property
    def streams(self) -> list[Stream]:
        """The negative streams that run now, each once."""
        streams: list[Stream] = []
        for chunk in self.chunks:
            if chunk.stream is not None and all(chunk.stream is not stream for stream in streams):
                streams.append(chunk.stream)
        return streams

    @property
    def text_tokens(self) -> int:
        """How many text tokens stand in the attention's sequence, before all others."""
        if not self.joint or self.picture_first:
            return 0
        if self.txt_tokens is None:
            raise ValueError("this model's forward does not say how many text tokens there are (img_slice)")
        return self.txt_tokens

    @property
    def text(self) -> slice:
        """The text's tokens there."""
        if self.picture_first:
            return slice(self.picture.stop, self.picture.stop + (self.txt_tokens or 0))
        return slice(0, self.text_tokens)

    @property
    def picture(self) -> slice:
        """The picture's tokens in the attention's sequence."""
        return self._picture_behind(self.text_tokens)

    @property
    def picture_in_img(self) -> slice:
        """The picture's tokens among the image tokens."""
        return self._picture_behind(0)

    def picture_of(self, stream: Stream) -> slice:
        """The picture's tokens in the attention's sequence with the text that this stream carries."""
        if stream.text is None or not self.joint or self.picture_first:
            return self.picture
        return self._picture_behind(stream.text.tokens)

    def _picture_behind(self, text: int) -> slice:
        return slice(text + self.ahead, text + self.ahead + self.tokens)


def rows_of(rows: slice, batch: int) -> Callable:
    """A function that takes these rows of whatever has a batch axis, tensors within tuples and dataclasses too."""
    if rows == slice(0, batch):
        return lambda value: value

    def own(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows] if value.ndim and value.shape[0] == batch else value
        if isinstance(value, (tuple, list)):
            return type(value)(own(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):  # the host's ModulationOut
            return dataclasses.replace(
                value, **{f.name: own(getattr(value, f.name)) for f in dataclasses.fields(value)}
            )
        return value

    return own


def rows_of_doubled(rows: slice, batch: int) -> Callable:
    """The same for a modulation vector that may have twice the rows: those for references stand behind all others."""
    own = rows_of(rows, batch)

    def own_vec(vec: Any) -> Any:
        if isinstance(vec, Tensor) and vec.shape[0] == 2 * batch:
            return torch.cat([own(half) for half in vec.chunk(2)])
        return own(vec)

    return own_vec


def options_of(part: Chunk | Stream, options: dict) -> dict:
    """The options for what is worked out for a negative branch: its rows, and marked as such."""
    own = {**options, NEGATIVE_MARK: True}
    for name in ("cond_or_uncond", "uuids"):
        if name in own and part.index is not None:
            own[name] = own[name][part.index : part.index + 1]
    return own
