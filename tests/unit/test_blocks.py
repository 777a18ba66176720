"""The block grammar: plain lists of what is accepted and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag import blocks as grammar
from nag_pag_flux.nagpag.blocks import (
    Block,
    auto_blocks,
    blocks_name,
    check_spec,
    format_blocks,
    merge_position,
    parse_blocks,
)
from nag_pag_flux.nagpag.inputs.guidance import MOST_SPEC

DOUBLES, SINGLES, HEADS = 19, 38, 24

ACCEPTED = [
    ("8", (8,)),
    ("8, 12, 16", (8, 12, 16)),
    ("8,12,16", (8, 12, 16)),
    (" 16 ,8 , 12 ", (8, 12, 16)),
    ("8-12", (8, 9, 10, 11, 12)),
    ("8 - 10", (8, 9, 10)),
    ("3-3", (3,)),
    ("0, 8-10, 18", (0, 8, 9, 10, 18)),
    ("8, 8, 7-9", (7, 8, 9)),
    ("08", (8,)),
    ("transformer_blocks.8.attn", (8,)),
    ("transformer_blocks.8", (8,)),
    ("double_blocks.8", (8,)),
    ("transformer_blocks.8.attn, double_blocks.12, 16", (8, 12, 16)),
    ("auto", tuple(range(7, 19))),
    (" auto ", tuple(range(7, 19))),
]

# With a scale, heads or single blocks: (index, single, scale, heads) of each block.
DETAILED = [
    ("8:3.0", [(8, False, 3.0, None)]),
    ("8 : 3", [(8, False, 3.0, None)]),
    ("8:.5", [(8, False, 0.5, None)]),
    ("8:0", [(8, False, 0.0, None)]),
    ("8:10.", [(8, False, 10.0, None)]),
    ("12[0-7,12]", [(12, False, None, ((0, 7), (12, 12)))]),
    ("12[ 12, 0 - 7 ]", [(12, False, None, ((0, 7), (12, 12)))]),
    ("12[3,0-1,2,2]", [(12, False, None, ((0, 3),))]),
    ("16[0-3]:1.5", [(16, False, 1.5, ((0, 3),))]),
    ("s20", [(20, True, None, None)]),
    ("all", [(i, False, None, None) for i in range(19)] + [(i, True, None, None) for i in range(38)]),
    ("s0-2:2", [(i, True, 2.0, None) for i in (0, 1, 2)]),
    ("s20, 18", [(18, False, None, None), (20, True, None, None)]),
    ("single_blocks.20", [(20, True, None, None)]),
    ("single_blocks.20[23]", [(20, True, None, ((23, 23),))]),
    ("single_transformer_blocks.20.attn", [(20, True, None, None)]),
    ("single_transformer_blocks.20:4", [(20, True, 4.0, None)]),
    ("transformer_blocks.8.attn[0-3]:1.5", [(8, False, 1.5, ((0, 3),))]),
    ("double_blocks.8:2", [(8, False, 2.0, None)]),
    ("8-10:2.0", [(i, False, 2.0, None) for i in (8, 9, 10)]),
    ("8-9[0-3]:2.0", [(i, False, 2.0, ((0, 3),)) for i in (8, 9)]),
    ("8:3.0, 8:3", [(8, False, 3.0, None)]),
    ("8-10:2, 9:2.0, 12", [(i, False, 2.0, None) for i in (8, 9, 10)] + [(12, False, None, None)]),
    ("8[0,1], 8[0-1]", [(8, False, None, ((0, 1),))]),
    ("8:2, s8:3", [(8, False, 2.0, None), (8, True, 3.0, None)]),
    ("12[0-7,12], 8:3.0, s20", [(8, False, 3.0, None), (12, False, None, ((0, 7), (12, 12))), (20, True, None, None)]),
]

REFUSED = [
    ("", "empty item"),
    (" ", "empty item"),
    ("8,", "empty item"),
    (",8", "empty item"),
    ("8,,12", "empty item"),
    ("8;12", '"8;12"'),
    ("8 12", '"8 12"'),
    ("eight", '"eight"'),
    ("auto, 8", '"auto"'),
    ("all, 8", '"all"'),
    ("Auto", '"Auto"'),
    ("-1", '"-1"'),
    ("--1", '"--1"'),
    ("8-", '"8-"'),
    ("-8-12", '"-8-12"'),
    ("12-8", '"12-8" runs backwards; write 8-12'),
    ("8--12", '"8--12"'),
    ("1.5", '"1.5"'),
    ("+8", '"+8"'),
    ("٨", '"٨"'),
    ("0x8", '"0x8"'),
    ("transformer_blocks.8.attn.to_q", '"transformer_blocks.8.attn.to_q"'),
    ("transformer_blocks.8-12", '"transformer_blocks.8-12"'),
    ("double_blocks.8.attn", '"double_blocks.8.attn"'),
    ("transformer_blocks.", '"transformer_blocks."'),
    ("8\n;", '"8'),
    ("25", "block 25 does not exist: this model has double blocks 0 to 18"),
    ("19", "block 19 does not exist: this model has double blocks 0 to 18"),
    ("8, 17-19", "block 19 does not exist: this model has double blocks 0 to 18"),
    ("transformer_blocks.19.attn", "block 19 does not exist"),
    ("9" * 5000, "does not exist"),
    ("8:", '"8:": its scale "" is not a number from 0 to 10'),
    ("8:11", '"8:11": its scale "11" is not a number from 0 to 10'),
    ("8:10.01", '"10.01" is not a number from 0 to 10'),
    ("8:-1", '"-1" is not a number from 0 to 10'),
    ("8:nan", '"nan" is not a number from 0 to 10'),
    ("8:1e1", '"1e1" is not a number'),
    ("8:٣", '"٣" is not a number'),
    ("8:2:3", '"8:2:3" is not a block'),
    ("auto:2", '"auto:2": auto and all take neither a scale nor heads'),
    ("all[0-3]", '"all[0-3]": auto and all take neither'),
    ("12[]", '"12[]": heads are numbers and ranges'),
    ("12[0,]", '"12[0,]": heads are numbers and ranges'),
    ("12[a]", '"12[a]": heads are'),
    ("12[3-1]", '"12[3-1]" runs backwards; write 1-3'),
    ("12[0-7", '"12[0-7" is not a block'),
    ("12[0-7,12", '"12[0-7,12" is not a block'),
    ("12]0[", '"12]0[" is not a block'),
    ("12[0][1]", '"12[0][1]" is not a block'),
    ("12:2[0]", '"12:2[0]" is not a block'),
    ("[0]", '"[0]" is not a block'),
    ("s", '"s" is not a block'),
    ("S20", '"S20" is not a block'),
    ("s20-s24", '"s20-s24" is not a block'),
    ("s24-20", '"s24-20" runs backwards; write 20-24'),
    ("single_blocks.20.attn", '"single_blocks.20.attn" is not a block'),
    ("8:2, 8:3", '"8:2" and "8:3" give double block 8 different scales or heads'),
    ("8, 12, 8:3", '"8" and "8:3" give double block 8 different'),
    ("7-9:2, 12, 9[0-3]:2", '"7-9:2" and "9[0-3]:2" give double block 9 different'),
    ("0-18, 3-4, 5:1", '"0-18" and "5:1" give double block 5 different'),
    ("8[0], 8[1]", '"8[0]" and "8[1]" give double block 8 different'),
    ("s8:1, 8, single_blocks.8", '"s8:1" and "single_blocks.8" give single block 8 different'),
    ("12[22-24]", '"12[22-24]": head 24 does not exist: this model\'s blocks have heads 0 to 23'),
    ("s38", '"s38": single block 38 does not exist: this model has double blocks 0 to 18 and single blocks s0 to s37'),
    ("single_blocks.99", "single block 99 does not exist"),
]


@pytest.mark.parametrize("spec, blocks", ACCEPTED)
def test_accepts(spec, blocks):
    assert parse_blocks(spec, DOUBLES) == tuple(map(Block, blocks))
    check_spec(spec)


@pytest.mark.parametrize("spec, blocks", DETAILED)
def test_accepts_scales_heads_and_single_blocks(spec, blocks):
    assert parse_blocks(spec, DOUBLES, SINGLES, HEADS) == tuple(Block(*block) for block in blocks)
    check_spec(spec)


@pytest.mark.parametrize("spec, message", REFUSED, ids=[spec[:20] for spec, _ in REFUSED])
def test_refuses_and_quotes(spec, message):
    with pytest.raises(ValueError) as caught:
        parse_blocks(spec, DOUBLES, SINGLES, HEADS)
    assert message in str(caught.value)
    assert "double blocks 0 to 18" in str(caught.value) or "heads 0 to 23" in str(caught.value)


@pytest.mark.parametrize("spec", [spec for spec, message in REFUSED if "exist" not in message])
def test_grammar_alone_refuses_what_no_model_has(spec):
    with pytest.raises(ValueError, match="blocks: "):
        check_spec(spec)


def test_grammar_alone_leaves_depth_to_the_model():
    check_spec("0-999999")


@pytest.mark.parametrize("depth, first", [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (8, 3), (12, 4), (19, 7), (57, 21)])
def test_auto_begins_at_three_eighths(depth, first):
    assert auto_blocks(depth) == tuple(range(first, depth))


@given(st.integers(1, 1_000))
def test_auto_is_every_block_that_ends_behind_three_eighths(depth):
    assert auto_blocks(depth) == tuple(block for block in range(depth) if 8 * (block + 1) > 3 * depth)


def test_a_model_without_single_blocks_says_so():
    with pytest.raises(ValueError, match='"s0": single block 0 does not exist: .*and no single blocks'):
        parse_blocks("s0", DOUBLES)


def test_a_spec_has_a_greatest_length_and_the_error_says_it():
    longest = f"8{' ' * (MOST_SPEC - 1)}"
    check_spec(longest)
    for read in (check_spec, lambda spec: parse_blocks(spec, DOUBLES, SINGLES, HEADS)):
        with pytest.raises(ValueError, match=f"has {MOST_SPEC + 1} characters; at most {MOST_SPEC} are read") as caught:
            read(longest + " ")
        assert len(str(caught.value)) < 1000


def test_the_longest_spec_that_means_something_is_within_the_limit():
    """Every block of FLUX.1 by its longest name, with a scale of its own and every second head by its number."""
    heads = ",".join(str(head) for head in range(0, HEADS, 2))
    places = [f"double_blocks.{i}" for i in range(DOUBLES)] + [f"single_blocks.{i}" for i in range(SINGLES)]
    spec = ", ".join(f"{place}[{heads}]:1.2345" for place in places)
    assert len(parse_blocks(spec, DOUBLES, SINGLES, HEADS)) == DOUBLES + SINGLES and len(spec) < MOST_SPEC / 2


# Before, many times, behind: what a pattern that tries everything would try in n² ways.
PUMPED = [
    ("8", " ", "x"), ("8", "\t\v", "]"), ("s", " ", "s"), ("8 -", " ", "x"), ("8", " - ", "9"), ("", "0", "x"),
    ("s", "0", " 0"), ("8[", " ", "x"), ("8[0", " ", "-]"), ("8[", "0 - ", "]"), ("8[", "-", "]"), ("8[0]", " ", "x"),
    ("8:", " ", "x"), ("8:", "1", "x"), ("8:.", "1", " 1"), ("8[0] :", "\n", ":"), ("auto", " ", "x"),
    ("", "[", ""), ("", "]", ""), ("", "[]", ""), ("", "double_blocks.", "8"), ("single_blocks.", "0", "x"),
    ("transformer_blocks.8", ".attn", ""), ("", " ", ""), ("", "8 ", ""), ("", "8:", ""), ("", "-", ""),
]  # fmt: skip


@pytest.mark.parametrize("before, often, behind", PUMPED, ids=str)
def test_reading_takes_time_in_proportion_to_the_length(monkeypatch, before, often, behind):
    """So many times is done within a second; what takes the square of that is stopped by the tests' time limit."""
    monkeypatch.setattr(grammar, "MOST_SPEC", 10**9)
    with pytest.raises(ValueError, match="blocks: ") as caught:
        check_spec(before + often * 300_000 + behind)
    assert len(str(caught.value)) < 1000


def test_many_items_are_read_in_one_go(monkeypatch):
    """Contradictions are looked for among neighbours, and nothing is unrolled."""
    monkeypatch.setattr(grammar, "MOST_SPEC", 10**9)
    check_spec(", ".join(["0-999999"] * 20_000))
    check_spec(", ".join(["8[" + ",".join(["0-7"] * 20_000) + "]"] * 2))


RANGES = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)).map(sorted), min_size=1, max_size=4)
SCALES = st.none() | st.floats(0, 10)


@st.composite
def items(draw):
    """The items of a spec as a user may write it, every block in at most one of them, in any order."""
    items = []
    for single, last in ((False, 18), (True, 37)):
        cuts = sorted(draw(st.sets(st.integers(0, last + 1), min_size=2, max_size=6)))
        for first, end in zip(cuts, cuts[1:], strict=False):
            if draw(st.booleans()):
                heads = draw(st.none() | RANGES)
                scale = draw(SCALES)
                places = f"{first}-{end - 1}" if draw(st.booleans()) or end - first > 1 else f"{first}"
                inside = "" if heads is None else f"[{', '.join(f'{a} - {b}' for a, b in heads)}]"
                items.append(f"{'s' * single}{places}{inside}{'' if scale is None else f':{scale:.20f}'}")
    return draw(st.permutations(items)) or ["auto"]


@given(items())
def test_parse_print_parse_is_the_identity(items):
    blocks = parse_blocks(", ".join(items), DOUBLES, SINGLES, HEADS)
    printed = format_blocks(blocks)
    assert parse_blocks(printed, DOUBLES, SINGLES, HEADS) == blocks
    assert format_blocks(parse_blocks(printed, DOUBLES, SINGLES, HEADS)) == printed
    check_spec(printed)


@given(items(), st.randoms())
def test_order_does_not_matter(items, random):
    shuffled = items + items[:2]  # and what is said twice counts once
    random.shuffle(shuffled)
    if items != ["auto"]:
        parsed = [parse_blocks(",".join(order), DOUBLES, SINGLES, HEADS) for order in (items, shuffled)]
        assert parsed[0] == parsed[1]


@given(st.text(alphabet="0123456789sal-:[],. auto", max_size=30) | st.text(max_size=30))
def test_any_text_is_read_or_refused_by_name(text):
    try:
        blocks = parse_blocks(text, DOUBLES, SINGLES, HEADS)
    except ValueError as error:
        assert str(error).startswith("blocks: ")
    else:
        assert blocks and len({block.position(DOUBLES) for block in blocks}) == len(blocks)
        assert all(0 <= block.index < (SINGLES if block.single else DOUBLES) for block in blocks)


# --- places in a model ---


def test_where_a_branch_is_merged():
    places = [merge_position((8, 12), 19, 38, reach, 0) for reach in ("attention", "double blocks", "output")]
    assert places == [None, 18, 56]
    assert merge_position((19 + 20,), 19, 38, "output", 0) == 56
    assert merge_position((19 + 20,), 19, 38, "attention", 3) == 19 + 23


def test_a_branch_goes_on_to_its_last_chosen_block():
    """Nothing that was chosen is left out because the reach is named after the double blocks."""
    assert merge_position((19 + 20,), 19, 38, "double blocks", 0) == 19 + 20
    assert merge_position((8, 19 + 3), 19, 38, "double blocks", 0) == 19 + 3


def test_a_branch_that_leads_beyond_the_model_is_refused():
    with pytest.raises(ValueError, match="from single block 37, this model's.*leave at most 0"):
        merge_position((19 + 37,), 19, 38, "attention", 1)


def test_blocks_in_words():
    blocks = parse_blocks("s20-21, 12[0-3]:1.5, 8", DOUBLES, SINGLES)
    assert blocks_name(blocks) == "double blocks 8, 12[0-3]:1.5 and single blocks 20, 21"
    assert blocks_name(parse_blocks("s3", DOUBLES, SINGLES)) == "single blocks 3"
