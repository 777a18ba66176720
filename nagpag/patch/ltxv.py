"""The descriptions of LTXV, and of LTX-2, which makes sound with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from .. import naming
from .family import Family, frames_given, video_shape


def _keyframes(given: dict) -> int:
    """How many tokens keyframes have, which stand behind the frames being made, in the latent as well."""
    places = given.get("keyframe_idxs")
    return 0 if places is None else places.shape[2]


def _given_frames(given: dict) -> int:
    """How many of the first frames are the user's: the picture that a video begins with."""
    mask = given.get("denoise_mask")
    if mask is None:
        return 0
    return frames_given(mask[:, :, : mask.shape[2] - _keyframes(given) // mask[0, 0, 0].numel()])


def _project(model: Any, context: Tensor) -> Tensor:
    projected = getattr(model, "caption_proj_before_connector", False)
    return context if projected else model.caption_projection(context)


def _mask(model: Any, mask: Tensor | None, txt: Tensor, x: Tensor) -> Tensor | None:
    """A text's attention mask, (rows, 1, 1, text tokens), to be added."""
    return model._prepare_attention_mask(mask, txt.dtype)


# A mask that weakens keyframes splits the attention guided: its first call is that of all frames being made.
LTXV = Family(
    name="LTXV",
    models="LTX-Video 0.9 (text and image to video)",
    classes=("comfy.ldm.lightricks.model.LTXVModel",),
    naming=naming.LTXV,
    stacks=("transformer_blocks",),
    slots=("double_block",),
    heads=lambda model: model.num_attention_heads,
    patch=lambda model: (1, 1, 1),
    joint=False,
    given_frames=_given_frames,
    keyframes=_keyframes,
    project=_project,
    mask="attention_mask",
    prepare_mask=_mask,
)


# The first attention of a block is the video's of itself, but where only sound is made.
LTX2 = replace(
    LTXV,
    name="LTX-2",
    models="LTX-2 and 2.3 (video with sound)",
    classes=("comfy.ldm.lightricks.av_model.LTXAVModel",),
    naming=naming.LTX2,
    no_branch="its blocks work on video and sound at once",
    shape=video_shape,
    runs=lambda options: options.get("run_vx", True),
)
