"""Pictures of emoji with captions in words: a second kind of picture for the small FLUX, drawn by people.

One emoji, as one of four vendors draws it, at a place in a size on a ground of one colour. It has the parts and the
functions of `shapes` (scenes, captions, `render`, latents), so that what trains and judges takes either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from . import emoji_art
from .emoji_art import VENDORS
from .shapes import SIZE, from_latent, to_latent

__all__ = ["SIZE", "Scene", "from_latent", "random_scenes", "render", "to_latent"]


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split(", "))


# Chosen for being known at first sight in 24 of 32 pixels by every vendor, and none for looking like another. A concept
# is called in the packages as here, but for NAMES.
KINDS = {
    "an animal": _listed(
        "a fox, a cat, a dog, a panda, a koala, a lion, a tiger, a cow, a pig, a monkey, a frog, a mouse, a bear, "
        "a unicorn, a horse, a penguin, an owl, an octopus, a snail, a turtle, a butterfly, a ladybird, a crab, a bee"
    ),
    "a fruit": _listed(
        "an apple, a pear, an orange, a lemon, a banana, a watermelon, grapes, a strawberry, cherries, a pineapple, "
        "a kiwi, an avocado"
    ),
    "a plant": _listed(
        "a tulip, a rose, a sunflower, a cactus, a palm, a fir, a tree, a clover, a maple leaf, a mushroom, a carrot, "
        "broccoli"
    ),
    "a snack": _listed(
        "a hamburger, a pizza, fries, a doughnut, a cookie, a cake, an ice cream, a lollipop, a croissant, a pretzel, "
        "popcorn, cheese"
    ),
    "a vehicle": _listed(
        "a car, a bus, a fire engine, a taxi, a bicycle, a rocket, an airplane, a helicopter, a sailboat, a saucer, "
        "a tractor, a train"
    ),
    "weather": _listed(
        "the sun, a cloud, the moon, a star, a rainbow, a snowflake, a flame, a drop, an umbrella, lightning, "
        "a planet, a snowman"
    ),
    "a toy": _listed(
        "a football, a basketball, a guitar, a drum, a balloon, a gift, a teddy, a kite, a robot, a die, a crown, "
        "a ghost"
    ),
    "a tool": _listed(
        "a key, a bell, a bulb, a candle, scissors, a hammer, an hourglass, a clock, a telephone, a camera, a magnet, "
        "a lock"
    ),
}
NAMES = {
    **{f"a {name}": f"{name}-face" for name in ("cat", "dog", "tiger", "cow", "pig", "monkey", "mouse", "horse")},
    "a ladybird": "lady-beetle",
    "a bee": "honeybee",
    "an apple": "red-apple",
    "an orange": "tangerine",
    "a kiwi": "kiwi-fruit",
    "a palm": "palm-tree",
    "a fir": "evergreen-tree",
    "a tree": "deciduous-tree",
    "a clover": "four-leaf-clover",
    "fries": "french-fries",
    "a cake": "birthday-cake",
    "an ice cream": "soft-ice-cream",
    "cheese": "cheese-wedge",
    "a car": "automobile",
    "a saucer": "flying-saucer",
    "a train": "locomotive",
    "the moon": "crescent-moon",
    "a flame": "fire",
    "a drop": "droplet",
    "lightning": "high-voltage",
    "a planet": "ringed-planet",
    "a football": "soccer-ball",
    "a gift": "wrapped-gift",
    "a teddy": "teddy-bear",
    "a die": "game-die",
    "a bulb": "light-bulb",
    "an hourglass": "hourglass-done",
    "a clock": "alarm-clock",
    "a lock": "locked",
}
KIND_NAMES = tuple(KINDS)
CONCEPTS = tuple(concept for concepts in KINDS.values() for concept in concepts)
KIND_OF = tuple(kind for kind, concepts in enumerate(KINDS.values()) for _ in concepts)  # index into KIND_NAMES
PLACES = {"top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1)}
SIZES = {"small": (62.0, 66.0), "large": (92.0, 98.0)}  # pixels on the longer side
# Of middling brightness and little colour, so that dark lines and white bodies are seen on each.
GROUNDS = {
    "grey": (0.60, 0.60, 0.60),
    "blue": (0.42, 0.62, 0.85),
    "green": (0.50, 0.72, 0.48),
    "pink": (0.93, 0.66, 0.74),
    "tan": (0.83, 0.72, 0.54),
    "violet": (0.62, 0.50, 0.80),
}
PLACE_NAMES, SIZE_NAMES, GROUND_NAMES = tuple(PLACES), tuple(SIZES), tuple(GROUNDS)
# What a caption tells, in its order; each an attribute of Scene that is an index into one of these.
PARTS = {"concept": CONCEPTS, "vendor": VENDORS, "place": PLACE_NAMES, "size": SIZE_NAMES, "ground": GROUND_NAMES}

MARGIN = 2.0  # pixels between an emoji and the edges next to which it is
JITTER = 2.0  # how far it may lie from there
LEFT_OUT = 0.15  # how often a caption is silent of one of its parts; of the concept it then tells the kind
HELD_OUT = 8  # one combination in so many is never trained on


@dataclass(frozen=True)
class Scene:
    """One emoji: indices into the names in PARTS; its centre and longer side in pixels; what its caption tells."""

    concept: int
    vendor: int
    place: int
    size: int
    ground: int
    x: float
    y: float
    side: float
    told: tuple[str, ...] = tuple(PARTS)

    @property
    def caption(self) -> str:
        """The scene in words: "a fox, noto style, top left, large, on blue". Of a concept untold stands its kind."""
        names = {part: words[getattr(self, part)] for part, words in PARTS.items()}
        if "concept" not in self.told:
            names["concept"] = KIND_NAMES[KIND_OF[self.concept]]
        forms = {"vendor": "{} style", "ground": "on {}"}
        told = ("concept", *(part for part in PARTS if part in self.told and part != "concept"))
        return ", ".join(forms.get(part, "{}").format(names[part]) for part in told)


def held_out(concept: int, vendor: int, place: int, size: int, ground: int) -> bool:
    """Whether this combination is kept from training, to be asked for afterwards.

    One in HELD_OUT, of each concept by each vendor as of any other two parts: what is new is how they come together.
    """
    number = concept
    for part, index in (("vendor", vendor), ("place", place), ("size", size), ("ground", ground)):
        number = number * len(PARTS[part]) + index
    # Knuth's multiplicative hash: the high bits of a product with 2³² over the golden ratio.
    return (number * 2_654_435_761 % 2**32) * HELD_OUT // 2**32 == 0


def random_scenes(count: int, generator: torch.Generator, new: bool = False, left_out: float = LEFT_OUT) -> list[Scene]:
    """Scenes at random: of combinations that are trained on, or with `new` of those that are not.

    left_out: the chance of each part, by itself, that the caption is silent of it.
    """
    scenes: list[Scene] = []
    while len(scenes) < count:
        parts = [int(torch.randint(len(names), (), generator=generator)) for names in PARTS.values()]
        if held_out(*parts) == new:
            told = torch.rand(len(PARTS), generator=generator) >= left_out
            scenes.append(_placed(parts, tuple(part for part, yes in zip(PARTS, told, strict=True) if yes), generator))
    return scenes


def _placed(parts: list[int], told: tuple[str, ...], generator: torch.Generator) -> Scene:
    concept, vendor, place, size, ground = parts
    share, *moves = torch.rand(3, generator=generator).tolist()
    low, high = SIZES[SIZE_NAMES[size]]
    side = low + (high - low) * share
    x, y = (middle + JITTER * (2 * move - 1) for middle, move in zip(centre(place, side), moves, strict=True))
    return Scene(concept, vendor, place, size, ground, x, y, side, told)


def centre(place: int, side: float) -> tuple[float, float]:
    """Where the centre of an emoji lies whose longer side is so long, before it is moved by chance; x, y in pixels."""
    far = SIZE / 2 - side / 2 - MARGIN  # from the picture's middle
    right, down = PLACES[PLACE_NAMES[place]]
    return SIZE / 2 + far * right, SIZE / 2 + far * down


# --- pictures ---


@cache
def drawings() -> Tensor:
    """What the vendors drew, (CONCEPTS, VENDORS, 4, side, side) bytes, RGBA; see `emoji_art.drawings`."""
    return emoji_art.drawings(tuple(NAMES.get(concept, _name(concept)) for concept in CONCEPTS))


def _name(concept: str) -> str:
    return concept.removeprefix("a ").removeprefix("an ").removeprefix("the ").replace(" ", "-")


def render(scenes: list[Scene]) -> Tensor:
    """Pictures of the scenes, (scenes, 3, SIZE, SIZE), RGB in [0, 1]."""
    layers = render_layers(scenes)
    grounds = torch.tensor([GROUNDS[GROUND_NAMES[scene.ground]] for scene in scenes])[:, :, None, None]
    return layers[:, :3] + (1 - layers[:, 3:]) * grounds


def render_layers(scenes: list[Scene]) -> Tensor:
    """The emoji of the scenes without their grounds, (scenes, 4, SIZE, SIZE): RGB times alpha, and alpha."""
    drawn = drawings()[[scene.concept for scene in scenes], [scene.vendor for scene in scenes]].float() / 255
    drawn[:, :3] *= drawn[:, 3:]
    x, y, side = (torch.tensor([getattr(scene, name) for scene in scenes]) for name in ("x", "y", "side"))
    # From the picture's coordinates, -1 to 1, to those of the drawing.
    scale, zeros = SIZE / side, torch.zeros(len(scenes))
    rows = ((scale, zeros, scale * (1 - 2 * x / SIZE)), (zeros, scale, scale * (1 - 2 * y / SIZE)))
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = functional.affine_grid(theta, [len(scenes), 4, SIZE, SIZE], align_corners=False)
    return functional.grid_sample(drawn, grid, align_corners=False)
