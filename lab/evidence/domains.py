"""The kinds of pictures that evidence is made on: for each, who asks for them and who judges them."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from . import (
    emoji_cnn,
    emoji_judges,
    emoji_lessons,
    emoji_prompts,
    emoji_templates,
    judge_cnn,
    judge_lessons,
    judge_templates,
    judges,
    open_prompts,
)


@dataclass(frozen=True)
class Domain:
    """prompts: a module like `open_prompts`; judges: one like `judges`; verdicts: all that decides what these say."""

    name: str
    prompts: ModuleType
    judges: ModuleType
    verdicts: tuple[ModuleType, ...]


SHAPES = Domain("coloured shapes", open_prompts, judges, (judges, judge_cnn, judge_lessons, judge_templates))
EMOJI = Domain("emoji", emoji_prompts, emoji_judges, (emoji_judges, emoji_cnn, emoji_lessons, emoji_templates))
DRAWN = {"": SHAPES, "emoji": EMOJI}  # by the words of toy.models
