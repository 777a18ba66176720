"""What the blocks of a family of models are called: in words, and in block specs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of block. word: what stands before "block" ("double"), empty where a model has one kind only.

    names: a block's names in specs beside its bare number, # for the number: as ComfyUI's code and checkpoints have it,
    and as diffusers has it.
    """

    word: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """How a family's blocks are called. subject: who has them, in errors; kinds: in the model's order, two at most."""

    subject: str
    kinds: tuple[Kind, ...]

    def block(self, position: int, first_blocks: int) -> str:
        """A position as a block: "double block 18", "single block 0", "block 7". first_blocks: of the first kind."""
        second = position >= first_blocks
        return self.of_kind(second, position - first_blocks if second else position)

    def of_kind(self, second: bool, index: object, plural: str = "") -> str:
        """A block of the first or second kind, or with plural "s" several of them."""
        kind = self.kinds[second] if second < len(self.kinds) else Kind("single", ())
        return f"{kind.word} block{plural} {index}".lstrip()

    def there_are(self, first_blocks: int, second_blocks: int) -> str:
        """Which blocks there are, in a sentence."""
        first = f"{self.subject} has {self.of_kind(False, 0, 's')} to {first_blocks - 1}"
        if len(self.kinds) == 1:
            return first
        word = self.kinds[1].word
        return f"{first} and " + (f"{word} blocks s0 to s{second_blocks - 1}" if second_blocks else f"no {word} blocks")

    def counted(self, first_blocks: int, second_blocks: int) -> str:
        """How many blocks there are: "19 double and 38 single blocks", "60 blocks"."""
        if len(self.kinds) == 1:
            return f"{first_blocks} blocks"
        return f"{first_blocks} {self.kinds[0].word} and {second_blocks} {self.kinds[1].word} blocks"

    @property
    def names(self) -> tuple[str, ...]:
        """All names of blocks in specs."""
        return tuple(name for kind in self.kinds for name in kind.names)


_DOUBLE = ("double_blocks.#", "transformer_blocks.#", "transformer_blocks.#.attn")
_SINGLE = ("single_blocks.#", "single_transformer_blocks.#", "single_transformer_blocks.#.attn")

FLUX = Naming("this model", (Kind("double", _DOUBLE), Kind("single", _SINGLE)))
QWEN_IMAGE = Naming("Qwen-Image", (Kind("", ("transformer_blocks.#", "transformer_blocks.#.attn")),))
LUMINA = Naming("this model", (Kind("", ("layers.#", "layers.#.attention")),))
WAN = Naming("this model", (Kind("", ("blocks.#", "blocks.#.attn1")),))
SD3 = Naming("this model", (Kind("", ("joint_blocks.#", "transformer_blocks.#", "transformer_blocks.#.attn")),))
LTX2 = Naming("LTX-2", (Kind("", ("transformer_blocks.#", "transformer_blocks.#.attn1")),))
LTXV = Naming("this model", (Kind("", ("transformer_blocks.#", "transformer_blocks.#.attn1")),))
_JOINT = ("double_layers.#", "joint_transformer_blocks.#", "joint_transformer_blocks.#.attn")
_SINGLE_LAYERS = ("single_layers.#", "single_transformer_blocks.#", "single_transformer_blocks.#.attn")
AURAFLOW = Naming("this model", (Kind("double", _JOINT), Kind("single", _SINGLE_LAYERS)))
OMNIGEN2 = Naming("OmniGen 2", (Kind("", ("layers.#", "layers.#.attn")),))
LENS = Naming("Lens", (Kind("", ("transformer_blocks.#", "transformer_blocks.#.attn")),))
_VISUAL = ("visual_transformer_blocks.#", "visual_transformer_blocks.#.self_attention")
KANDINSKY = Naming("Kandinsky 5", (Kind("", _VISUAL),))
_COSMOS = ("blocks.#", "blocks.#.self_attn", "transformer_blocks.#", "transformer_blocks.#.attn1")
COSMOS = Naming("this model", (Kind("", _COSMOS),))
_KREA_2 = ("blocks.#", "blocks.#.attn", "transformer_blocks.#", "transformer_blocks.#.attn")
KREA_2 = Naming("Krea 2", (Kind("", _KREA_2),))
MINIMAX_H3 = Naming("MiniMax H3", (Kind("", ("blocks.#", "blocks.#.attn")),))
ANY = Naming("this model", (Kind("", ()),))

NAMINGS = (
    *(FLUX, QWEN_IMAGE, LUMINA, WAN, SD3, LTXV, LTX2, AURAFLOW, KANDINSKY, COSMOS, KREA_2, OMNIGEN2, LENS),
    MINIMAX_H3,
)
# Whether a name is one of the second kind's; every family agrees about that.
SECOND: dict[str, bool] = {
    name: bool(second) for naming in NAMINGS for second, kind in enumerate(naming.kinds) for name in kind.names
}
