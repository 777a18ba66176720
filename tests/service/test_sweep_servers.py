"""nagpag sweep on real servers and on a real Ray, stopped and killed on the way: the pictures of one server alone."""

import contextlib
import csv
import functools
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from asking import LONG, SMALL, Service, command, pixels
from nag_pag_flux.lab import graphs, host
from nag_pag_flux.lab.server import furnish, run_graph, running_server
from PIL import Image
from showing import outputs

STEPS = 4
SET = {**SMALL, "num_inference_steps": STEPS, "nag_pag_start_percent": 0.0}
SETTINGS = "\n".join(f"{name} = {json.dumps(value)}" for name, value in SET.items())
SWEEP = f"""
prompts = ["a red cat", "a dog"]
seeds = [11]
[settings]
{SETTINGS}
[axes]
nag_pag_scale = [0, 1.5, 3.0]
"""
ALL = 6
PATIENCE = 240  # seconds, on a machine that is busy with other things; less than a test may take


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "cats.toml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def alone(service, file):
    """The folder of the sweep on the live server alone."""
    done = sweep(file, "--server", service.url, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and (told["drawn"], told["were_there"], told["failed"]) == (ALL, 0, 0)
    assert done.stderr == "" and Path(told["folder"]) == file.with_suffix("")
    return file.with_suffix("")


@pytest.fixture
def quick(file, tmp_path):
    """The same pictures, without guidance's numbers."""
    (tmp_path / "quick.toml").write_text(f"numbers = false\n{SWEEP}")
    return tmp_path / "quick.toml"


def sweep(*words, what="sweep", **env):
    words = command(what, *words)
    return subprocess.run(
        words, cwd=host.REPO, env={**os.environ, **env}, capture_output=True, text=True, timeout=PATIENCE
    )


def begin(*words, python=None):
    """Start a sweep that hears Ctrl-C, also where these tests were sent to the background."""
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    words = command("sweep", *words, **({"python": python} if python else {}))
    return subprocess.Popen(words, cwd=host.REPO, stderr=subprocess.PIPE, text=True, preexec_fn=hearing)


def end(process, held):
    """Leave nothing behind, whatever happened."""
    for one in held:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGCONT)
    if process.poll() is None:
        process.kill()


def wait_until(found, process):
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()  # else the reading of what it said would wait for its end
            raise AssertionError(process.communicate()[1])
        time.sleep(0.02)
    return value


def drawn(folder):
    """What is kept, name → what is told of it."""
    return {path.stem: json.loads(path.read_text()) for path in (folder / "pictures").glob("[!.]*.json")}


def pictures(folder):
    return {path.name: pixels(path.read_bytes()) for path in (folder / "pictures").glob("[!.]*.png")}


def assert_same_pictures(one, other):
    found, expected = pictures(other), pictures(one)
    assert found.keys() == expected.keys() and len(found) == ALL
    assert [name for name, picture in expected.items() if (found[name] != picture).any()] == []


def table(folder):
    return json.loads((folder / "table.json").read_text())


def test_pictures_are_those_of_the_requests_and_the_table_tells_of_each(alone, service):
    rows = table(alone)
    assert len(rows) == ALL and len({row["name"] for row in rows}) == ALL
    for row in rows[1:5:3]:
        asked = {**SET, "seed": row["seed"], "nag_pag_scale": row["nag_pag_scale"], "numbers": True}
        answer = service.post(prompt=row["prompt"], **asked).json()
        (picture,) = row["pictures"]
        there = pixels(requests.get(answer["images"][0]["url"], timeout=30).content)
        assert (pixels((alone / picture).read_bytes()) == there).all()
        assert row["settings"] == answer["settings"] and row["seconds"] > 0
        mean = np.average([one["ratio"] for one in answer["numbers"]["rows"]])
        assert row["ratio"] == pytest.approx(mean) and row["guided_steps"] == STEPS
    assert rows[0]["nag_pag_scale"] == 0 and (rows[0]["guided_steps"], rows[0]["ratio"]) == (0, None)
    with (alone / "table.csv").open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [row["name"] for row in found] == [row["name"] for row in rows]
    assert [row["change"] for row in found] == ["" if row["change"] is None else str(row["change"]) for row in rows]


def test_the_sheet_has_every_picture_in_its_place(alone):
    """A column for each point of the axes, a row for each prompt and seed, and a line for each prompt."""
    sheet, side, label = np.asarray(Image.open(alone / "sheet.png").convert("RGB")), 512, 32
    assert sheet.shape == (2 * (side + label) + 2 * label, 3 * side, 3)
    for number, row in enumerate(table(alone)):
        y, x = divmod(number, 3)
        top = y * (side + label) + label * (1 + y)
        cell = sheet[top : top + side, x * side : (x + 1) * side]
        assert (cell[4::8, 4::8] == pixels((alone / row["pictures"][0]).read_bytes())).all()


def test_a_second_run_draws_nothing(alone, file, service):
    before = requests.get(f"{service.url}/history", timeout=30).json().keys()
    done = sweep(file, "--server", service.url)
    assert done.returncode == 0 and f"0 drawn, {ALL} were there already, 0 failed" in done.stdout
    assert requests.get(f"{service.url}/history", timeout=30).json().keys() == before


def test_stopped_and_then_with_a_server_killed_it_ends_as_on_one_server(alone, quick, service, tmp_path):
    """What was kept stays to the byte, what was lost is drawn again, and nothing else is."""
    many = tmp_path / "many"
    process = begin(quick, "--server", service.url, "--output", many)
    wait_until(lambda: drawn(many) and service.queued(), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    kept = {path: path.read_bytes() for path in (many / "pictures").iterdir()}
    assert process.returncode == 130 and "Traceback" not in said and 0 < len(kept) < 2 * ALL
    assert sum(row["failed"] == "not drawn yet" for row in table(many)) == ALL - len(drawn(many))
    with running_server() as second, service.holding():
        Service(second).post(wait=False, **LONG)
        process = begin(quick, "--server", service.url, "--server", second.url, "--output", many)
        wait_until(lambda: len(Service(second).queued()) == 2, process)  # behind the long one
        os.killpg(second.process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert f"lost {second.url}" in said and "Traceback" not in said
    assert_same_pictures(alone, many)
    assert {path: path.read_bytes() for path in kept} == kept
    assert not [row for row in table(many) if row["failed"]]


def test_a_graph_of_ones_own(service, tmp_path):
    shipped = graphs.load_graph("flux_dev_text_to_image")
    graph = graphs.for_small_models(shipped, 64, 64, steps=2)
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    text = "prompts = ['a hat']\nseeds = [5]\ngraph = 'graph.json'\n[axes.'NAG-PAG Guidance']\nscale = [0, 2]"
    text += "\n[settings.'NAG-PAG Guidance']\nstart_percent = 0"
    (tmp_path / "own.toml").write_text(text)
    done = sweep(tmp_path / "own.toml", NAGPAG_SERVER=service.url)
    assert done.returncode == 0, done.stderr
    for row, scale in zip(table(tmp_path / "own"), (0.0, 2.0), strict=True):
        expected = graphs.with_guidance(graph, scale=scale, start_percent=0.0)
        expected["5"]["inputs"]["text"], expected["9"]["inputs"]["seed"] = "a hat", 5
        (data,) = run_graph(service.server, expected)
        assert (pixels(data) == pixels((tmp_path / "own" / row["pictures"][0]).read_bytes())).all()
        assert (row["NAG-PAG Guidance.scale"], row["guided_steps"]) == (scale, 2 if scale else 0)


def test_what_fails_is_told_and_tried_again_and_the_rest_is_drawn(service, tmp_path):
    axes = "[axes]\nnag_pag_applied_layers = ['auto', '2[9]']"
    (tmp_path / "fails.toml").write_text(f"prompts = ['a']\nseeds = [1]\n[settings]\n{SETTINGS}\n{axes}")
    for was_there in (0, 1):
        done = sweep(tmp_path / "fails.toml", "--server", service.url)
        assert done.returncode == 4 and f"{was_there} were there already, 1 failed" in done.stdout
        assert "failed: the job failed" in done.stderr and "head 9 does not exist" in done.stderr
    assert [("head 9 does not exist" in (row["failed"] or "")) for row in table(tmp_path / "fails")] == [False, True]


def test_a_calibration_finds_what_the_node_finds_and_a_second_run_draws_nothing(service, tmp_path):
    """One part, as small as it can be; how several are cut and put together tests/unit/test_search_in_parts.py says."""
    files = "".join(f"{name} = {json.dumps(SET[name])}\n" for name in ("width", "height", "t5xxl", "clip_type", "vae"))
    texts = ["a red cat", "a dog"]
    search = "candidates = 'auto'\nalphas = '0.3'\nsteps = 1\npictures = 2\nseed = 5"
    (tmp_path / "find.toml").write_text(f"prompts = {texts}\n[search]\n{search}\n[settings]\nnum_images = 1\n{files}")
    expected = by_the_node(service.server, texts, seed=5)
    told = [sweep(tmp_path / "find.toml", "--server", service.url, "--json", what="calibrate") for _ in range(2)]
    first, second = (json.loads(done.stdout) for done in told)
    assert [done.returncode for done in told] == [0, 0] and (first["drawn"], second["drawn"]) == (1, 0)
    assert first["tried"] == second["tried"] == [expected] and first["pictures"] == 2 and expected["change"] is not None


def by_the_node(server, texts, seed):
    """What Calibrate finds in a graph that is built here by hand."""
    graph = graphs.for_small_models(graphs.load_graph("flux_dev_text_to_image"), 64, 64)
    graph["4"]["inputs"]["batch_size"] = 1
    own = {"candidates": "auto", "alphas": "0.3", "reach": "prediction", "negative_prompt": "sampler's"}
    own |= {"pictures": 2, "steps": 1, "sigma": 0.7}
    links = {"model": ["1", 0], "positive": ["22", 0], "empty": ["24", 0], "latent_image": ["4", 0], "vae": ["3", 0]}
    more = {
        **{str(20 + i): ("CLIPTextEncode", {"text": text, "clip": ["2", 0]}) for i, text in enumerate(texts)},
        "22": ("ConditioningCombine", {"conditioning_1": ["25", 0], "conditioning_2": ["26", 0]}),
        "23": ("CLIPTextEncode", {"text": "", "clip": ["2", 0]}),
        **{
            str(number): ("FluxGuidance", {"guidance": 3.5, "conditioning": [text, 0]})
            for number, text in ((24, "23"), (25, "20"), (26, "21"))
        },
        "30": ("NAGPAGCalibrate", {**own, "seed": seed, **links}),
        "31": ("PreviewAny", {"source": ["30", 3]}),
    }
    graph = {**graph, **{key: {"class_type": name, "inputs": values} for key, (name, values) in more.items()}}
    return json.loads(outputs(server, graph)["PreviewAny"]["text"][0])["tried"][0]


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["none.toml"], 2, "No such file"),
        (["README.md"], 2, "README.md: "),
        (["cats.toml", "--server", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["cats.toml", "--ray", "local"], 2, 'pip install "nag-pag-flux[cluster]"'),
        (["cats.toml", "--ray", "local", "--server", "a"], 2, "no --server"),
        (["cats.toml", "--output", "README.md"], 2, "README.md: it can't be a folder"),
    ],
)
def test_bad_input_and_no_server_have_their_codes(file, words, code, said):
    words = [file if word == "cats.toml" else word for word in words]
    done = sweep(*words)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr


# --- on Ray ---


@pytest.fixture
def base(tmp_path):
    """The folder from which the workers' ComfyUIs take what the live server has."""
    (tmp_path / "base").mkdir()
    furnish(tmp_path / "base", host.find_host().path)
    return tmp_path / "base"


@pytest.fixture
def on_ray(quick, base):
    """The sweep, with two workers that start their ComfyUIs on the CPU."""
    found = host.find_host()
    options = ["--cpu", "--disable-api-nodes", "--base-directory", str(base)]
    cluster = f"comfyui = '{found.path}'\npython = '{found.python}'\nworkers = 2\ngpus = 0\noptions = {options}"
    quick.write_text(f"{quick.read_text()}\n[cluster]\n{cluster}")
    return quick


def processes(word):
    """Ids of the processes that have this word in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(path.parent.name)] if word.encode() in path.read_bytes() else []
        except OSError:  # gone meanwhile
            continue
    return found


def workers(folder):
    """Those who have drawn something, number and process, in the order in which they were seen."""
    rows = sorted(drawn(folder).values(), key=lambda row: row["worker"])
    return {tuple(map(int, re.search(r"worker (\d) .*process (\d+)", row["worker"]).groups())) for row in rows}


@pytest.mark.timeout(900)
def test_on_ray_with_a_worker_killed_another_comes_and_it_ends_as_on_one_server(alone, on_ray, base, tmp_path):
    """Workers are held where they stand, so that something is left for the one that comes anew."""
    many = tmp_path / "many"
    process = begin(on_ray, "--ray", "local", "--output", many, python=host.cluster_python())
    held = []
    try:
        for _ in range(2):
            held.append(wait_until(lambda: workers(many) - {*held}, process).pop())
            os.kill(held[-1][1], signal.SIGSTOP)
        (number, victim), (_, other) = held
        before = drawn(many)
        os.kill(victim, signal.SIGKILL)
        ((came, _),) = wait_until(lambda: workers(many) - {*held}, process)
        os.kill(other, signal.SIGCONT)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        end(process, [one for _, one in held])
    assert process.returncode == 0 and came == number and "Traceback" not in said, said
    assert f"lost worker {number}" in said and f"worker {number} " in said.partition(" is back")[0]
    assert_same_pictures(alone, many)
    assert {name: drawn(many)[name] for name in before} == before
    deadline = time.monotonic() + PATIENCE
    while processes(str(base)):  # neither the killed worker's ComfyUI nor the others' is left
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_ray_is_never_in_comfyuis_python_and_never_needed_to_import_the_pack(server):
    """Neither the pack's own Python nor importing the client knows it; the cluster's environment has no torch."""
    code = "import sys, nagpag, nagpag.client, nagpag.service.client.cli as cli, nagpag.service.client.sweep.command;"
    code += "cli.parser(); print(sorted({'ray', 'torch', 'PIL'} & set(sys.modules)))"
    for python in (host.cluster_python(), host.find_host().python):
        done = subprocess.run([python, "-c", code], cwd=host.REPO, capture_output=True, text=True)
        assert done.stdout.strip() == "[]", done.stderr
    has = "import importlib.util as found; print([bool(found.find_spec(name)) for name in ('ray', 'torch')])"
    for python, expected in ((host.cluster_python(), "[True, False]"), (host.find_host().python, "[False, True]")):
        assert subprocess.run([python, "-c", has], capture_output=True, text=True).stdout.strip() == expected
