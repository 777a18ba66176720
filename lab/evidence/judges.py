"""What a picture of coloured shapes is worth: two judges that know nothing of each other, and plain measures.

All of it looks at small pictures, (n, 3, 32, 32) RGB, as `shapes.from_latent` gives them. A latent holds exactly the
means of 4×4 pixels of a 128×128 picture, so nothing that a model says is lost by judging there. They are bounded to
[0, 1] first, as the host does before it shows them. An object counts as right when its own quadrant holds the caption's
shape, whole, in the caption's colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from .. import host
from ..toy import shapes
from . import judge_cnn, judge_templates
from .judge_lessons import SIDE, quadrants_of

# Seeds of scenes that no model and no judge learned from. Models learn from 1,000, the CNN from 2,000, evidence asks
# for scenes from 3,000 on.
HELD_OUT_SEED, REFERENCE_SEED = 2_001, 2_002
REFERENCE_COUNT = 4_096


@dataclass(frozen=True)
class Scores:
    """One row a picture.

    objects (n,): how many the caption asks for, 1 or 2. cnn_right, template_right (n,): how many of them each judge
    finds right. template_fit (n,): the share of the variance in an object's quadrant that the best template of the
    caption's shape explains, in [0, 1], mean over the objects. saturation, sharpness (n,): see these functions.
    features (n, 64): see `features_of`.
    """

    objects: Tensor
    cnn_right: Tensor
    template_right: Tensor
    template_fit: Tensor
    saturation: Tensor
    sharpness: Tensor
    features: Tensor


def score(pictures: Tensor, scenes: list[shapes.Scene]) -> Scores:
    """Judge small pictures (n, 3, 32, 32) against the scenes they were asked to show.

    Raises ValueError where the two don't belong together or a picture has a value that is no number.
    """
    pictures = _checked(pictures, scenes)
    parts = quadrants_of(pictures)
    rows, place, asked = _asked(scenes)
    features = features_of(pictures)
    found = _found_by_cnn(features.unflatten(1, (4, -1))[rows, place])
    fit = judge_templates.fit(parts[rows, place])
    fitted = torch.stack((fit.shape, fit.color), 1)

    def per_picture(values: Tensor) -> Tensor:
        return torch.zeros(len(scenes), dtype=values.dtype).index_add(0, rows, values)

    objects = per_picture(torch.ones_like(rows))
    return Scores(
        objects=objects,
        cnn_right=per_picture((found == asked).all(1).long()),
        template_right=per_picture(((fitted == asked).all(1) & fit.whole).long()),
        template_fit=per_picture(fit.share[torch.arange(len(rows)), asked[:, 0]]) / objects,
        saturation=saturation(pictures),
        sharpness=sharpness(pictures),
        features=features,
    )


def _asked(scenes: list[shapes.Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each object: which scene's, in which place, (objects,); and its shape and colour, (objects, 2)."""
    every = [(row, thing) for row, scene in enumerate(scenes) for thing in scene.things]
    rows, place = torch.tensor([(row, thing.place) for row, thing in every]).T
    return rows, place, torch.tensor([(thing.shape, thing.color) for _, thing in every])


def _checked(pictures: Tensor, scenes: list[shapes.Scene]) -> Tensor:
    wanted = (len(scenes), 3, 2 * SIDE, 2 * SIDE)
    if tuple(pictures.shape) != wanted:
        raise ValueError(f"pictures are {tuple(pictures.shape)}; {len(scenes)} scenes need {wanted}")
    if bad := int((~pictures.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"{bad} of {len(scenes)} pictures have values that are no numbers")
    return pictures.float().clamp(0, 1)


def saturation(pictures: Tensor) -> Tensor:
    """The largest of red, green and blue less the smallest, mean over the pixels; (n,) in [0, 1]."""
    return (pictures.amax(1) - pictures.amin(1)).mean((1, 2))


def sharpness(pictures: Tensor) -> Tensor:
    """How steep the edges are, (n,), in RGB distance per small pixel.

    The mean of the gradient's length, each pixel weighted by that length itself: so it tells the steepness of the edges
    that are there, and neither how many there are nor, much, the grain of the ground.
    """
    right = (pictures[..., :-1, 1:] - pictures[..., :-1, :-1]).square().sum(1)
    down = (pictures[..., 1:, :-1] - pictures[..., :-1, :-1]).square().sum(1)
    length = (right + down).sqrt()
    return length.square().sum((1, 2)) / length.sum((1, 2)).clamp_min(1e-9)


# --- the CNN ---


@torch.no_grad()
def features_of(pictures: Tensor) -> Tensor:
    """The CNN's 16 features of each quadrant, side by side, (n, 64), of pictures in [0, 1]."""
    judge = judge_cnn.load()
    parts = quadrants_of(pictures).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return torch.cat([judge(part) for part in parts.split(512)]).unflatten(0, (-1, 4)).flatten(1)


@torch.no_grad()
def _found_by_cnn(features: Tensor) -> Tensor:
    """Shape and colour, as judge_lessons counts them, of quadrants with these features, (n, 2)."""
    judge = judge_cnn.load()
    return torch.stack((judge.shape(features).argmax(1), judge.color(features).argmax(1)), 1)


# --- many pictures together ---


def frechet(features: Tensor, reference: tuple[Tensor, Tensor]) -> float:
    """Fréchet distance (FID's formula: Heusel et al., arXiv 1706.08500, section 4) of features (n, F) to a Gaussian.

    reference: mean (F,) and covariance (F, F). Squared units of the features. Biased upwards for small n (a thousand
    held-out renders are not at 0), so compare at the same n and prompts, and beside real pictures of these prompts.
    The trace of (C₁C₂)^½ is that of (C₁^½ C₂ C₁^½)^½, which is symmetric.
    """
    mean, covariance = (part.double() for part in reference)
    own_mean, own_covariance = features.double().mean(0), features.double().T.cov()
    root = _root(covariance)
    crossed = torch.linalg.eigvalsh(root @ own_covariance @ root).clamp_min(0).sqrt().sum()
    far = (own_mean - mean).square().sum()
    return float(far + covariance.trace() + own_covariance.trace() - 2 * crossed)


def _root(symmetric: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def diversity(features: Tensor, groups: Tensor) -> float:
    """Mean distance of two pictures of the same prompt: over the pairs of each group, then over the groups.

    features (n, F); groups (n,): equal numbers where prompts are equal. Groups of one say nothing; ValueError where
    there are no others.
    """
    distances = []
    for group in groups.unique():
        members = features[groups == group].double()
        if len(members) > 1:
            distances.append(torch.pdist(members).mean())
    if not distances:
        raise ValueError(f"no two of {len(groups)} pictures share a prompt")
    return float(torch.stack(distances).mean())


# --- what is real ---


def real_pictures(scenes: list[shapes.Scene]) -> Tensor:
    """Small pictures as they should be, (scenes, 3, 32, 32)."""
    parts = [scenes[i : i + 64] for i in range(0, len(scenes), 64)]
    return torch.cat([functional.avg_pool2d(shapes.render(part), 4) for part in parts])


def real_scores(count: int = 1024) -> Scores:
    """Of so many held-out renders, to stand beside those of models."""
    scenes = shapes.random_scenes(count, torch.Generator().manual_seed(HELD_OUT_SEED))
    return score(real_pictures(scenes), scenes)


def real_reference() -> tuple[Tensor, Tensor]:
    """Mean (64,) and covariance (64, 64) of the features of 4,096 held-out renders, float64."""
    kept = _reference()
    return kept["mean"], kept["covariance"]


def held_out_accuracy() -> float:
    """The share of the objects in 4,096 held-out renders that the CNN finds right."""
    return float(_reference()["accuracy"])


@cache
def _reference() -> dict[str, Tensor]:
    folder = host.cache_dir() / f"judge-reference-{judge_cnn.recipe_digest()}"
    if not folder.exists():
        reference = _make_reference()  # before the cache is locked, as every start of a host waits for that lock
        host.make_once(folder, lambda made: save_file(reference, str(made / "reference.safetensors")))
    return load_file(folder / "reference.safetensors")


def _make_reference() -> dict[str, Tensor]:
    scenes = shapes.random_scenes(REFERENCE_COUNT, torch.Generator().manual_seed(REFERENCE_SEED))
    pictures = real_pictures(scenes)
    features = features_of(pictures)
    rows, place, asked = _asked(scenes)
    accuracy = (_found_by_cnn(features.unflatten(1, (4, -1))[rows, place]) == asked).all(1).double().mean()
    return {"mean": features.double().mean(0), "covariance": features.double().T.cov(), "accuracy": accuracy}
