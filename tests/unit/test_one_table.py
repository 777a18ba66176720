"""An input is described once: nodes, requests and options are made from it, and a default stands nowhere else."""

import ast
import dataclasses

import pytest
from nag_pag_flux.lab import host
from nag_pag_flux.lab.make.locales import NODES
from nag_pag_flux.nagpag import blocks
from nag_pag_flux.nagpag.inputs import calibration, guidance, presets, requests
from nag_pag_flux.nagpag.inputs.kinds import REQUIRED, Choice, Flag, Need, Number, Socket, Text, Texts, plain
from nag_pag_flux.nagpag.service import request
from nag_pag_flux.nagpag.settings import Settings


def calls(folder, *names):
    """Where a function or method of one of these names is called, file → how often."""
    found = {}
    for path in sorted((host.REPO / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", None))
            if isinstance(node, ast.Call) and name in names:
                file = path.relative_to(host.REPO).as_posix()
                found[file] = found.get(file, 0) + 1
    return found


def test_widgets_options_and_fields_are_made_in_one_place_each():
    assert calls("nodes", "Input", "Output").keys() == {"nodes/schema.py"}
    # An argument without dashes, and an option; all of them by the table's names.
    client = "nagpag/service/client"
    assert calls("nagpag", "add_argument") == {f"{client}/options.py": 2}
    assert calls("nagpag/service", "Field") == {"nagpag/service/server/schema.py": 1}


def test_settings_are_the_inputs_of_the_node():
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    sockets = {item.name: None for item in (guidance.CURVE, guidance.NEGATIVE_CONDITIONING)}
    assert fields == guidance.ADVANCED.defaults | sockets
    saved = {item.name: item.default for item in guidance.SAVED_WIDGETS}
    assert saved | {"negative_prompt": "sampler's"} == guidance.ADVANCED.defaults


def test_the_simple_node_has_at_most_six_inputs_and_its_sister_has_them_too():
    assert len(guidance.GUIDANCE.inputs) <= 6
    assert set(guidance.GUIDANCE.inputs) < set(guidance.ADVANCED.inputs)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.id)
def test_every_input_has_a_name_of_its_own_and_says_what_it_does(node):
    assert len({item.name for item in node.inputs}) == len(node.inputs)
    for item in (*node.inputs, *node.outputs):
        assert len(item.does) > 15 and item.does.endswith(".")
    for item in node.widgets:
        assert item.problem(item.default) is None, item
        others = {other.name for other in (*node.inputs, *guidance.ADVANCED.inputs)}
        assert all(need.name in others for need in item.needs)


@pytest.mark.parametrize("endpoint", request.ENDPOINTS)
def test_every_field_has_a_valid_default_or_is_required(endpoint):
    fields = request.ENDPOINTS[endpoint][1]
    assert len({item.name for item in fields}) == len(fields)
    for item in fields:
        assert item.required or item.nullable or item.problem(item.default) is None, item


def test_the_published_blocks_are_one_constant():
    assert blocks.PUBLISHED == blocks.published_blocks(19) == (8, 12, 16)
    assert blocks.published_blocks(8) == (3, 5, 6) and blocks.published_blocks(4) == (1, 2, 3)
    assert requests.LAYERS.default == tuple(f"transformer_blocks.{block}.attn" for block in blocks.PUBLISHED)
    for depth in range(1, 60):
        found = blocks.published_blocks(depth)
        assert list(found) == sorted(set(found)) and found[0] >= 0 and found[-1] < depth


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_sets_valid_values_and_something_else_than_the_others(name):
    whole = {one: Settings(**values) for one, values in presets.PRESETS.items()}
    assert [one for one in whole if whole[one] == whole[name]] == [name]
    assert (whole[name] == Settings()) == (name == presets.PRESET.default)


def test_gentle_and_strong_lie_on_both_sides_of_the_default():
    gentle, strong = (presets.PRESETS[name]["scale"] for name in ("gentle", "strong"))
    assert gentle < guidance.SCALE.default < strong


def test_other_presets_name_all_that_makes_them():
    """So that they stay what they are when a default changes."""
    named = [set(values) for name, values in presets.PRESETS.items() if name not in ("default", "gentle", "strong")]
    parts = (guidance.REACH, guidance.RENEW_EVERY, guidance.BLOCKS, guidance.SCALE, guidance.TAU, guidance.ALPHA)
    parts = (*parts, guidance.PERTURBATION, guidance.START_PERCENT, guidance.END_PERCENT, guidance.NEGATIVE_PROMPT)
    assert len(named) == 2 and all(one == {item.name for item in parts} for one in named)


@pytest.mark.parametrize("own", [guidance.REACH, guidance.NEGATIVE_PROMPT], ids=lambda item: item.name)
def test_what_calibrate_finds_is_for_the_nodes_defaults(own):
    item = calibration.CALIBRATE.input(own.name)
    assert isinstance(item, Choice) and (item.options, item.default) == (own.options, own.default)


# --- kinds ---

COMMON = {"name": "x", "does": "Something."}


@pytest.mark.parametrize(
    "item, rule, good, bad",
    [
        (Number(**COMMON, default=1, minimum=0, maximum=2, whole=True), "a whole number from 0 to 2", (0, 2), (3, 1.5)),
        (Number(**COMMON, default=1.0, minimum=0.5, maximum=2.0), "a number from 0.5 to 2", (0.5, 1), ("1", 2.1)),
        (
            Number(**COMMON, default=None, minimum=0, maximum=2**64 - 1, whole=True),
            "a whole number from 0 to 18446744073709551615 or null",
            (2**64 - 1,),
            (2**64,),
        ),
        (Choice(**COMMON, default="a", options=("a", "b")), "one of 'a', 'b'", ("b",), ("c", 1)),
        (Flag(**COMMON, default=False), "true or false", (True,), (1, "true")),
        (Text(**COMMON, default="", most=9), "a text of at most 9 characters", ("", "x" * 9), (1, None, "x" * 10)),
        (
            Texts(**COMMON, default=("a",), least=1, most=2, longest=3),
            "a list of 1 to 2 texts of at most 3 characters",
            (["a"], ("abc", "")),
            ([], "a", ["a"] * 3, ["abcd"], [5]),
        ),
        (Socket(**COMMON, kind="MODEL"), "MODEL", (object(),), ()),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_kind_says_what_is_valid_and_what_is_wrong(item, rule, good, bad):
    assert item.rule() == rule
    assert [item.problem(value) for value in good] == [None] * len(good)
    assert [item.problem(value) for value in bad] == [f"x {value!r} is not {rule}" for value in bad]


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000, "x" * 10**6, [[0] * 10**5], True], ids=type)
def test_whatever_is_wrong_is_refused_in_a_short_sentence(value):
    for item in (Number(**COMMON, default=1, minimum=0, maximum=9), Number(**COMMON, minimum=0, maximum=9, whole=True)):
        assert item.rule() in item.problem(value) and len(item.problem(value)) < 300


def test_what_has_no_default_is_required():
    assert Text(**COMMON).required and not Text(**COMMON, default=None).required
    assert Text(**COMMON, default=None).nullable and repr(REQUIRED) == "REQUIRED"


def test_a_need_is_met_by_a_word_or_above_a_number():
    assert Need("reach", ("output",)).met("output") and not Need("reach", ("output",)).met("attention")
    assert Need("reach_blocks", above=0).met(1) and not Need("reach_blocks", above=0).met(0)


def test_numbers_as_people_write_them():
    assert [plain(number) for number in (1.0, 0.5, 10, 2**64 - 1)] == ["1", "0.5", "10", "18446744073709551615"]
