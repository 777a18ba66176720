"""Block specs: which double blocks are guided.

    spec  = "auto" | "all" | item { "," item }
    item  = number | number "-" number | name
    name  = "double_blocks." number                      (as the FLUX code and checkpoints call it)
          | "transformer_blocks." number [ ".attn" ]     (as diffusers calls it)

Spaces around items and around "-" don't matter; a block named twice counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# FLUX.1's guided blocks and depth, published with the method. Other depths take the same relative places.
AUTO_BLOCKS, AUTO_DEPTH = (8, 12, 16), 19
_MOST_DIGITS = 6

_ITEM = re.compile(
    r"(?P<first>[0-9]+)(?:\s*-\s*(?P<last>[0-9]+))?"
    r"|double_blocks\.(?P<native>[0-9]+)"
    r"|transformer_blocks\.(?P<diffusers>[0-9]+)(?:\.attn)?"
)


def auto_blocks(depth: int) -> tuple[int, ...]:
    """The blocks that `auto` means on a model with `depth` double blocks: 8, 12, 16 of 19, scaled by their centres."""
    return tuple(sorted({(2 * block + 1) * depth // (2 * AUTO_DEPTH) for block in AUTO_BLOCKS}))


def parse_blocks(spec: str, depth: int) -> tuple[int, ...]:
    """Read a block spec for a model with `depth` double blocks; ascending, each block once.

    Raises ValueError that quotes the item that is wrong and says what this model has.
    """
    if spec.strip() == "auto":
        return auto_blocks(depth)
    if spec.strip() == "all":
        return tuple(range(depth))
    bounds = [_bounds(item.strip(), spec, depth) for item in spec.split(",")]
    return tuple(sorted({block for first, last in bounds for block in range(first, last + 1)}))


def check_spec(spec: str) -> None:
    """Raise ValueError where `spec` breaks the grammar; which blocks exist is not known without a model."""
    if spec.strip() not in ("auto", "all"):
        for item in spec.split(","):
            _bounds(item.strip(), spec, None)


def format_blocks(blocks: Iterable[int]) -> str:
    """Blocks as a spec, such as "8, 12, 16"."""
    return ", ".join(str(block) for block in blocks)


def _bounds(item: str, spec: str, depth: int | None) -> tuple[int, int]:
    match = _ITEM.fullmatch(item)
    if not match:
        culprit = f'"{item}" is not a block' if item else f'empty item in "{spec}"'
        raise ValueError(f"blocks: {culprit}. {_valid(depth)}")
    first = _number(next(filter(None, match.group("first", "native", "diffusers"))), depth)
    last = _number(match["last"], depth) if match["last"] else first
    if last < first:
        raise ValueError(f'blocks: "{item}" runs backwards; write {last}-{first}. {_valid(depth)}')
    return first, last


def _number(digits: str, depth: int | None) -> int:
    # Comparing lengths first keeps int() away from digit strings that Python refuses to convert.
    digits = digits.lstrip("0") or "0"
    if len(digits) > _MOST_DIGITS or (depth is not None and int(digits) >= depth):
        valid = _valid(depth) if depth is None else f"this model has double blocks 0 to {depth - 1}"
        raise ValueError(f"blocks: block {digits[:20]} does not exist: {valid}")
    return int(digits)


def _valid(depth: int | None) -> str:
    blocks, last = format_blocks(auto_blocks(depth or AUTO_DEPTH)), (depth or AUTO_DEPTH) - 1
    this_model = "FLUX.1 has" if depth is None else "this model has"
    return (
        f'Valid are "auto", "all", or a list with commas of numbers, ranges and names, such as "{blocks}", "0-{last}", '
        f'"double_blocks.{last}" or "transformer_blocks.{last}.attn"; {this_model} double blocks 0 to {last}.'
    )


def merge_position(first: int, double_blocks: int, single_blocks: int, reach: str, reach_blocks: int) -> int | None:
    """After which block the negative branch that starts in block `first` is merged; None: inside the attention.

    Positions count the double blocks and then the single blocks. Raises ValueError where `reach_blocks`
    leads beyond the last block.
    """
    last = double_blocks + single_blocks - 1
    if reach_blocks:
        if first + reach_blocks > last:
            raise ValueError(
                f"reach_blocks {reach_blocks} leads beyond the last block: from double block {first}, this model's "
                f"{double_blocks} double and {single_blocks} single blocks leave at most {last - first}"
            )
        return first + reach_blocks
    return {"attention": None, "double blocks": double_blocks - 1, "output": last}[reach]


def block_name(position: int, double_blocks: int) -> str:
    """A position as a block: "double block 18", "single block 0"."""
    return f"double block {position}" if position < double_blocks else f"single block {position - double_blocks}"
