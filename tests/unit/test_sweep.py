"""A sweep's file, who gets which job, and what is kept: all that needs no server."""

import copy
import json
import random
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nag_pag_flux.lab import graphs
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED
from nag_pag_flux.nagpag.inputs.presets import PRESETS
from nag_pag_flux.nagpag.service.client import JobFailed, NoServer
from nag_pag_flux.nagpag.service.client.compare import LABEL
from nag_pag_flux.nagpag.service.client.sweep import board, command, guard, own_comfyui, plan, sheet
from nag_pag_flux.nagpag.service.client.sweep.kept import Folder, Taken, means
from nag_pag_flux.nagpag.service.client.sweep.ways import BadPlan
from nag_pag_flux.nagpag.service.graphs import node_of, recorded, saved_anew, with_all_inputs
from nag_pag_flux.nagpag.settings import Settings

BEGIN = 'prompts = ["a cat", "a dog"]\nseeds = [1, 2]\n'


@pytest.fixture
def read(tmp_path):
    """Read a sweep from its text; beside it lies the shipped graph."""
    (tmp_path / "graph.json").write_text(json.dumps(graphs.load_graph("flux_dev_text_to_image")))

    def read(text):
        (tmp_path / "sweep.toml").write_text(text)
        return plan.read(tmp_path / "sweep.toml")

    return read


# --- the file ---


def test_every_combination_is_a_job_the_last_axis_turning_fastest(read):
    found = read(f'{BEGIN}[axes]\nnag_pag_scale = [0, 3]\nnag_pag_applied_layers = ["auto", ["8", "12"]]')
    assert [(job.prompt, job.seed, *job.varied.values()) for job in found.jobs] == [
        (prompt, seed, scale, layers)
        for prompt in ("a cat", "a dog")
        for seed in (1, 2)
        for scale in (0, 3)
        for layers in ("auto", "8, 12")
    ]
    assert [job.body["nag_pag_applied_layers"] for job in found.jobs[:2]] == [["auto"], ["8", "12"]]


def names(found):
    return [job.name for job in found.jobs]


@pytest.mark.parametrize(
    "same",
    ["[settings]\nnag_pag_scale = 3.0", "[axes]\nnag_pag_scale = [3, 3.0]", "[settings]\nnegative_prompt = ''",
     "[settings]\npreset = 'default'",
     "numbers = false", "[settings]\nwidth = 1024\nnum_inference_steps = 20", "[cluster]\ncomfyui = '/opt/ComfyUI'"],
)  # fmt: skip
def test_what_draws_the_same_picture_is_the_same_job(read, same):
    assert names(read(BEGIN + same)) == names(read(BEGIN))


@pytest.mark.parametrize(
    "other",
    ["[settings]\nnag_pag_scale = 3.1", "[settings]\nnegative_prompt = false", "[settings]\nvae = 'taef1'",
     "graph = 'graph.json'", "[settings]\nimage_url = 'graph.json'"],
)  # fmt: skip
def test_whatever_decides_the_picture_makes_another_job(read, other):
    found = [*names(read(BEGIN)), *names(read(BEGIN + other))]
    assert len(set(found)) == 8


@pytest.mark.parametrize(
    "texts, presets", [(["false"], PRESETS), (["''", "'blurry'"], PRESETS.keys() - {"as published"})]
)
def test_negative_prompts_and_presets_are_axes_that_ask_for_what_compare_draws(read, texts, presets):
    """What a request makes of it is what the node has under these settings; what is named wins over the preset."""
    from nag_pag_flux.nagpag.service.server import graph, schema

    axes = f"[axes]\nnegative_prompt = [{', '.join(texts)}]\npreset = {sorted(presets)}"
    found = read(f"prompts = ['a cat']\nseeds = [1]\n[settings]\nnag_pag_tau = 2.25\n{axes}")
    assert len(found.jobs) == len(texts) * len(presets) and found.axes == ("negative_prompt", "preset")
    for job in found.jobs:
        made = graph.build(job.way, schema.validate(job.way, dict(job.body)))
        node = node_of(made, "NAGPAGGuidanceAdvanced")["inputs"]
        text, preset = job.varied["negative_prompt"], job.varied["preset"]
        expected = Settings(
            **{**PRESETS[preset], "tau": 2.25, "negative_prompt": "off" if text is None else "sampler's"}
        )
        blocks = {"blocks"} if "blocks" not in PRESETS[preset] else set()  # over HTTP the published ones
        assert [name for name in ADVANCED.defaults if node[name] != getattr(expected, name)] == [*blocks]
        negative = node_of(made, "KSampler")["inputs"]["negative"][0]
        assert made[negative]["inputs"]["text"] == (text or "")


@pytest.mark.parametrize(
    "said, carried",
    [("", ""), ("nag_pag_applied_layers = '9-18'", None), ("nag_pag_perturbation = 0.3\nnegative_prompt = 'x'", "x"),
     ("negative_prompt = false", None), ("preset = 'as published'", None),
     ("preset = 'as published'\nnag_pag_reach = 'output'\nnegative_prompt = 'x'", "x")],
)  # fmt: skip
def test_what_carries_a_negative_prompt_is_as_over_http(read, said, carried):
    assert {job.body["negative_prompt"] for job in read(f"{BEGIN}[settings]\n{said}").jobs} == {carried}


def test_a_picture_beside_the_file_counts_by_its_bytes(read, tmp_path):
    text = f"{BEGIN}[settings]\nimage_url = 'start.png'"
    found = []
    for data in (b"one", b"two"):
        (tmp_path / "start.png").write_bytes(data)
        found += names(read(text))
    assert len(set(found)) == 8 and read(text).jobs[0].body["image_url"].startswith("data:;base64,")


def test_model_files_that_are_found_are_part_of_the_job(read):
    found = read(f"{BEGIN}[settings]\nvae = 'taef1'")
    assert found.open_files == {"diffusion_model", "clip_l", "t5xxl"}
    filled = found.with_files({"diffusion_model": "a.safetensors", "vae": "b.safetensors"})
    assert {job.body["diffusion_model"] for job in filled.jobs} == {"a.safetensors"}
    assert {job.body["vae"] for job in filled.jobs} == {"taef1"} and not set(names(filled)) & set(names(found))


GRAPH = f"{BEGIN}graph = 'graph.json'\n"


def test_a_graph_gets_the_values_where_they_were_meant(read):
    text = f'{GRAPH}[settings.KSampler]\nsteps = 4\n[axes."NAG-PAG Guidance"]\nscale = [0, 2]\n[axes.6]\nguidance = [2]'
    found, shipped = read(text), graphs.load_graph("flux_dev_text_to_image")
    for job in found.jobs:
        scale = job.varied["NAG-PAG Guidance.scale"]
        expected = with_all_inputs(graphs.with_guidance(shipped, scale=scale))
        expected["5"]["inputs"]["text"], expected["6"]["inputs"]["guidance"] = job.prompt, 2.0
        expected["9"]["inputs"] |= {"seed": job.seed, "steps": 4}
        assert job.body == expected
    assert len(found.jobs) == 8 and found.jobs[0].varied == {"NAG-PAG Guidance.scale": 0, "6.guidance": 2}


def test_a_preset_sets_all_inputs_of_a_graphs_guidance(read):
    found = read(f'{GRAPH}[settings."NAG-PAG Guidance"]\ntau = 3\npreset = "strong"\n')
    node = found.jobs[0].body["8"]
    expected = {**ADVANCED.defaults, "scale": 4.5, "tau": 3.0, "model": ["1", 0]}
    assert node["class_type"] == ADVANCED.id and node["inputs"] == expected


# Text, and words that the message must have: the culprit, and what is valid.
BAD = [
    ("prompts = ['a']\nseeds = [1;2]", ["line 2", "seeds = [1;2]"]),
    ("", ["prompts is missing", "seeds is missing"]),
    ("prompts = 'a cat'\nseeds = [1]", ["prompts 'a cat' is not a list"]),
    ("prompts = ['a']\nseeds = [-1, 1.5]", ["seed -1 is not a whole number", "seed 1.5"]),
    (f"{BEGIN}promts = []", ["promts is unknown", "did you mean prompts?"]),
    (f"{BEGIN}quick = 3", ["quick is unknown", "valid are prompts"]),
    (f"{BEGIN}settings = 3", ["settings 3 is no table", "[settings]"]),
    (f"{BEGIN}[settings]\nnag_pag_scal = 3", ["nag_pag_scal is unknown", "did you mean nag_pag_scale?"]),
    (f"{BEGIN}[settings]\nnag_pag_scale = 11\nwidth = 100", ["nag_pag_scale 11 is not a number from 0 to 10",
                                                            "width 100", "a multiple of 16"]),
    (f"{BEGIN}[settings]\nnag_pag_alpha = nan", ["nag_pag_alpha nan is not a number from 0 to 1"]),
    (f"{BEGIN}[settings]\nseed = 3", ["seed: write seeds"]),
    (f"{BEGIN}[axes]\nnag_pag_scale = 3", ["axes.nag_pag_scale 3 is not a list"]),
    (f"{BEGIN}[axes]\nnag_pag_scale = []", ["axes.nag_pag_scale [] is not a list"]),
    (f"{BEGIN}[axes]\nnag_pag_reach = ['output', 'far']", ["nag_pag_reach 'far' is not one of 'attention'"]),
    (f"{BEGIN}[axes]\nnag_pag_applied_layers = ['8', 'x']", ['"x" is not a block']),
    (f"{BEGIN}[settings]\nnag_pag_end_percent = 0.3\n[axes]\nnag_pag_start_percent = [0, 0.5]",
     ["nag_pag_start_percent 0.5", "at most nag_pag_end_percent"]),
    (f"{BEGIN}[settings]\nnag_pag_end_percent = 0.3", ["at most nag_pag_end_percent", "(0.45 where it isn't given)"]),
    (f"{BEGIN}[settings]\nwidth = 64\n[axes]\nwidth = [64]", ["width is in settings and in axes"]),
    (f"{BEGIN}[axes]\nnag_pag_scale = {[1] * 25_001}", ["are 100004 pictures, more than 100000"]),
    (f"{BEGIN}[cluster]\ngpus = 1", ["cluster.comfyui is missing"]),
    (f"{BEGIN}[cluster]\ncomfyui = 'a'\nworkers = 0", ["cluster.workers 0 is not a whole number from 1"]),
    (f"{BEGIN}graph = 'none.json'", ["none.json", "can't be read"]),
    (f"{BEGIN}graph = 'sweep.toml'", ["sweep.toml", "can't be read"]),
    (f"{GRAPH}[settings]\nsteps = 3", ["settings.steps names no input", "KSampler.steps"]),
    (f"{GRAPH}[settings.Sampler]\nsteps = 3", ["Sampler is no node of the graph", "9 (KSampler)"]),
    (f"{GRAPH}[settings.KSampler]\nstep = 3", ["KSampler.step is unknown", "did you mean steps?"]),
    (f"{GRAPH}[settings.KSampler]\nmodel = 3", ["KSampler.model comes over a link", "steps"]),
    (f"{GRAPH}[settings.KSampler]\nsteps = 'many'", ["KSampler.steps 'many' is not like", "20"]),
    (f"{BEGIN}[axes]\npreset = ['mild']", ["preset 'mild' is not one of 'default', 'gentle'"]),
    (f"{GRAPH}[axes.8]\npreset = ['mild']", ["preset 'mild' is not one of 'default', 'gentle'"]),
    (f"{GRAPH}[axes.8]\nscale = [3, 11]", ["scale 11 is not a number from 0 to 10"]),
    (f"{GRAPH}[axes.8]\nblocks = ['auto', '8;12']", ['"8;12" is not a block']),
    (f"{GRAPH}[settings.KSampler]\nsteps = 4\n[axes.9]\nsteps = [5, 6]", ["KSampler.steps and 9.steps are the same"]),
    (f"{GRAPH}[axes.KSampler]\nseed = [1, 2]", ["KSampler.seed is where the seeds go", "write seeds"]),
    (f"{GRAPH}[settings.5]\ntext = 'b'", ["5.text is where the prompts go", "write prompts"]),
    (f"{GRAPH}seed_into = '5.text'", ["5.text is where both the prompts and the seeds go"]),
    (f"{GRAPH}[axes.KSampler]\nsteps = [4.5]", ["KSampler.steps 4.5 is no whole number"]),
    (f"{BEGIN}prompt_into = '6.text'", ["prompt_into is for a graph", "graph ="]),
    (f"{GRAPH}prompt_into = '4.width'\nseed_into = '9.sed'", ["9.sed is unknown", "did you mean seed?"]),
]  # fmt: skip


@pytest.mark.parametrize("text, said", BAD, ids=[text[-40:] for text, _ in BAD])
def test_a_bad_file_is_refused_with_the_culprit_and_what_is_valid(read, text, said):
    with pytest.raises(BadPlan) as caught:
        read(text)
    assert "sweep.toml" in str(caught.value) and [words for words in said if words not in str(caught.value)] == []


def test_a_graph_that_saves_nothing_is_refused(read, tmp_path):
    graph = graphs.load_graph("flux_dev_text_to_image")
    kept = {number: node for number, node in graph.items() if node["class_type"] != "SaveImage"}
    (tmp_path / "graph.json").write_text(json.dumps(kept))
    with pytest.raises(BadPlan, match="needs a Save Image node"):
        read(GRAPH)


def test_a_canvas_graph_and_a_text_that_is_not_unique_are_told_apart(read, tmp_path):
    (tmp_path / "graph.json").write_text('{"nodes": [], "links": []}')
    with pytest.raises(BadPlan, match=r"no API graph.*Export \(API\)"):
        read(GRAPH)
    graph = graphs.load_graph("flux_dev_text_to_image")
    graph["5"]["_meta"]["title"], graph["50"] = "One", {**copy.deepcopy(graph["5"]), "_meta": {"title": "Other"}}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    with pytest.raises(BadPlan, match=r'prompt_into is missing.*"5.text" \(One\), .*"50.text" \(Other\)'):
        read(GRAPH)
    assert read(f"prompt_into = '50.text'\n{GRAPH}").jobs[0].body["50"]["inputs"]["text"] == "a cat"


# --- the board ---


class Fake:
    """Draws nothing; fails and is lost as it is told to."""

    def __init__(self, name, chance=0.0, lives=0, kills=(), fails=()):
        self.name, self.random, self.chance, self.lives = name, random.Random(name), chance, lives
        self.kills, self.fails = kills, fails
        self.drawn = []

    def draw(self, job, progress):
        progress(0.5)
        if job.name in self.kills or self.random.random() < self.chance:
            raise board.Lost(self.name)
        if job.name in self.fails:
            raise JobFailed("it failed")
        self.drawn.append(job.name)
        return board.Drawn([b"x"], {}, self.name)

    def ready(self, over):
        self.lives -= 1
        return self.lives >= -1 and not over(0.0)

    def stop(self):
        pass


def jobs(count):
    return [plan.Job(str(i), i, {}, "text-to-image", {"i": i}, True) for i in range(count)]


def done(events):
    return sorted(event.job.name for event in events if event.kind == "done")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 99))
def test_whoever_is_lost_everything_is_drawn_once_or_told(count, lives, salt):
    """Whatever happens: no job is drawn twice, and all are drawn unless no worker was left."""
    asked, events = jobs(count), []
    workers = [Fake(f"{salt} {i}", 0.2, left) for i, left in enumerate(lives)]
    try:
        board.run(asked, workers, events.append)
    except NoServer:
        assert all(worker.lives < -1 for worker in workers)
    else:
        failed = [event.job.name for event in events if event.kind == "failed"]
        assert sorted([*done(events), *failed]) == sorted(job.name for job in asked)
    drawn = [name for worker in workers for name in worker.drawn]
    assert len(drawn) == len(set(drawn)) and sorted(drawn) == done(events)
    assert threading.active_count() < 20


def test_a_job_that_kills_its_workers_fails_and_the_others_are_drawn():
    asked, events = jobs(4), []
    workers = [Fake(str(i), lives=9, kills=[asked[1].name]) for i in range(2)]
    board.run(asked, workers, events.append)
    (failed,) = [event for event in events if event.kind == "failed"]
    assert failed.job == asked[1] and "3 workers were lost" in str(failed.error)
    assert isinstance(failed.error, JobFailed)  # which the command line knows
    assert done(events) == sorted(job.name for job in asked if job != asked[1])


def test_where_everything_fails_it_stops_with_the_reason():
    asked, events = jobs(board.MOST_SAME + 1), []
    with pytest.raises(JobFailed, match="it failed"):
        board.run(asked, [Fake("a", fails=[job.name for job in asked])], events.append)
    assert done(events) == [] and sum(event.kind == "failed" for event in events) == board.MOST_SAME
    events.clear()
    board.run(asked, [Fake("a", fails=[job.name for job in asked])], events.append, some_there=True)
    assert sum(event.kind == "failed" for event in events) == len(asked)


def test_failures_at_the_front_do_not_starve_the_rest():
    """In their order the sweep would give up before it came to those that can be drawn."""
    asked, events = jobs(200), []
    board.run(asked, [Fake("a", fails=[job.name for job in asked[:40]])], events.append)
    assert len(done(events)) == 160 and sum(event.kind == "failed" for event in events) == 40


def test_what_is_drawn_while_the_sweep_is_stopped_is_kept():
    asked, events, stopped = jobs(1), [], threading.Event()

    class Slow(Fake):
        def draw(self, job, progress):
            progress(0.5)
            assert stopped.wait(60)
            return board.Drawn([b"x"], {}, self.name)

        def stop(self):
            stopped.set()

    def see(event):
        events.append(event)
        if event.kind == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        board.run(asked, [Slow("slow")], see)
    assert done(events) == [asked[0].name]


def test_what_fails_is_said_and_told_also_without_a_bar(tmp_path, capsys):
    asked = jobs(2)
    seen = command.Seen.of(plan.Plan(tuple(asked), (), None), Folder(tmp_path), 1, "pictures")
    with command._bar(seen, quiet=True) as show:
        board.run(asked, [Fake("a", fails=[asked[0].name])], show)
    assert capsys.readouterr().err == "nagpag: failed: it failed\n"
    assert seen.told["reasons"] == {asked[0].name: "it failed"} and seen.told["drawn"] == 1


def test_pictures_that_are_there_without_numbers_are_told(tmp_path, capsys):
    folder, asked = Folder(tmp_path), plan.Plan(tuple(jobs(3)), (), None)
    for job, numbers in zip(asked.jobs, (None, {"rows": []}), strict=False):
        folder.write(job, board.Drawn([b"x"], {"numbers": numbers}, "here"))
    command._say_without_numbers(asked, folder)
    assert "1 of the pictures that are there have no numbers" in capsys.readouterr().err


@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_a_sheet_is_never_too_large_and_its_pictures_never_too_small(rows, columns, data):
    prompts = data.draw(st.integers(1, rows))
    try:
        side = sheet._side(rows, columns, prompts)
    except sheet.TooMany:
        side = sheet.LEAST_SIDE
        assert columns * side * (rows * (side + LABEL) + prompts * LABEL) > sheet.MOST_PIXELS
        return
    assert sheet.LEAST_SIDE <= side <= sheet.MOST_SIDE
    assert columns * side * (rows * (side + LABEL) + prompts * LABEL) <= sheet.MOST_PIXELS


def test_too_many_for_a_sheet_are_said(tmp_path, capsys):
    found = plan.Plan(tuple(jobs(20_000)), (), None)
    assert command._sheet(found, Folder(tmp_path)) == [] and "20000 pictures do not fit" in capsys.readouterr().err


# --- a ComfyUI of a worker's own ---


def test_a_python_that_is_not_there_is_said_before_anything_starts(tmp_path):
    (tmp_path / "main.py").touch()
    with pytest.raises(NoServer, match="/none/python on .* is no Python that can be run"):
        own_comfyui.OwnComfyUI({"comfyui": str(tmp_path), "python": "/none/python", "options": []})


def test_a_command_that_cannot_be_begun_has_ended_and_leaves_nothing(tmp_path):
    (folder := tmp_path / "worker").mkdir()
    words = [sys.executable, guard.__file__, str(folder), "/none/python"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
        assert "/none/python can't be run: No such file" in begun.stderr.readline()
        assert until((folder / guard.ENDED).exists)
        begun.stdin.close()
        assert until(lambda: not folder.exists())


def until(found):
    deadline = time.monotonic() + 60
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)
    return found()


# --- what is kept ---


def test_a_job_counts_as_done_when_all_of_it_is_there(tmp_path):
    folder, (job, *_) = Folder(tmp_path), jobs(1)
    folder.write(job, board.Drawn([b"one", b"two"], {"seconds": 2.0}, "here"))
    assert folder.of(job)["pictures"] == [f"{job.name}_0.png", f"{job.name}_1.png"]
    assert (tmp_path / "pictures" / f"{job.name}_1.png").read_bytes() == b"two"
    (tmp_path / "pictures" / f"{job.name}_1.png").unlink()
    assert folder.of(job) is None
    folder.write(job, board.Drawn([b"one"], {}, "here"))
    (tmp_path / "pictures" / f"{job.name}.json").write_text('{"pictures": [')
    assert folder.of(job) is None


def test_a_failing_write_leaves_what_was_there(tmp_path, monkeypatch):
    folder, (job, *_) = Folder(tmp_path), jobs(1)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        folder.write(job, board.Drawn([b"one"], {}, "here"))
    assert list((tmp_path / "pictures").iterdir()) == [] and folder.of(job) is None


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    with Folder(tmp_path).alone(), pytest.raises(Taken), Folder(tmp_path).alone():
        pass
    with Folder(tmp_path).alone():
        pass


def test_guidances_numbers_are_means_over_its_evaluations():
    rows = [
        {"step": step, "evaluations": count, "ratio": ratio, "clamped": None, "change": 1.0, "cosine": 0.0,
         "norm_ratio": 2.0}
        for step, count, ratio in ((1, 1, 1.0), (1, 3, 2.0), (4, 1, 3.0))
    ]  # fmt: skip
    found = means({"rows": rows})
    assert found["ratio"] == (1.0 + 2.0 + 2.0 + 2.0 + 3.0) / 5 and found["guided_steps"] == 2
    assert (found["clamped"], found["norm_ratio"]) == (None, 2.0)
    assert set(means(None).values()) == {None} and means({"rows": []})["guided_steps"] == 0


@pytest.mark.parametrize(
    "inputs, begins", [({"filename_prefix": "a"}, "a_"), ({"filename_prefix": ["5", 0]}, "ComfyUI_"), ({}, "ComfyUI_")]
)
def test_saving_gets_a_name_of_its_own_whatever_its_prefix_is(inputs, begins):
    graph = {"1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], **inputs}}}
    found = [saved_anew(graph)["1"]["inputs"] for _ in range(2)]
    assert all(one["filename_prefix"].startswith(begins) and one["images"] == ["2", 0] for one in found)
    assert found[0] != found[1] and graph["1"]["inputs"] == {"images": ["2", 0], **inputs}


def test_recording_leaves_the_graph_and_goes_between_guidance_and_sampler():
    graph = graphs.load_graph("flux_dev_text_to_image")
    made = recorded(graph)
    links = {number: made[number]["inputs"].get("model") for number in ("8", "9", "nagpag_record")}
    assert links == {"8": ["1", 0], "9": ["nagpag_record", 0], "nagpag_record": ["8", 0]}
    assert made["nagpag_plot"]["inputs"]["latent"] == ["9", 0]
    assert graph == graphs.load_graph("flux_dev_text_to_image")
    without = {number: node for number, node in graph.items() if number != "8"}
    assert recorded(without) == without
