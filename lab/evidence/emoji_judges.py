"""What a picture of an emoji is worth: two judges that know nothing of each other, and the plain measures of `judges`.

The parts and functions are those of `judges`, so that what runs the evidence takes either. A picture is right when it
shows what its caption tells, whole: the concept (or one of its kind), the vendor, the place, the size and the ground;
of what the caption leaves open nothing is asked. `read` says what each judge sees there, for prompts that forbid
something.
"""

from __future__ import annotations

from functools import cache

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from .. import host
from ..toy import emoji
from . import emoji_cnn, emoji_templates
from .emoji_lessons import BROKEN, SIDE
from .judges import Scores, diversity, frechet, saturation, sharpness

__all__ = ["Scores", "diversity", "frechet", "held_out_accuracy", "read", "real_pictures", "real_reference", "score"]

# Seeds of scenes that no model and no judge learned from; see emoji_cnn.Recipe.
HELD_OUT_SEED, REFERENCE_SEED = 2_001, 2_002
REFERENCE_COUNT = 4_096


def score(pictures: Tensor, scenes: list[emoji.Scene]) -> Scores:
    """Judge small pictures (n, 3, SIDE, SIDE) against the scenes they were asked to show.

    template_fit: how much of the picture the best drawing explains that the caption allows. Raises ValueError where
    pictures and scenes don't belong together or a picture has a value that is no number.
    """
    pictures = _checked(pictures, scenes)
    features = features_of(pictures)
    fit = emoji_templates.fit(pictures)
    return Scores(
        objects=torch.ones(len(scenes), dtype=torch.long),
        cnn_right=right(_seen_by_cnn(features), scenes).long(),
        template_right=right(_seen_by_templates(fit), scenes).long(),
        template_fit=torch.where(_allowed(scenes), fit.share, -1.0).amax(1),
        saturation=saturation(pictures),
        sharpness=sharpness(pictures),
        features=features,
    )


def read(pictures: Tensor) -> dict[str, dict[str, Tensor]]:
    """What each judge sees in small pictures: "cnn" and "template", of each the parts as in emoji.PARTS, (n,).

    The concept is len(emoji.CONCEPTS) where there is no whole one.
    """
    pictures = pictures.float().clamp(0, 1)
    fit = emoji_templates.fit(pictures)
    return {"cnn": _seen_by_cnn(features_of(pictures)), "template": _seen_by_templates(fit)}


@torch.no_grad()
def features_of(pictures: Tensor) -> Tensor:
    """The CNN's features of pictures in [0, 1], (n, FEATURES)."""
    judge = emoji_cnn.load()
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    return torch.cat([judge(part) for part in pictures.split(512)])


@torch.no_grad()
def _seen_by_cnn(features: Tensor) -> dict[str, Tensor]:
    return {part: head(features).argmax(1) for part, head in emoji_cnn.load().heads.items()}


def _seen_by_templates(fit: emoji_templates.Fit) -> dict[str, Tensor]:
    seen = {part: getattr(fit, part) for part in emoji.PARTS}
    return seen | {"concept": torch.where(fit.whole, fit.concept, BROKEN)}


def right(seen: dict[str, Tensor], scenes: list[emoji.Scene]) -> Tensor:
    """Whether all that the captions tell is there, (n,). seen: what one judge sees, of `read`."""
    # One more column, for no whole one, is never allowed.
    found = functional.pad(_allowed(scenes), (0, 1)).gather(1, seen["concept"][:, None])[:, 0]
    for part in emoji.PARTS:
        if part != "concept":
            asked = torch.tensor([getattr(scene, part) for scene in scenes])
            open_ = torch.tensor([part not in scene.told for scene in scenes])
            found &= (seen[part] == asked) | open_
    return found


def _allowed(scenes: list[emoji.Scene]) -> Tensor:
    """Which concepts each caption allows: the one it names, or all of the kind it names, (n, CONCEPTS)."""
    kinds = torch.tensor(emoji.KIND_OF)
    concepts = torch.tensor([scene.concept for scene in scenes])
    of_kind = kinds[concepts][:, None] == kinds
    named = functional.one_hot(concepts, len(emoji.CONCEPTS)).bool()
    told = torch.tensor(["concept" in scene.told for scene in scenes])
    return torch.where(told[:, None], named, of_kind)


def _checked(pictures: Tensor, scenes: list[emoji.Scene]) -> Tensor:
    wanted = (len(scenes), 3, SIDE, SIDE)
    if tuple(pictures.shape) != wanted:
        raise ValueError(f"pictures are {tuple(pictures.shape)}; {len(scenes)} scenes need {wanted}")
    if bad := int((~pictures.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"{bad} of {len(scenes)} pictures have values that are no numbers")
    return pictures.float().clamp(0, 1)


# --- what is real ---


def real_pictures(scenes: list[emoji.Scene]) -> Tensor:
    """Small pictures as they should be, (scenes, 3, SIDE, SIDE)."""
    parts = [scenes[i : i + 64] for i in range(0, len(scenes), 64)]
    return torch.cat([functional.avg_pool2d(emoji.render(part), 4) for part in parts])


def real_scores(count: int = 1024) -> Scores:
    """Of so many held-out renders, to stand beside those of models."""
    scenes = emoji.random_scenes(count, torch.Generator().manual_seed(HELD_OUT_SEED), new=True)
    return score(real_pictures(scenes), scenes)


def real_reference() -> tuple[Tensor, Tensor]:
    """Mean (FEATURES,) and covariance (FEATURES, FEATURES) of the features of 4,096 held-out renders, float64."""
    kept = _reference()
    return kept["mean"], kept["covariance"]


def held_out_accuracy() -> float:
    """The share of 4,096 held-out renders in which the CNN finds all right."""
    return float(_reference()["accuracy"])


@cache
def _reference() -> dict[str, Tensor]:
    folder = host.cache_dir() / f"judge-reference-emoji-{emoji_cnn.recipe_digest()}"
    if not folder.exists():
        reference = _make_reference()  # before the cache is locked, as every start of a host waits for that lock
        host.make_once(folder, lambda made: save_file(reference, str(made / "reference.safetensors")))
    return load_file(folder / "reference.safetensors")


def _make_reference() -> dict[str, Tensor]:
    scenes = emoji.random_scenes(REFERENCE_COUNT, torch.Generator().manual_seed(REFERENCE_SEED), new=True, left_out=0)
    features = features_of(real_pictures(scenes))
    accuracy = right(_seen_by_cnn(features), scenes).double().mean()
    return {"mean": features.double().mean(0), "covariance": features.double().T.cov(), "accuracy": accuracy}
