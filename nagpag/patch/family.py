"""What the rest of this package knows of a family of models: one description, and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ..naming import Naming


@dataclass(frozen=True)
class Family:
    """A family of models, which have the same blocks and whose forwards call them in the same way.

    name, models: in words. classes: ComfyUI's classes of the diffusion model, with their modules.
    naming: what its blocks are called. stacks: the attributes in which the model holds them, in its order; slots: what
    the host's table of replacements calls them, none where no block can be replaced and only the attention is reached.
    heads: how many a block has; patch: the size of a token in the latent, (frames, height, width). no_branch: why none
    can run beside its blocks. shape: of a latent, of that and the host's arguments of a forward; runs: whether the
    blocks work on it, of the host's options.

    The attention of a block that is guided is its first call. joint: whether the text stands in its sequence, before
    the picture, or behind it where picture_first. ahead: how many tokens of references stand before the picture in the
    picture's own stream, of the model and the host's arguments of a forward; given_frames: how many of a video's first
    frames are the user's, and stand there as well; last_frames: how many of its last ones are; keyframes: how many of a
    latent's last tokens are, where those are no whole frames in the model.
    sequence_end: for a family without slots, how many tokens the picture has in the attention's sequence with what
    fills it up; they end it; None where the host says where the picture begins (img_slice). counted: whether the host
    does not say there which block is at work. picture_last: whether the picture ends the sequence of single blocks,
    where the host does not say where it begins. clip_first: whether tokens of a picture, as CLIP sees it, may stand
    before the text's.

    project: the text as blocks take it, (rows, tokens, hidden), of the model and a context, with registers where a
    model puts them there. refine: in its place where the text hangs on the step, of the model and the host's arguments
    of a forward, "timestep" among them. texts: which of these are a prompt's own text. pooled: what a prompt's pooled
    vector adds to the modulation vector, (rows, hidden), of the model and that vector, where that is not done FLUX's
    way. ids: of the text's positions, of the model, the text and the latent; None where it has no positions;
    ids_by_latent: whether they hang on the latent's shape; embedder: what in the model makes rotary positions of them.
    mask: the name of the attention mask among a block's arguments; None where the host keeps it to itself;
    prepare_mask: what a block is given of a prompt's, of the model, that mask, the text and the latent. doubled_vec:
    whether the modulation vector may have twice the rows, those for references after all others. text_is_fixed: whether
    the blocks know the picture's place by the prompt's length, out of our reach, of the model, the host's arguments and
    whether the branch reaches into the second stack.
    """

    name: str
    models: str
    classes: tuple[str, ...]
    naming: Naming
    stacks: tuple[str, ...]
    slots: tuple[str, ...]
    heads: Callable[[Any], int]
    patch: Callable[[Any], tuple[int, int, int]]
    no_branch: str = ""
    shape: Callable[[Tensor, dict], Sequence[int]] = lambda x, given: x.shape
    runs: Callable[[dict], bool] = lambda options: True
    joint: bool = True
    picture_first: bool = False
    ahead: Callable[[Any, dict], int] = lambda model, given: 0
    given_frames: Callable[[dict], int] = lambda given: 0
    last_frames: Callable[[dict], int] = lambda given: 0
    keyframes: Callable[[dict], int] = lambda given: 0
    sequence_end: Callable[[Any, int], int] | None = None
    counted: bool = False
    picture_last: bool = False
    clip_first: bool = False
    project: Callable[[Any, Tensor], Tensor] | None = None
    refine: Callable[[Any, dict], Tensor] | None = None
    texts: tuple[str, ...] = ("c_crossattn",)
    ids: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    ids_by_latent: bool = False
    embedder: str = "pe_embedder"
    mask: str | None = None
    prepare_mask: Callable[[Any, Tensor | None, Tensor, Tensor], Tensor | None] = lambda model, mask, txt, x: mask
    doubled_vec: bool = False
    pooled: Callable[[Any, Tensor], Tensor | None] | None = None
    text_is_fixed: Callable[[Any, dict, bool], bool] = lambda model, given, second: False

    @property
    def reaches(self) -> tuple[str, ...]:
        """The words of `reach` that work."""
        beside = () if self.why_no_branch else ("double blocks", "output")
        return ("attention", *beside, "prediction")

    @property
    def why_no_branch(self) -> str:
        """Why no branch can run beside its blocks, empty where one can."""
        return self.no_branch if self.slots else "ComfyUI lets nothing stand in a block's place there"


class Found(NamedTuple):
    """A diffusion model and its family."""

    family: Family
    model: Any

    @property
    def depths(self) -> tuple[int, int]:
        """How many blocks it has of the first kind, and of the second."""
        first, second = (*(len(getattr(self.model, name)) for name in self.family.stacks), 0)[:2]
        return first, second

    @property
    def heads(self) -> int:
        """How many heads a block has."""
        return self.family.heads(self.model)
