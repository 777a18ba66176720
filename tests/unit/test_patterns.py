"""No pattern of the repo can be made to try n² ways: what strangers send is read in time in proportion to its length.

A pattern can, where two repeats may take the same characters and nothing between them tells where the one ends: `a*a*`,
`(a+)*`, `a*ba*` with b among a. So can a search for what begins with a repeat, as it begins anew at every place.
"""

import ast
import re

import pytest
from nag_pag_flux.lab import host

ALL = frozenset(map(chr, range(0x180)))
SEARCHING = ("search", "sub", "subn", "split", "findall", "finditer")
READING = (*SEARCHING, "compile", "match", "fullmatch")
MANY = 20  # more repeats than this count as any number


def characters(op, value):
    """Those that one place of a pattern takes."""
    name = str(op)
    if name == "LITERAL":
        return frozenset({chr(value)})
    if name == "NOT_LITERAL":
        return ALL - {chr(value)}
    if name == "RANGE":
        return frozenset(map(chr, range(value[0], value[1] + 1)))
    if name == "CATEGORY":
        word = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[str(value).split("_")[-1]]
        found = frozenset(character for character in ALL if re.match(word, character))
        return ALL - found if "NOT" in str(value) else found
    if name == "IN":
        found = frozenset().union(*(characters(*one) for one in value if str(one[0]) != "NEGATE"))
        return ALL - found if str(value[0][0]) == "NEGATE" else found
    assert name == "ANY", name
    return ALL


def walk(parsed, before):
    """What may still be going on behind `parsed`: the characters of repeats that its end does not end.

    before: the same in front of it. Raises ValueError at a repeat that takes what one of those takes.
    """
    for op, value in parsed:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            before = repeated(*value, before)
        elif name == "SUBPATTERN":
            before = walk(value[-1], before)
        elif name == "BRANCH":
            before = [one for branch in value[1] for one in walk(branch, before)]
        elif name == "AT":
            before = [] if str(value) == "AT_BEGINNING" else before
        elif name not in ("ASSERT", "ASSERT_NOT"):
            before = [both for one in before if (both := one & characters(op, value))]
    return before


def repeated(least, most, body, before):
    if most <= MANY:
        after = walk(body, before)
        return after if least else [*before, *after]
    if len(body) != 1 or str(body[0][0]) not in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
        once = walk(body, before)
        return [*before, *walk(body, once)]  # and what its end has in common with its own beginning
    taken = characters(*body[0])
    if any(one & taken for one in before):
        raise ValueError
    return [*(before if not least else []), taken]


def is_quadratic(pattern, searching):
    try:
        walk(re._parser.parse(pattern), [ALL] if searching else [])
    except ValueError:
        return True
    return False


def patterns():
    """(file, line, pattern, whether it is searched for) of each text that Python's `re` is given."""
    for path in sorted(path for room in ("nagpag", "nodes", "lab") for path in (host.REPO / room).rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READING:
                name = node.func.value.id if isinstance(node.func.value, ast.Name) else None
                first = node.args[0] if node.args else None
                if name == "re" and isinstance(first, ast.Constant):
                    yield path.relative_to(host.REPO).as_posix(), node.lineno, first.value, searched(node, text)


def searched(node, text):
    """Of a compiled pattern whether it is anywhere: the line says under which name."""
    if node.func.attr != "compile":
        return node.func.attr in SEARCHING
    name = text.splitlines()[node.lineno - 1].partition(" =")[0].strip()
    return any(f"{name}.{how}(" in text for how in SEARCHING)


def test_no_pattern_of_ours_is_quadratic():
    found = list(patterns())
    assert len(found) > 8 and any(path == "nagpag/blocks.py" for path, *_ in found)
    assert [one for one in found if is_quadratic(*one[2:])] == []


def test_what_the_browser_loads_has_no_pattern():
    used = r"RegExp|\.(match|matchAll|search|test|exec)\(|(replace|replaceAll|split)\(/"
    assert [path.name for path in (host.REPO / "web").glob("*.js") if re.search(used, path.read_text())] == []


# --- the test above would see it ---


QUADRATIC = [r"a*a*", r"\s*(?:\[x\])?\s*", r"(a+)+", r"(?:a|b+)*", r"\d*1\d*", r"(?:\s*-\s*)*", r"[a-z]*-?[x-z]+!"]
LINEAR = [r"a*b*", r"[0-9]+(?:\s*-\s*[0-9]+)?\s*", r"(?:ab*c)*", r"\s*x", r"\[[^\]\[]*\]", r"a{1,3}a*"]


@pytest.mark.parametrize("pattern", QUADRATIC)
def test_a_quadratic_pattern_is_found(pattern):
    assert is_quadratic(pattern, searching=False)


@pytest.mark.parametrize("pattern", [r" *x", r"[0-9]+", r"\[.*\]", r"(?:\w+)x"])
def test_a_search_that_begins_anew_at_every_place_is_found(pattern):
    assert is_quadratic(pattern, searching=True) and not is_quadratic(pattern, searching=False)


@pytest.mark.parametrize("pattern", LINEAR)
def test_what_takes_linear_time_is_left_alone(pattern):
    assert not is_quadratic(pattern, searching=False) and not is_quadratic(f"^{pattern}", searching=True)
