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

    The attention of a block that is guided is its first call. `model` is the diffusion model, `given` the host's
    arguments of a forward by name, `x` the latent.
    """

    name: str
    models: str  # which they are, in words
    classes: tuple[str, ...]  # ComfyUI's of the diffusion model, with their modules
    naming: Naming  # what the blocks are called
    stacks: tuple[str, ...]  # the attributes in which the model holds its blocks, in its order; none: nobody knows them
    # What the host's table of replacements calls them; none where no block can be replaced, only the attention reached.
    slots: tuple[str, ...]
    heads: Callable[[Any], int]  # how many a block has
    patch: Callable[[Any], tuple[int, int, int]]  # the size of a token in the latent, (frames, height, width)
    # Of a token between the blocks, in numbers; where a branch can meet each block's attention.
    width: Callable[[Any], int] = lambda model: 0
    no_branch: str = ""  # why none can run beside its blocks, where that is not for want of slots
    shape: Callable[[Tensor, dict], Sequence[int]] = lambda x, given: x.shape  # of the latent that blocks work on
    runs: Callable[[dict], bool] = lambda options: True  # whether they do, by the host's options of a forward

    # --- where the picture's tokens are ---

    joint: bool = True  # whether the text stands in the attention's sequence, before the picture
    picture_first: bool = False  # or behind it
    # How many tokens of references stand before the picture in the picture's own stream.
    ahead: Callable[[Any, dict], int] = lambda model, given: 0
    given_frames: Callable[[dict], int] = lambda given: 0  # how many of the first frames are the user's; there as well
    last_frames: Callable[[dict], int] = lambda given: 0  # and how many of the last ones
    # How many of the latent's last tokens are keyframes, where those are no whole frames in the model.
    keyframes: Callable[[dict], int] = lambda given: 0
    # Without slots: how many tokens the picture of so many has in the attention's sequence with what fills it up; they
    # end it. None where the host says where the picture begins (img_slice).
    sequence_end: Callable[[Any, int], int] | None = None
    counted: bool = False  # without slots: whether the host does not say which block is at work
    # Whether the picture ends the sequence of single blocks, where the host does not say where it begins.
    picture_last: bool = False
    clip_first: bool = False  # whether tokens of a picture, as CLIP sees it, may stand before the text's

    # --- what the blocks take of a prompt ---

    # The text as they take it, (rows, tokens, hidden), of a context; with registers where a model puts them there.
    project: Callable[[Any, Tensor], Tensor] | None = None
    # In its place where the text hangs on the step; "timestep" is among `given`.
    refine: Callable[[Any, dict], Tensor] | None = None
    texts: tuple[str, ...] = ("c_crossattn",)  # which of `given` are a prompt's own text
    # Of the text's positions, of the model, the text and the latent; None where it has no positions.
    ids: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    ids_by_latent: bool = False  # whether they hang on the latent's shape
    embedder: str = "pe_embedder"  # what in the model makes rotary positions of them
    mask: str | None = None  # the attention mask among a block's arguments; None where the host keeps it to itself
    # What a block is given of a prompt's mask, of the model, that mask, the text and the latent.
    prepare_mask: Callable[[Any, Tensor | None, Tensor, Tensor], Tensor | None] = lambda model, mask, txt, x: mask
    doubled_vec: bool = False  # whether the modulation vector may have twice the rows, those for references at the end
    # What a prompt's pooled vector adds to the modulation vector, (rows, hidden), where that is not done FLUX's way.
    pooled: Callable[[Any, Tensor], Tensor | None] | None = None
    # Whether the blocks know the picture's place by the prompt's length, out of our reach; of the model, `given` and
    # whether the branch reaches into the second stack.
    text_is_fixed: Callable[[Any, dict, bool], bool] = lambda model, given, second: False

    @property
    def reaches(self) -> tuple[str, ...]:
        """The words of `reach` that work."""
        attention = ("attention",) if self.stacks else ()
        beside = () if self.why_no_branch else ("double blocks", "output")
        return (*attention, *beside, "prediction")

    @property
    def why_no_branch(self) -> str:
        """Why no branch can run beside its blocks, empty where one can."""
        return self.no_branch or ("" if self.slots else "ComfyUI lets nothing stand in a block's place there")


class Found(NamedTuple):
    """A diffusion model and its family. why: it is of no family whose blocks are known, in words; empty otherwise."""

    family: Family
    model: Any
    why: str = ""

    @property
    def depths(self) -> tuple[int, int]:
        """How many blocks it has of the first kind, and of the second."""
        first, second = (*(len(getattr(self.model, name)) for name in self.family.stacks), 0, 0)[:2]
        return first, second

    @property
    def heads(self) -> int:
        """How many heads a block has."""
        return self.family.heads(self.model)


# --- what several entries work out in the same way ---


def square(model: Any) -> tuple[int, int, int]:
    """A token of a picture: as wide as high."""
    return 1, model.patch_size, model.patch_size


def not_filled(model: Any, tokens: int) -> int:
    """In the attention's sequence nothing fills the picture up."""
    return tokens


def frames_given(mask: Tensor) -> int:
    """How many of the first frames a noise mask, (rows, channels, frames, height, width), gives whole."""
    made = mask.amax(dim=(0, 1, 3, 4)).tolist()
    return next((frame for frame, most in enumerate(made) if most > 0), 0)


def video_shape(x: Tensor, given: dict) -> Sequence[int]:
    """Of the video's latent: the host packs it together with the sound."""
    shapes: list[Sequence[int]] = given.get("latent_shapes") or []
    return shapes[0] if len(shapes) > 1 else x.shape
