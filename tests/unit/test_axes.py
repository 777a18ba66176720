"""What NAG-PAG Compare's axes span, and what is said of a text that is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag.comparison.axes import read_axes
from nag_pag_flux.nagpag.inputs.comparison import AXES, MOST_PICTURES
from nag_pag_flux.nagpag.inputs.guidance import INPUTS
from nag_pag_flux.nagpag.inputs.presets import PRESETS
from nag_pag_flux.nagpag.settings import Settings


def test_two_axes_and_what_holds_for_all():
    grid = read_axes("scale: 1, 3\n\n alpha : 0.3 \nblocks: auto; 8, 12 ;")
    assert grid.columns == ("off", "scale 1", "scale 3")
    assert grid.rows == ("blocks auto", "blocks 8, 12")
    assert grid.same == "alpha 0.3"
    assert grid.cells == tuple(
        (None, *(Settings(scale=scale, blocks=blocks, alpha=0.3) for scale in (1.0, 3.0)))
        for blocks in ("auto", "8, 12")
    )
    assert grid.different[0] is None and len(grid.different) == 5


@pytest.mark.parametrize(
    "text, columns, rows, cells",
    [
        ("", ("off", "guided"), ("",), [[None, Settings()]]),
        ("alpha: 0.3", ("off", "guided"), ("",), [[None, Settings(alpha=0.3)]]),
        ("scale: 0, 3", ("scale 0 (off)", "scale 3"), ("",), [[None, Settings()]]),
        (
            "tau: 1.2, 2\nalpha: 0, 0.3",
            ("tau 1.2", "tau 2"),
            ("alpha 0 (off)", "alpha 0.3"),
            [[None, None], [Settings(tau=1.2, alpha=0.3), Settings(tau=2, alpha=0.3)]],
        ),
        (
            "negative_prompt: off, sampler's",
            ("off", "negative_prompt off", "negative_prompt sampler's"),
            ("",),
            [[None, Settings(negative_prompt="off"), Settings()]],
        ),
        ("renew_every: 2,2 , 2", ("off", "guided"), ("",), [[None, Settings(renew_every=2)]]),
        (
            "renew_every: 0, 6",
            ("off", "renew_every 0", "renew_every 6"),
            ("",),
            [[None, Settings(), Settings(renew_every=6)]],
        ),
        (
            "guide_unconditional: true; False",
            ("off", "guide_unconditional true", "guide_unconditional false"),
            ("",),
            [[None, Settings(guide_unconditional=True), Settings()]],
        ),
        (
            "preset: gentle, strong\nscale: 2",
            ("off", "preset gentle", "preset strong"),
            ("",),
            [[None, *(Settings(**{**PRESETS[name], "scale": 2}) for name in ("gentle", "strong"))]],
        ),
        ("perturbation: 0\nnegative_prompt: off", ("off",), ("",), [[None]]),
        ("tau: 1.2, 2\nscale: 0", ("off",), ("",), [[None]]),
        (  # a cell that is off among others is no column of it
            "negative_prompt: off, sampler's\nperturbation: 0, 0.3",
            ("off", "negative_prompt off", "negative_prompt sampler's"),
            ("perturbation 0", "perturbation 0.3"),
            [
                [None, None, Settings(perturbation=0)],
                [None, Settings(negative_prompt="off", perturbation=0.3), Settings(perturbation=0.3)],
            ],
        ),
    ],
)
def test_what_a_text_spans_has_off_in_it_once(text, columns, rows, cells):
    grid = read_axes(text)
    assert (grid.columns, grid.rows, grid.cells) == (columns, rows, tuple(map(tuple, cells)))
    assert grid.different[0] is None and len(set(grid.different)) == len(grid.different)


@pytest.mark.parametrize(
    "text, quoted",
    [
        ("scale 1, 3", "'scale 1, 3' has no colon"),
        ("scael: 1, 3", "'scael' is no input to compare; valid are scale, alpha"),
        ("curve: 1", "'curve' is no input to compare"),
        ("scale:", "scale has no values; valid is a number from 0 to 10"),
        ("scale: , ;", "scale has no values"),
        ("scale: 1, much", "scale 'much' is not a number from 0 to 10"),
        ("scale: 1, 11", "scale 11.0 is not a number from 0 to 10"),
        ("scale: nan", "scale nan is not a number from 0 to 10"),
        ("renew_every: 1.5", "renew_every '1.5' is not a whole number from 0 to 20"),
        ("renew_every: " + "9" * 5000, "is not a whole number from 0 to 20"),
        ("negative: sideways", "negative 'sideways' is not one of 'identity', 'softened'"),
        ("guide_unconditional: maybe", "guide_unconditional 'maybe' is not true or false"),
        ("preset: wild", "preset 'wild' is not one of 'default', 'gentle'"),
        ("blocks: auto; x", '"x" is not a block'),
        ("blocks: auto, 9-18", "Several specs have semicolons between them"),
        ("scale: 1\nscale: 3", "scale: named on several lines"),
        ("scale: 1, 3\ntau: 2, 3\nalpha: 0.1, 0.2", "scale, tau, alpha have several values each; at most 2"),
        ("scale: 1\nstart_percent: 0.6\nend_percent: 0.4", "start_percent 0.6 is after end_percent 0.4"),
        ("x" * (AXES.most + 1), f"is not a text of at most {AXES.most} characters"),
        (
            f"tau: {','.join(str(1 + i / 100) for i in range(65))}\nscale: 1,2",
            f"65 of tau times 2 of scale are 130 settings; at most {MOST_PICTURES}",
        ),
    ],
)
def test_what_is_wrong_is_quoted_with_what_is_valid(text, quoted):
    with pytest.raises(ValueError) as caught:
        read_axes(text)
    assert quoted in str(caught.value) and len(str(caught.value)) < 1500


LINES = st.builds(
    "{}:{}".format,
    st.sampled_from([item.name for item in INPUTS]),
    st.lists(st.sampled_from(["0", "1", "0.5", "off", "auto", "8", "output", "", "true", "é"])).map(",".join),
)


@given(st.one_of(st.text(), st.lists(LINES, max_size=3).map("\n".join)))
def test_any_text_is_a_grid_or_refused_in_words(text):
    try:
        grid = read_axes(text)
    except ValueError as error:
        assert str(error).startswith("NAG-PAG")
        return
    assert len(grid.cells) == len(grid.rows)
    assert all(len(row) == len(grid.columns) for row in grid.cells)
    lines = {
        **dict(zip(grid.columns, zip(*grid.cells, strict=True), strict=True)),
        **dict(zip(grid.rows, grid.cells, strict=True)),
    }
    assert any(label.endswith("off)") or label == "off" for label, line in lines.items() if not any(line))
