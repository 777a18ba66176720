"""The house: who may know whom, no circles, and nothing too long to be read. Imports are as the code states them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from nag_pag_flux.lab import host

MOST_FUNCTION, MOST_FILE, MOST_COLUMNS = 50, 350, 120
# Tables of words for people, and what is only a test.
WORDS = ("nagpag/inputs/", "tests/")

# A room is a path without .py, or a folder's beginning. What the rooms of a line may import, beside themselves.
METHOD = ("nagpag/guidance", "nagpag/perturbation", "nagpag/measure")
ASKED = ("nagpag/blocks", "nagpag/candidates", "nagpag/naming", "nagpag/schedule", "nagpag/settings", "nagpag/inputs/")
SERVICE = tuple(
    f"nagpag/service/{name}" for name in ("__init__", "request", "models", "checkpoint", "graphs", "loaders")
)
LAB = tuple(
    f"lab/{name}"
    for name in (
        "__init__",
        "run",
        "host",
        "in_host",
        "server",
        "graphs",
        "demo",
        "test_hosts",
        "ray_jobs",
        "small_sizes",
    )
)
PACK = ("nagpag/", "nodes/")
MAY_KNOW = {
    METHOD: (),
    ASKED: (),
    ("nagpag/patch/",): (*METHOD, *ASKED),
    ("nagpag/kept",): (),
    ("nagpag/diagnostics/",): (*METHOD, *ASKED, "nagpag/patch/"),
    ("nagpag/calibration/", "nagpag/comparison/"): (*METHOD, *ASKED, "nagpag/patch/", "nagpag/kept"),
    SERVICE: ASKED,
    ("nagpag/service/server/",): (*ASKED, *SERVICE),
    ("nagpag/service/client/",): (*ASKED, *SERVICE),
    ("nagpag/client", "nagpag/__main__", "nagpag/__init__"): ("nagpag/service/client/",),
    ("nodes/",): (
        *(*METHOD, *ASKED, "nagpag/patch/", "nagpag/kept"),
        *("nagpag/diagnostics/", "nagpag/calibration/", "nagpag/comparison/"),
    ),
    ("__init__",): ("nodes/", "nagpag/service/server/"),
    LAB: (*PACK, "lab/toy/"),
    ("lab/toy/",): (*PACK, *LAB),
    ("lab/make/",): (*PACK, *LAB, "lab/toy/"),
    ("lab/evidence/",): (*PACK, *LAB, "lab/toy/", "lab/make/markdown"),
    ("lab/beside/",): (*PACK, *LAB, "lab/toy/small_models", "lab/make/markdown"),
    ("lab/cost/",): (
        *PACK,
        *LAB,
        "lab/toy/flux",
        "lab/toy/small_families",
        "lab/evidence/contenders",
        "lab/make/markdown",
    ),
    ("lab/fuzz/",): (*PACK, *LAB, "lab/make/markdown"),
}
# Which rooms may import what is not ours, by the first part of its name; the standard library anybody may.
HOST = (
    *("comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfyui_version"),
    *("folder_paths", "latent_preview", "nodes", "server"),
)
OUTSIDE = {
    METHOD: ("torch",),
    ASKED: (),
    ("nagpag/patch/",): ("torch", *HOST),
    ("nagpag/diagnostics/plot",): ("torch", "numpy", "matplotlib"),
    ("nagpag/diagnostics/record",): ("torch",),
    ("nagpag/diagnostics/__init__", "nagpag/client", "nagpag/__main__", "nagpag/__init__"): (),
    ("nagpag/diagnostics/recording", "nagpag/diagnostics/inspect", "nagpag/diagnostics/neighbours"): ("torch", *HOST),
    ("nagpag/calibration/",): ("torch", *HOST),
    ("nagpag/comparison/axes", "nagpag/comparison/told", "nagpag/comparison/__init__"): (),
    ("nagpag/comparison/drawing",): ("torch", *HOST),
    ("nagpag/kept",): ("torch",),
    ("nagpag/comparison/sheet",): ("torch", "numpy", "PIL"),
    SERVICE: (),
    ("nagpag/service/server/host",): HOST,
    ("nagpag/service/server/",): ("aiohttp", "pydantic", "PIL", "yarl"),
    ("nagpag/service/client/sweep/cluster",): ("ray",),
    ("nagpag/service/client/",): ("tqdm", "PIL"),
    ("nodes/",): ("torch", "typing_extensions", *HOST),
    ("__init__",): (),
}


def sources():
    """Every Python file of ours but tests, path → text."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=host.REPO, capture_output=True, text=True, check=True)
    paths = [path for path in listed.stdout.split() if not path.startswith("tests/")]
    return {path: (host.REPO / path).read_text() for path in paths}


def imports(path, text, known):
    """What a file imports: paths of ours among `known`, and the names of what is not ours."""
    ours, outside = set(), set()
    folder = Path(path).parent
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            outside.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            place = folder
            for _ in range(node.level - 1):
                place = place.parent
            place = place.joinpath(*(node.module or "").split(".")) if node.module else place
            for alias in node.names:
                tried = (place / f"{alias.name}.py", place / alias.name / "__init__.py", place.with_suffix(".py"))
                found = [one.as_posix() for one in (*tried, place / "__init__.py") if one.as_posix() in known]
                assert found, f"{path} imports {alias.name} from {place}, which is not there"
                ours.add(found[0])
    return ours, {name for name in outside if name not in sys.stdlib_module_names and name != "__future__"}


def in_room(path, rooms):
    name = path.removesuffix(".py")
    return any(name.startswith(room) if room.endswith("/") else name == room for room in rooms)


def forbidden(path, others):
    """Those of `others` that this file may not import."""
    (rooms,) = (rooms for rooms in MAY_KNOW if in_room(path, rooms))
    return sorted(other for other in others if not in_room(other, (*rooms, *MAY_KNOW[rooms])))


def circle(edges):
    """The files of one circle, in order, or None. edges: file → the files that it imports."""
    done, way = set(), []

    def walk(path):
        if path in way:
            return way[way.index(path) :]
        if path in done:
            return None
        way.append(path)
        for other in sorted(edges.get(path, ())):
            if found := walk(other):
                return found
        done.add(way.pop())
        return None

    return next(filter(None, map(walk, sorted(edges))), None)


@pytest.fixture(scope="module")
def house():
    return sources()


@pytest.fixture(scope="module")
def edges(house):
    return {path: imports(path, text, house)[0] - {path} for path, text in house.items()}


def test_no_circle_among_the_files(edges):
    assert circle(edges) is None


def test_no_arrow_that_the_house_forbids(edges):
    assert {path: wrong for path, others in edges.items() if (wrong := forbidden(path, others))} == {}


def test_what_is_not_ours_is_imported_only_where_it_may_be(house):
    wrong = {}
    for path, text in house.items():
        if path.startswith("lab/"):  # at home, with whatever a measurement takes
            continue
        allowed = next(names for rooms, names in OUTSIDE.items() if in_room(path, rooms))
        if more := imports(path, text, house)[1] - set(allowed):
            wrong[path] = sorted(more)
    assert wrong == {}


def test_every_folder_says_what_it_is_for(house):
    for path, text in house.items():
        if path.endswith("/__init__.py"):
            words = ast.get_docstring(ast.parse(text))
            assert words and len(words) > 60, path


def test_no_function_and_no_file_is_too_long(house):
    long = {}
    for path, text in house.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_FUNCTION:
                    long[f"{path}: {node.name}"] = lines
        if len(text.splitlines()) > MOST_FILE and not path.startswith(WORDS):
            long[path] = len(text.splitlines())
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > MOST_COLUMNS and not line.rstrip().endswith("# fmt: skip"):
                long[f"{path}:{number}"] = len(line)
    assert long == {}


# --- the tests above would see it ---


def test_a_circle_is_found_with_its_files():
    assert circle({"a.py": {"b.py"}, "b.py": {"c.py"}, "c.py": {"b.py"}, "d.py": set()}) == ["b.py", "c.py"]
    assert circle({"a.py": {"b.py", "c.py"}, "b.py": {"c.py"}, "c.py": set()}) is None


@pytest.mark.parametrize(
    "path, line, other",
    [
        ("nagpag/guidance.py", "from .patch.plan import Plan", "nagpag/patch/plan.py"),
        ("nagpag/patch/plan.py", "def f():\n    from ..diagnostics import record", "nagpag/diagnostics/record.py"),
        ("nagpag/calibration/search.py", "from ..diagnostics.plot import draw", "nagpag/diagnostics/plot.py"),
        ("nagpag/diagnostics/plot.py", "from ..calibration import search", "nagpag/calibration/search.py"),
        ("nagpag/service/client/cli.py", "from ..server import graph", "nagpag/service/server/graph.py"),
        ("nagpag/service/server/graph.py", "from ...patch import plan", "nagpag/patch/plan.py"),
        ("nodes/guidance.py", "from ..nagpag.service.request import ENDPOINTS", "nagpag/service/request.py"),
        ("nagpag/blocks.py", "from ..lab.host import REPO", "lab/host.py"),
        ("lab/toy/training.py", "from ..evidence.runs import folder", "lab/evidence/runs.py"),
        ("lab/evidence/runs.py", "from ..cost.bench import measure", "lab/cost/bench.py"),
    ],
)
def test_a_forbidden_arrow_is_found_where_the_code_states_it(house, path, line, other):
    assert other in forbidden(path, imports(path, line, house)[0])
