"""Pictures of coloured shapes whose captions leave something out now and then, so that a negative prompt can decide.

The pictures are those of `shapes`; a part that a caption leaves out is drawn all the same, at random. Where a part is
left out stands a word that says nothing, so that every word keeps its place: small models learn that several times
faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from .. import host
from . import digests, shapes
from .pictures import Pictures
from .shapes import BACKGROUND_NAMES, COLOR_NAMES, PLACE_NAMES, SHAPES, Scene, Thing

POOL, POOL_SEED = 32_768, 1_100
LEFT_OUT = 0.15  # how often each part of a caption is
ALONE = 0.1  # how often a caption tells one part alone, as negative prompts do
OPEN_COLOR, OPEN_SHAPE, OPEN_PLACE = "coloured", "thing", "some place"


@dataclass(frozen=True)
class Told:
    """What a caption says of a scene. things: of each object told of, whether its colour, shape and place are."""

    things: tuple[tuple[bool, bool, bool], ...]
    background: bool


EVERYTHING = (True, True, True)


def caption(scene: Scene, told: Told) -> str:
    """The told parts in words: "a red ring some place, on grey"; all told: the scene's own caption."""
    words = [_words(thing, parts) for thing, parts in zip(scene.things, told.things, strict=False)]
    return ", ".join([*words, *([f"on {BACKGROUND_NAMES[scene.background]}"] if told.background else [])])


def _words(thing: Thing, parts: tuple[bool, bool, bool]) -> str:
    color, shape, place = parts
    return in_words(
        COLOR_NAMES[thing.color] if color else OPEN_COLOR,
        SHAPES[thing.shape] if shape else OPEN_SHAPE,
        PLACE_NAMES[thing.place] if place else OPEN_PLACE,
    )


def in_words(color: str = OPEN_COLOR, shape: str = OPEN_SHAPE, place: str = OPEN_PLACE) -> str:
    """An object of which some is told: "a coloured ring some place"."""
    return f"a {color} {shape} {place}"


def random_told(scene: Scene, generator: torch.Generator) -> Told:
    """Leaves out each colour, shape, place, second object and ground now and then."""

    def kept() -> bool:
        return float(torch.rand((), generator=generator)) >= LEFT_OUT

    things = tuple((kept(), kept(), kept()) for _ in scene.things)
    return Told(things if kept() else things[:1], kept())


def random_caption(scene: Scene, generator: torch.Generator) -> str:
    """Mostly what is told of the whole scene, now and then one part alone."""
    if float(torch.rand((), generator=generator)) < ALONE:
        alone = parts(scene)
        return alone[int(torch.randint(len(alone), (), generator=generator))]
    return caption(scene, random_told(scene, generator))


def parts(scene: Scene) -> list[str]:
    """Captions that tell one part of a scene each."""
    of_things = [
        words
        for thing in scene.things
        for words in (
            in_words(color=COLOR_NAMES[thing.color]),
            in_words(shape=SHAPES[thing.shape]),
            in_words(place=PLACE_NAMES[thing.place]),
        )
    ]
    return [*of_things, f"on {BACKGROUND_NAMES[scene.background]}"]


def digest() -> str:
    """Changes with whatever changes the pictures or their captions."""
    return digests.digest(digests.sources(shapes, Path(__file__)))


def pool() -> Pictures:
    """POOL pictures with captions, made once."""
    folder = host.cache_dir() / f"lab-pool-{digest()}"
    host.make_once(folder, _make_pool)
    found = load_file(folder / "pool.safetensors")
    return Pictures("shapes", digest(), found["latents"], found["ids"])


def _make_pool(folder: Path) -> None:
    from .training import caption_ids

    generator = torch.Generator().manual_seed(POOL_SEED)
    scenes = shapes.random_scenes(POOL, generator)
    batches = [scenes[i : i + 64] for i in range(0, POOL, 64)]
    latents = [shapes.to_latent(shapes.render(batch)).bfloat16() for batch in tqdm(batches, "pictures", mininterval=5)]
    captions = [random_caption(scene, generator) for scene in scenes]
    save_file({"latents": torch.cat(latents), "ids": caption_ids([*captions, ""])}, str(folder / "pool.safetensors"))
