"""Block specs: which blocks are guided, how strongly, and in which heads.

    spec   = "auto" | "all" | item { "," item }
    item   = place [ heads ] [ ":" scale ]
    place  = [ "s" ] number [ "-" number ]               (s: single blocks; without it double blocks, or the only ones)
           | "double_blocks." number | "single_blocks." number       (as the FLUX code and checkpoints call them)
           | "transformer_blocks." number [ ".attn" ]                (as diffusers calls the double ones)
           | "single_transformer_blocks." number [ ".attn" ]         (and the single ones)
           | what other families' code and diffusers call theirs (`naming`)
    heads  = "[" head { "," head } "]"
    head   = number [ "-" number ]                       (heads count along the features before the output projection)
    scale  = digits [ "." digits ]                       (0 to 10; 0 leaves the block plain)

Such as `8:3.0, 12[0-7,12], 16[0-3]:1.5, s20-24:2`. Spaces around items, numbers and signs don't matter, and neither
does the order. What is equal counts once; a block that two items give different scales or heads is an error.
`auto` is double blocks only, `all` every block. A spec has at most MOST_SPEC characters; whatever they are, reading
takes time in proportion to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from .inputs.guidance import MOST_SPEC, SCALE
from .naming import FLUX, SECOND, Naming

_MOST_DIGITS = 6

_RANGE = re.compile(r"([0-9]+)(?:\s*-\s*([0-9]+))?")
# No two repeats that take the same characters stand side by side, or what is no item could be tried in n² ways.
_ITEM = re.compile(
    r"(?P<place>(?P<s>s\s*)?(?P<range>[0-9]+(?:\s*-\s*[0-9]+)?)"
    r"|(?P<before>[a-z_]+\.)(?P<number>[0-9]+)(?P<behind>\.[a-z0-9_]+)?)"
    r"\s*(?:\[(?P<heads>[^\[\]]*)\]\s*)?(?::(?P<scale>[^:\[\]]*))?"
)
_SCALE = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")

Range = tuple[int, int]  # first and last, both included


@dataclass(frozen=True)
class Block:
    """A chosen block.

    scale: its own strength, None for the node's. heads: ranges of its guided heads, ascending and apart, None for all
    of them.
    """

    index: int
    single: bool = False
    scale: float | None = None
    heads: tuple[Range, ...] | None = None

    def position(self, double_blocks: int) -> int:
        """Where it comes in a model, counting the double blocks and then the single ones."""
        return self.index + double_blocks if self.single else self.index


@dataclass(frozen=True)
class _Item:
    """One item of a spec, read but not yet fitted to a model.

    text: what the user wrote. block: the first one. name: as `naming.Kind.names` has it, None for a bare number.
    """

    text: str
    first: int
    last: int
    block: Block
    name: str | None

    def blocks(self) -> Iterator[Block]:
        return (replace(self.block, index=index) for index in range(self.first, self.last + 1))


def auto_blocks(depth: int) -> tuple[int, ...]:
    """The blocks that `auto` means on a model with `depth` double blocks: all from three eighths on.

    3-7 of 8 and 7-18 of 19. The place was found on small FLUX models of 8 double blocks that were trained here
    (docs/evidence.md), and other depths take it relative to theirs. Nobody has verified it on FLUX.1's own weights.
    """
    return tuple(range(depth * 3 // 8, depth))


# Of FLUX.1's 19 double blocks, as the method was published.
PUBLISHED, PUBLISHED_DEPTH = (8, 12, 16), 19


def published_blocks(depth: int) -> tuple[int, ...]:
    """The published blocks 8, 12 and 16 of 19, or those at the same place among `depth` double blocks: 3, 5, 6 of 8."""
    return tuple(dict.fromkeys(int((block + 0.5) / PUBLISHED_DEPTH * depth) for block in PUBLISHED))


def parse_blocks(
    spec: str, double_blocks: int, single_blocks: int = 0, model_heads: int | None = None, naming: Naming = FLUX
) -> tuple[Block, ...]:
    """Read a block spec for a model with this many blocks and heads; in the model's order, each block once.

    model_heads None: any head may be named. A family with one kind of block has them as double ones. Raises ValueError
    that quotes the item that is wrong and says what this model has.
    """
    if spec.strip() == "auto":
        return tuple(map(Block, auto_blocks(double_blocks)))
    if spec.strip() == "all":
        return (*map(Block, range(double_blocks)), *(Block(index, single=True) for index in range(single_blocks)))
    items = _read(spec, naming)
    for item in items:
        _check_fit(item, double_blocks, single_blocks, model_heads, naming)
    chosen = {block.position(double_blocks): block for item in items for block in item.blocks()}
    return tuple(chosen[position] for position in sorted(chosen))


def check_spec(spec: str) -> None:
    """Raise ValueError where `spec` breaks the grammar; which blocks exist is not known without a model."""
    if spec.strip() not in ("auto", "all"):
        _read(spec)


def format_blocks(blocks: Iterable[Block]) -> str:
    """Blocks as a spec that reads back as these blocks, such as "8, 12[0-7,12]:1.5, s20"."""
    return ", ".join(map(_format, blocks))


def _format(block: Block) -> str:
    heads = "" if block.heads is None else f"[{','.join(map(_format_range, block.heads))}]"
    scale = "" if block.scale is None else f":{Decimal(repr(block.scale)):f}"
    return f"{'s' if block.single else ''}{block.index}{heads}{scale}"


def _format_range(bounds: Range) -> str:
    return f"{bounds[0]}" if bounds[0] == bounds[1] else f"{bounds[0]}-{bounds[1]}"


# --- reading ---


def _read(spec: str, naming: Naming = FLUX) -> list[_Item]:
    if len(spec) > MOST_SPEC:
        raise ValueError(
            f"blocks: {_quoted(spec)} has {len(spec)} characters; at most {MOST_SPEC} are read. {valid_specs()}"
        )
    items = [_read_item(text.strip(), spec) for text in _split(spec)]
    _refuse_contradictions(items, naming)
    return items


def _split(spec: str) -> Iterator[str]:
    """The items of a spec: split at the commas outside of brackets."""
    start, inside = 0, False
    for i, character in enumerate(spec):
        if character == "," and not inside:
            yield spec[start:i]
            start = i + 1
        elif character in "[]":
            inside = character == "["
    yield spec[start:]


def _read_item(text: str, spec: str) -> _Item:
    match = _ITEM.fullmatch(text)
    name = f"{match['before']}#{match['behind'] or ''}" if match and match["before"] else None
    if not match or (name and name not in SECOND):
        raise ValueError(f"blocks: {_why_no_item(text, spec)}. {valid_specs()}")
    first, last = _read_range(_RANGE.fullmatch(match["range"] or match["number"]), text)
    single = SECOND[name] if name else bool(match["s"])
    heads = None if match["heads"] is None else _read_heads(match["heads"], text)
    scale = None if match["scale"] is None else _read_scale(match["scale"].strip(), text)
    return _Item(text, first, last, Block(first, single, scale, heads), name)


def _why_no_item(text: str, spec: str) -> str:
    if not text:
        return f"empty item in {_quoted(spec)}"
    if re.match(r"(auto|all)\s*[\[:]", text):
        return f"{_quoted(text)}: auto and all take neither a scale nor heads"
    return f"{_quoted(text)} is not a block"


def _read_range(match: re.Match | None, text: str) -> Range:
    assert match
    first, last = (_number(digits, text) for digits in (match[1], match[2] or match[1]))
    if last < first:
        raise ValueError(f"blocks: {_quoted(text)} runs backwards; write {last}-{first}. {valid_specs()}")
    return first, last


def _number(digits: str, text: str) -> int:
    # Comparing lengths first keeps int() away from digit strings that Python refuses to convert.
    digits = digits.lstrip("0") or "0"
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"blocks: {_quoted(text)}: {digits[:20]} does not exist. {valid_specs()}")
    return int(digits)


def _read_heads(inside: str, text: str) -> tuple[Range, ...]:
    matches = [_RANGE.fullmatch(head.strip()) for head in inside.split(",")]
    if not all(matches):
        raise ValueError(
            f"blocks: {_quoted(text)}: heads are numbers and ranges with commas, such as [0-7,12]; without brackets "
            f"all heads are guided. {valid_specs()}"
        )
    merged: list[Range] = []
    for first, last in sorted(_read_range(match, text) for match in matches):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def _read_scale(digits: str, text: str) -> float:
    scale = float(digits) if _SCALE.fullmatch(digits) else None
    if scale is None or not SCALE.minimum <= scale <= SCALE.maximum:
        raise ValueError(
            f"blocks: {_quoted(text)}: its scale {_quoted(digits)} is not a number from "
            f"{SCALE.minimum:g} to {SCALE.maximum:g}. {valid_specs()}"
        )
    return scale


def _refuse_contradictions(items: list[_Item], naming: Naming) -> None:
    """Raise where two items name one block and differ in its scale or heads."""
    reaching: dict[bool, _Item] = {}  # of those so far, which agree where they overlap, the one that reaches furthest
    for item in sorted(items, key=lambda item: item.first):
        before = reaching.get(item.block.single)
        if before and item.first <= before.last and replace(before.block, index=item.first) != item.block:
            raise ValueError(
                f"blocks: {_quoted(before.text)} and {_quoted(item.text)} give {_name(item.block, naming)} "
                f"different scales or heads; name it once. {valid_specs()}"
            )
        if not before or item.last > before.last:
            reaching[item.block.single] = item


def _check_fit(item: _Item, double_blocks: int, single_blocks: int, model_heads: int | None, naming: Naming) -> None:
    single, quoted = item.block.single, _quoted(item.text)
    if item.name and item.name not in naming.names:
        names = " or ".join(name.replace("#", str(item.first)) for name in naming.names)
        raise ValueError(f"blocks: {quoted} is no block of this model: {naming.subject} has {item.first} or {names}")
    if item.last >= (single_blocks if single else double_blocks):
        name = f"{'single ' if single else ''}block {item.last}"
        raise ValueError(f"blocks: {quoted}: {name} does not exist: {naming.there_are(double_blocks, single_blocks)}")
    last_head = item.block.heads[-1][1] if item.block.heads else 0
    if model_heads is not None and last_head >= model_heads:
        raise ValueError(
            f"blocks: {quoted}: head {last_head} does not exist: this model's blocks have heads 0 to {model_heads - 1}"
        )


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 60 else f'"{text[:60]}…"'


def _name(block: Block, naming: Naming) -> str:
    return naming.of_kind(block.single, block.index)


def valid_specs() -> str:
    """What a spec may be, in a sentence that ends the errors of `check_spec`."""
    return (
        'Valid are "auto", "all", or a list with commas of numbers, ranges and names of blocks, each with heads in '
        'brackets and a scale behind a colon where wanted, such as "8, 12, 16", "0-18", "s20-24", '
        '"8:3.0", "12[0-7,12]", "16[0-3]:1.5", "double_blocks.18" or "transformer_blocks.18.attn"; '
        "FLUX.1 has double blocks 0 to 18, single blocks s0 to s37 and heads 0 to 23."
    )


# --- places in a model ---


def with_strength(blocks: Iterable[Block], double_blocks: int) -> dict[int, Block]:
    """Blocks by position, without those that a scale of 0 leaves plain."""
    return {block.position(double_blocks): block for block in blocks if block.scale != 0}


def merge_position(
    chosen: Sequence[int],
    double_blocks: int,
    single_blocks: int,
    reach: str,
    reach_blocks: int,
    naming: Naming = FLUX,
) -> int | None:
    """After which block the negative branch is merged; None: inside the attention.

    chosen: where it is perturbed, ascending; it starts in the first of them. Positions count the double blocks and then
    the single blocks; the one behind the last block is the model's prediction. With reach "double blocks" it goes on to
    the last chosen block where that is a single one. Raises ValueError where reach_blocks leads beyond the last block.
    """
    last = double_blocks + single_blocks - 1
    if reach_blocks and chosen[0] + reach_blocks > last:
        raise ValueError(
            f"reach_blocks {reach_blocks} leads beyond the last block: from {naming.block(chosen[0], double_blocks)}, "
            f"this model's {naming.counted(double_blocks, single_blocks)} leave at most {last - chosen[0]}"
        )
    if reach_blocks:
        return chosen[0] + reach_blocks
    merges = {"attention": None, "double blocks": max(double_blocks - 1, chosen[-1]), "output": last}
    return merges[reach] if reach in merges else last + 1


def blocks_name(blocks: Iterable[Block], naming: Naming = FLUX) -> str:
    """Blocks in words: "double blocks 8, 12:1.5 and single blocks 20"."""
    blocks = tuple(blocks)
    parts = []
    for single in (False, True):
        of_kind = [replace(block, single=False) for block in blocks if block.single == single]
        if of_kind:
            parts.append(naming.of_kind(single, format_blocks(of_kind), "s"))
    return " and ".join(parts)
