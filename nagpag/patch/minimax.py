"""The description of MiniMax H3, in whose one sequence the sound stands between text and video."""

from __future__ import annotations

from typing import Any

from .. import naming
from .family import Family, not_filled, video_shape


def _between(model: Any, given: dict) -> int:
    """How many tokens of keyframes, references and sound stand between the text and the video."""
    parts = given["minimax_payload"]["layout"].segments
    return sum(end - start for start, end, kind in parts if kind not in ("text", "video"))


MINIMAX_H3 = Family(
    name="MiniMax H3",
    models="MiniMax H3 (video with sound)",
    classes=("comfy.ldm.minimax.model.MiniMaxH3Model",),
    naming=naming.MINIMAX_H3,
    stacks=("blocks",),
    slots=(),
    no_branch="its blocks take one sequence of text, sound and video, without rows",
    heads=lambda model: model.blocks[0].attn.heads,
    patch=lambda model: model.patch_size,
    shape=video_shape,
    ahead=_between,
    sequence_end=not_filled,
    counted=True,
)
