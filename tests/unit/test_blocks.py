"""The block grammar: plain lists of what is accepted and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag.blocks import auto_blocks, check_spec, format_blocks, parse_blocks

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
    ("auto", (8, 12, 16)),
    (" auto ", (8, 12, 16)),
    ("all", tuple(range(19))),
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
]


@pytest.mark.parametrize("spec, blocks", ACCEPTED)
def test_accepts(spec, blocks):
    assert parse_blocks(spec, 19) == tuple(map(Block, blocks))
    check_spec(spec)


@pytest.mark.parametrize("spec, message", REFUSED, ids=[spec[:20] for spec, _ in REFUSED])
def test_refuses_and_quotes(spec, message):
    with pytest.raises(ValueError) as caught:
        parse_blocks(spec, 19)
    assert message in str(caught.value)
    assert "double blocks 0 to 18" in str(caught.value)


@pytest.mark.parametrize("spec", [spec for spec, message in REFUSED if "exist" not in message])
def test_grammar_alone_refuses_what_no_model_has(spec):
    with pytest.raises(ValueError, match="blocks: "):
        check_spec(spec)


def test_grammar_alone_leaves_depth_to_the_model():
    check_spec("0-999999")


def test_auto_keeps_the_relative_depths():
    """An independent reading: the block whose span holds the centre of FLUX.1's block, as a fraction of the depth."""
    assert auto_blocks(19) == (8, 12, 16)
    for depth in range(1, 80):
        expected = {int(centre / 19 * depth) for centre in (8.5, 12.5, 16.5)}
        assert set(auto_blocks(depth)) == expected
        assert all(0 <= block < depth for block in auto_blocks(depth))


@given(st.integers(1, 60).flatmap(lambda depth: st.tuples(st.just(depth), st.sets(st.integers(0, depth - 1)))))
def test_a_list_of_numbers_round_trips(depth_and_blocks):
    depth, blocks = depth_and_blocks
    if blocks:
        assert set(parse_blocks(format_blocks(blocks), depth)) == blocks


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_by_name(text):
    try:
        blocks = parse_blocks(text, 19)
    except ValueError as error:
        assert str(error).startswith("blocks: ")
    else:
        assert blocks and set(blocks) <= set(range(19))
