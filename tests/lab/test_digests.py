"""What is trained, drawn and judged here is named by the code that computes it, and by nothing else."""

import ast
import re

import pytest
from nag_pag_flux.lab.evidence import judge_cnn, recovery, runs
from nag_pag_flux.lab.toy import autoencoder, digests, training

KINDS = {
    "the small FLUX": (training.recipe_sources, training.recipe_digest),
    "its decoder": (autoencoder.recipe_sources, autoencoder.recipe_digest),
    "the CNN judge": (judge_cnn.recipe_sources, judge_cnn.recipe_digest),
    "verdicts": (runs.judges_sources, runs.judges_digest),
    "guided pictures": (runs.code_sources, runs.code_digest),
    "what is found again": (recovery.measure_sources, recovery.measure_digest),
}
# What each was called when bytes named it: shipped weights say so, and pictures are kept under these names.
EARLIER = {
    "the small FLUX": "9ca429b5c39e",
    "its decoder": "4baf76c86146",
    "the CNN judge": "817033e2cc4b",
    "verdicts": "475f8c15e8e2",
    "guided pictures": "0f8110a07ff2",
    "what is found again": "b0f754825649",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_made_before_is_still_found(kind):
    assert KINDS[kind][1]() == EARLIER[kind], "computed otherwise than what is kept: make it anew, or undo the change"


@pytest.mark.parametrize("kind", KINDS)
def test_a_comment_a_docstring_a_log_line_an_error_and_an_import_change_nothing(kind):
    said = '''
import somewhere.else_entirely
"""A text by itself."""
log.warning("another %s", "line")
'''
    for source in KINDS[kind][0]():
        changed = re.sub(r"^( *)(return|x = )", r"\1# Why.\n\1\2", source, flags=re.MULTILINE) + said
        changed = re.sub(r'^( +)"""[A-Z]', r'\1"""Other words. ', changed, flags=re.MULTILINE)
        changed = re.sub(r"(raise ValueError\()", r"\1'why' or ", changed)
        assert changed != source
        assert digests.digest([changed]) == digests.digest([source])


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_or_operation_anywhere_is_another_name(kind):
    changed_at_all = 0
    for source in KINDS[kind][0]():
        for old, new in ((" * ", " / "), (" - ", " + "), ("1.0", "1.5"), ("clamp(", "clip("), (" == ", " != ")):
            code = "\n".join(line for line in source.splitlines() if not line.strip().startswith(("#", '"')))
            if old in code.split("def ", 1)[-1] and _computes(source, old, new):
                changed = source.replace(old, new)
                assert digests.digest([changed]) != digests.digest([source]), (source[:80], old)
                changed_at_all += 1
    assert changed_at_all


def _computes(source, old, new):
    """Whether the change touches more than what is only said, by a reading of its own: the code's numbers and signs."""

    def numbers_and_signs(text):
        tree = ast.parse(text)
        kinds = (ast.operator, ast.cmpop, ast.Attribute)
        found = [ast.dump(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        return found + [
            repr(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and not isinstance(n.value, str)
        ]

    return numbers_and_signs(source) != numbers_and_signs(source.replace(old, new))


@pytest.mark.parametrize(
    "one, other",
    [
        ("def f(x):\n    return 2 * x", "def f(x):\n    return 3 * x"),
        ("def f(x):\n    return 2 * x", "def f(x):\n    return 2.0 * x"),
        ("x = 0", "x = False"),
        ("x = None", "x = ()"),
        ("f(1)", "f(1, a=None)"),
        ("raise ValueError(x)", "raise TypeError(x)"),
        ("catalogue.info(1)", "catalogue.warning(1)"),
        ("x = 'a'", "x = 'b'"),
        ("def f(a, b=1): return a", "def f(a, *, b=1): return a"),
        ("a[1:]", "a[:1]"),
        ("for x in y:\n    pass", "for x in y:\n    break"),
        ("x = f'{a:g}'", "x = f'{a:f}'"),
        ("from math import floor", "from math import ceil as floor"),
        ("import math", "import cmath as math"),
    ],
)
def test_small_differences_that_count(one, other):
    assert digests.digest([one]) != digests.digest([other])


def test_layout_and_words_that_do_not():
    one = 'def f(x):\n    """Doubles."""\n    return 2 * x\n'
    same = "def f(x):\n    # Twice.\n    return 2*x\n"
    assert digests.digest([one]) == digests.digest([same])
    assert digests.digest([one], "recipe") != digests.digest([one], "another") != digests.digest([one])
    assert digests.digest([one, "x = 1"]) != digests.digest(["x = 1", one])
    assert digests.digest([one, "x = 1"]) != digests.digest([one, "x = 2"]) != digests.digest(["x = 3", "x = 2"])


def test_what_is_said_of_settings_and_blocks_is_no_part_of_guided_pictures():
    """The words of an error and of a block's name may be bettered without drawing a picture anew."""
    sources = runs.code_sources()
    for word in runs.WORDS:
        changed = {s: re.sub(rf"^( *)def {word}\(", rf"\1def {word}(more, ", s, flags=re.M) for s in sources}
        changed = {source: other for source, other in changed.items() if other != source}
        assert changed, f"no {word} any more"
        for source, other in changed.items():
            assert digests.digest([other], words=runs.WORDS) == digests.digest([source], words=runs.WORDS)
            assert digests.digest([other]) != digests.digest([source])
