"""nagpag guide: any graph, with the node behind its loaders, on the live server with small models of three families."""

import copy
import json
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from asking import Service
from nag_pag_flux.lab import graphs
from nag_pag_flux.lab.in_host import enter_host
from nag_pag_flux.lab.server import run_graph
from nag_pag_flux.lab.toy import small_models
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED, GUIDANCE
from nag_pag_flux.nagpag.service import loaders
from nag_pag_flux.nagpag.service.client import Client, Image, cli, prompts
from showing import frames

SIZE = 64
NAMES = (graphs.QWEN_IMAGE, graphs.WAN, graphs.PICTURES[0])


def small(name, **inputs):
    """A shipped graph on the small models, as it comes with guidance."""
    more = {"length": 5} if name == graphs.WAN else {}
    return graphs.for_small_models(graphs.load_graph(name), SIZE, SIZE, steps=2, **more, **inputs)


def without(graph):
    """The same graph as somebody has it who does not know of guidance."""
    number = next(number for number, node in graph.items() if node["class_type"] == GUIDANCE.id)
    source = graph[number]["inputs"]["model"]
    graph = {one: node for one, node in copy.deepcopy(graph).items() if one != number}
    for node in graph.values():
        node["inputs"] = {name: source if value == [number, 0] else value for name, value in node["inputs"].items()}
    return graph


@pytest.fixture(scope="module")
def kinds(server):
    return requests.get(f"{server.url}/object_info", timeout=60).json()


@pytest.fixture
def ask(server, tmp_path, monkeypatch, capsys):
    """Run the command on a graph in this process: the exit status and what it printed; JSON, where it is."""
    monkeypatch.setenv("NAGPAG_SERVER", server.url)

    def ask(graph, *words):
        text = graph if isinstance(graph, str) else json.dumps(graph)
        (tmp_path / "mine.json").write_text(text)
        told = cli.main(["guide", "--graph", str(tmp_path / "mine.json"), "--output", str(tmp_path), *words])
        said = capsys.readouterr()
        return told, said.out or said.err

    return ask


def ran(server, prompt_id):
    """The graph that ran."""
    return requests.get(f"{server.url}/history/{prompt_id}", timeout=30).json()[prompt_id]["prompt"][2]


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_is_drawn_as_with_the_node_wired_by_hand(server, ask, tmp_path, name):
    by_hand = small(name)
    (node,) = (node for node in by_hand.values() if node["class_type"] == GUIDANCE.id)
    values = {"scale": 4.0, "alpha": 0.3, "start_percent": 0.0}
    node |= {"class_type": ADVANCED.id, "inputs": {**ADVANCED.defaults, **values, "model": node["inputs"]["model"]}}
    plain = without(small(name))
    words = [word for one, value in values.items() for word in (f"--nag-pag-{one.replace('_', '-')}", str(value))]
    told, said = ask(plain, *words, "--json", "--output", str(tmp_path / "fox.png"))
    said = json.loads(said)
    assert told == 0 and said["behind"] == ["UNETLoader (node 1)"]
    file = tmp_path / ("fox.mp4" if name == graphs.WAN else "fox.png")  # the ending is the graph's
    assert said["files"] == [str(file)]
    (expected,), (off,) = run_graph(server, by_hand), run_graph(server, plain)
    drawn = frames(file.read_bytes())
    assert len(drawn) == (5 if name == graphs.WAN else 1)
    assert np.array_equal(drawn, frames(expected)) and (drawn != frames(off)).any()
    # All else is as it was.
    graph = ran(server, said["prompt_id"])
    assert graph.pop("nagpag_guidance")["inputs"] == node["inputs"]
    for number, before in plain.items():
        changed = {one for one, value in before["inputs"].items() if graph[number]["inputs"][one] != value}
        linked = {one for one, value in before["inputs"].items() if value == ["1", 0]}
        assert changed == linked | ({"filename_prefix"} & before["inputs"].keys())
        assert all(graph[number]["inputs"][one] == ["nagpag_guidance", 0] for one in linked)


def sd15_graph():
    """Of a model of no family; its picture is the latent itself, in four channels."""
    text = {"clip": ["clip", 0]}
    return {
        "unet": node("UNETLoader", unet_name="sd15.safetensors", weight_dtype="default"),
        "clip": node("CLIPLoader", clip_name=Path(small_models.CLIP_FILE).name, type="stable_diffusion"),
        "vae": node("VAELoader", vae_name="pixel_space"),
        "prompt": node("CLIPTextEncode", text="a fox", **text),
        "negative": node("CLIPTextEncode", text="blurry", **text),
        "empty": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1),
        **sampled(["unet", 0], positive=["prompt", 0], negative=["negative", 0], latent_image=["empty", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="sd15"),
    }


@pytest.fixture
def _sd15(server):
    enter_host()
    import unets

    file = server.base / "models" / "diffusion_models" / "sd15.safetensors"
    unets.write(unets.SD15_AS_KNOWN, file)
    yield
    file.unlink()


@pytest.mark.usefixtures("_sd15")
def test_a_model_of_no_family_is_guided_at_the_prediction_and_told_what_else_is_not(ask, tmp_path):
    graph = sd15_graph()
    graph["sampler"]["inputs"] |= {"seed": 7, "steps": 4, "cfg": 1.0, "denoise": 1.0}
    graph["sampler"]["inputs"] |= {"sampler_name": "euler", "scheduler": "normal"}
    graph["decode"]["inputs"]["vae"] = ["vae", 0]

    def drawn(scale):
        words = ("--nag-pag-reach", "prediction", "--nag-pag-start-percent", "0", "--nag-pag-scale", scale)
        told, said = ask(graph, *words, "--json", "--output", str(tmp_path / f"{scale}.png"))
        assert told == 0, said
        assert json.loads(said)["behind"] == ["UNETLoader (node unet)"]
        return frames((tmp_path / f"{scale}.png").read_bytes())

    other, picture = drawn("0"), drawn("3")
    assert picture.shape == other.shape and (picture != other).any()
    told, said = ask(graph, "--nag-pag-reach", "output")
    assert told == 4 and "this model with reach output: its class is UNetModel" in said
    assert "Any other model works with reach prediction and a negative prompt" in said


# --- where the node goes, by the live ComfyUI's own account of its nodes ---


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def behind(graph, kinds):
    """What takes each guidance node, by the loader that it stands behind."""
    made, _ = loaders.guided({**graph, "save": node("SaveImage", images=["decode", 0])}, kinds)
    ours = {number: one["inputs"]["model"] for number, one in made.items() if one["class_type"] == ADVANCED.id}
    return {
        tuple(link): {f"{number}.{name}" for number, one in made.items() for name in one["inputs"]
                      if one["inputs"][name] == [number_of_ours, 0]}
        for number_of_ours, link in ours.items()
    }  # fmt: skip


LOADER, LORA = node("UNETLoader", unet_name="a"), "LoraLoaderModelOnly"


def sampled(model, **more):
    return {"sampler": node("KSampler", model=model, **more), "decode": node("VAEDecode", samples=["sampler", 0])}


def test_in_front_of_loras_and_switches_in_their_ways(kinds):
    graph = {
        "37": LOADER,
        "73": node(LORA, model=["37", 0], lora_name="a"),
        "78": node("ComfySwitchNode", on_false=["37", 0], on_true=["73", 0], switch=["86", 0]),
        "86": node("PrimitiveBoolean", value=False),
        "66": node("ModelSamplingAuraFlow", model=["78", 0], shift=3.1),
        **sampled(["66", 0]),
    }
    assert behind(graph, kinds) == {("37", 0): {"73.model", "78.on_false"}}


def test_all_that_takes_the_model_takes_the_guided_one(kinds):
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name="a"),
        "2": node("LoraLoader", model=["1", 0], clip=["1", 1]),
        "guider": node("CFGGuider", model=["2", 0]),
        "sigmas": node("BasicScheduler", model=["1", 0], steps=4),
        "sampler": node("SamplerCustomAdvanced", guider=["guider", 0], sigmas=["sigmas", 0]),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["1", 2]),
    }
    assert behind(graph, kinds) == {("1", 0): {"2.model", "sigmas.model"}}


def test_every_loader_whose_model_is_sampled_and_no_other(kinds):
    graph = {
        "high": LOADER,
        "low": LOADER,
        "merged": LOADER,
        "kept": LOADER,
        "other": node("ModelSave", model=["kept", 0]),
        "merge": node("ModelMergeSimple", model1=["low", 0], model2=["merged", 0]),
        "first": node("KSamplerAdvanced", model=["high", 0]),
        **sampled(["merge", 0], latent_image=["first", 0]),
    }
    assert behind(graph, kinds) == {
        ("high", 0): {"first.model"},
        ("low", 0): {"merge.model1"},
        ("merged", 0): {"merge.model2"},
    }


def test_no_node_of_the_graph_gives_way_to_ours(kinds):
    theirs = {"nagpag_guidance": node(LORA, model=["1", 0]), "save": node("SaveImage", images=["decode", 0])}
    graph = {"1": LOADER, **theirs, **sampled(["nagpag_guidance", 0])}
    made, _ = loaders.guided(graph, kinds)
    assert made["nagpag_guidance"] == node(LORA, model=["nagpag_guidance_2", 0])


def test_the_body_of_a_request_is_its_graph():
    graph = small(graphs.PICTURES[0])
    assert loaders.read_graph(json.dumps({"prompt": graph, "client_id": "a"}).encode()) == graph


# As these packs say it of themselves.
PACKS = {
    "UnetLoaderGGUF": {"input": {"required": {"unet_name": [["a.gguf"]]}}, "output": ["MODEL"]},
    "ToBasicPipe": {"input": {"required": {"model": ["MODEL"], "clip": ["CLIP"]}}, "output": ["BASIC_PIPE"]},
    "FromBasicPipe": {"input": {"required": {"basic_pipe": ["BASIC_PIPE"]}}, "output": ["MODEL", "CLIP"]},
    "Any Switch": {"input": {"optional": {"any_01": ["*"]}}, "output": ["*"]},
    "Sampler of a pack": {"input": {"required": {"model": ["MODEL"]}}, "output": ["MODEL", "IMAGE"]},
}
PACKS = {name: {**told, "python_module": "custom_nodes.some", "output_node": False} for name, told in PACKS.items()}


def test_loaders_pipes_and_samplers_of_packs(kinds):
    graph = {
        "1": node("UnetLoaderGGUF", unet_name="a.gguf"),
        "2": node("ToBasicPipe", model=["1", 0]),
        "3": node("FromBasicPipe", basic_pipe=["2", 0]),
        "4": node("Any Switch", any_01=["3", 0], any_02=["9", 0]),
        "9": LOADER,
        "5": node("Sampler of a pack", model=["4", 0]),
        "decode": node("ImageScale", image=["5", 1]),
    }
    assert behind(graph, {**kinds, **PACKS}) == {("1", 0): {"2.model"}, ("9", 0): {"4.any_02"}}


# --- what is refused, before anything is queued ---


def changed(change):
    graph = without(small(graphs.PICTURES[0]))
    change(graph)
    return graph


def merely_previewed(graph):
    graph["11"]["class_type"] = "PreviewImage"


def not_sampled(graph):
    graph["9"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)


def two_texts(graph):
    graph["20"] = node("ConditioningCombine", conditioning_1=["5", 0], conditioning_2=["21", 0])
    graph["21"] = {**graph["5"], "inputs": dict(graph["5"]["inputs"])}
    graph["9"]["inputs"]["positive"] = ["20", 0]


def zeroed_out(graph):
    graph["7"] = node("ConditioningZeroOut", conditioning=["5", 0])


def in_a_row(graph):
    for number in range(2000):
        graph[f"row{number}"] = node("ModelSamplingSD3", model=[f"row{number - 1}" if number else "1", 0], shift=1.0)
    graph["9"]["inputs"]["model"] = ["row1999", 0]


BAD = [
    (lambda: "{", (), "it is not JSON"),
    (lambda: " ", (), "it is empty"),
    (lambda: "[" * 100_000, (), "it is nested too deeply"),
    (lambda: changed(in_a_row), (), "it has too many nodes in a row"),
    (lambda: changed(lambda graph: graph["1"].update(class_type="")), (), "not every node has class_type"),
    (lambda: graphs.template(graphs.WAN).read_text(), (), "the canvas's nodes and links; in ComfyUI use Export (API)"),
    (lambda: {"1": {"class_type": "UNETLoader"}}, (), "not every node has class_type and inputs"),
    (lambda: "[]", (), "it is no API graph"),
    (lambda: small(graphs.PICTURES[0]), (), "it is guided already, by NAGPAGGuidance (node 8)"),
    (lambda: changed(merely_previewed), (), "it saves nothing: it needs a Save Image node"),
    (lambda: changed(not_sampled), (), "it samples nothing"),
    (lambda: changed(lambda graph: graph.pop("1")), (), "no loader gives the MODEL that KSampler (node 9) takes"),
    (lambda: changed(lambda graph: graph["1"].update(class_type="Nope")), (), "this ComfyUI lacks Nope (node 1)"),
    (
        lambda: changed(two_texts),
        ("--prompt", "a"),
        "2 places for --prompt: text of CLIPTextEncode (node 5), te",
    ),
    (lambda: changed(zeroed_out), ("--negative-prompt", "a"), "it has no place for --negative-prompt of its own"),
    (lambda: changed(lambda graph: graph["9"]["inputs"].pop("seed")), ("--seed", "1"), "no place for --seed"),
    (lambda: changed(lambda graph: None), ("--nag-pag-scale", "11"), "nag_pag_scale 11.0 is not a number from 0 to 10"),
    (lambda: changed(lambda graph: None), ("--nag-pag-applied-layers", "x"), '"x" is not a block'),
    (lambda: changed(lambda graph: None), ("--width", "64"), "--width is no option"),
]


def test_what_comfyui_refuses_is_said_in_its_words(ask):
    told, said = ask(changed(lambda graph: graph["9"]["inputs"].pop("steps")))
    assert told == 4 and "KSampler: Required input is missing: steps" in said


def test_how_much_of_the_scale_a_high_cfg_wants_is_said_where_none_was_asked_for(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NAGPAG_SERVER", server.url)
    note = "cfg 6 of KSampler (node 9) enlarges what guidance does 6 times: --nag-pag-scale 0.5 is about what 3 is"
    inside = ("--nag-pag-reach", "output")
    cases = [
        (6.0, (), False),  # both predictions are pushed alike
        (6.0, ("--nag-pag-negative-prompt", "off"), True),
        (6.0, inside, True),
        (1.0, inside, False),
        (6.0, (*inside, "--nag-pag-scale", "0"), False),
    ]
    for cfg, words, noted in cases:
        (tmp_path / "mine.json").write_text(json.dumps(without(small(graphs.PICTURES[0], cfg=cfg))))
        mine = ("guide", "--graph", str(tmp_path / "mine.json"), "--output", str(tmp_path))
        assert cli.main([*mine, "--num-inference-steps", "1", *words]) == 0
        assert (note in capsys.readouterr().err) == noted


@pytest.mark.parametrize("graph, words, said", BAD, ids=[said[:30] for *_, said in BAD])
def test_what_is_wrong_is_said_and_nothing_is_queued(server, ask, graph, words, said):
    def known():
        return requests.get(f"{server.url}/history?max_items=1", timeout=30).json().keys()

    before = known()
    told, text = ask(graph(), *words)
    assert told == 2 and said in text and "Traceback" not in text
    assert known() == before and requests.get(f"{server.url}/prompt", timeout=30).json() == {
        "exec_info": {"queue_remaining": 0}
    }


def test_a_missing_file_and_the_wrong_command_are_said(tmp_path, capsys):
    assert cli.main(["guide", "--graph", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
    assert cli.main(["text-to-image", "--prompt", "a", "--graph", "a.json"]) == 2
    assert "--graph is no option; nagpag guide --graph FILE takes one" in capsys.readouterr().err


def test_every_input_of_the_node_is_an_option(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main(["guide", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: nagpag guide --graph FILE [options]\n")
    named = {"blocks": "applied-layers"}
    for item in ADVANCED.widgets:
        assert f"--nag-pag-{named.get(item.name, item.name).replace('_', '-')}" in text


# --- prompt, seed and steps, where the graph has one place for them ---


def test_prompts_seeds_and_steps_go_where_the_graph_has_them(server, ask):
    graph = without(small(graphs.PICTURES[0]))
    words = ("--prompt", "a fox", "--negative-prompt", "a dog", "--seed", "7", "--num-inference-steps", "1")
    told, said = ask(graph, *words, "--nag-pag-scale", "0", "--no-wait", "--json")
    said = json.loads(said)
    assert told == 0 and said["url"] == f"{server.url}/history/{said['prompt_id']}" and "files" not in said
    while not requests.get(said["url"], timeout=30).json():
        time.sleep(0.1)
    made = ran(server, said["prompt_id"])
    changed = {
        (number, name): made[number]["inputs"][name]
        for number, one in graph.items()
        for name, value in one["inputs"].items()
        if made[number]["inputs"][name] != value and name not in ("model", "filename_prefix")
    }
    assert changed == {("5", "text"): "a fox", ("7", "text"): "a dog", ("9", "seed"): 7, ("9", "steps"): 1}


def test_a_text_behind_nodes_that_pass_both_prompts_on_and_over_a_link(kinds):
    graph = {
        "1": LOADER,
        "text": node("PrimitiveStringMultiline", value="a fox"),
        "5": node("CLIPTextEncode", text=["text", 0]),
        "7": node("CLIPTextEncode", text="a dog"),
        "both": node("WanImageToVideo", positive=["5", 0], negative=["7", 0], width=64),
        **sampled(["1", 0], positive=["both", 0], negative=["both", 1]),
    }
    assert loaders.texts(graph, kinds, ("positive",)) == [("text", "value")]
    assert loaders.texts(graph, kinds, ("negative",)) == [("7", "text")]


def test_while_it_waits_no_other_graph_is_fetched(server, ask, monkeypatch):
    """A queue of hundreds of graphs, five times a second."""
    asked, send = [], Client._json

    def heard(self, method, path, body=None):
        asked.append((path, found := send(self, method, path, body)))
        if path.startswith("/api/jobs"):
            Service(server).cancel(before)
        return found

    with Service(server).holding() as before:
        monkeypatch.setattr(Client, "_json", heard)
        told, _ = ask(without(small(graphs.PICTURES[0])), "--num-inference-steps", "4")
    paths = [path for path, _ in asked]
    (mine,) = (found["prompt_id"] for path, found in asked if path == "/prompt")
    looks = [found["jobs"] for path, found in asked if path.startswith("/api/jobs")]
    assert told == 0 and mine in [job["id"] for job in looks[0]] and "KSampler" not in str(looks)
    while_waiting = {path.partition("?")[0] for path in paths[paths.index("/prompt") + 1 :]}
    assert while_waiting == {"/api/jobs", f"/history/{mine}"}


def test_ctrl_c_cancels_it(server, ask, monkeypatch):
    graph = without(small(graphs.PICTURES[0]))

    def interrupted(client, prompt_id):
        while not requests.get(f"{server.url}/queue", timeout=30).json()["queue_running"]:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(prompts, "ended", interrupted)
    told, said = ask(graph, "--num-inference-steps", "200")
    assert told == 130 and "the job was cancelled" in said
    deadline = time.monotonic() + 60
    while requests.get(f"{server.url}/prompt", timeout=30).json()["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (last,) = requests.get(f"{server.url}/history?max_items=1", timeout=30).json().values()
    assert "execution_interrupted" in dict(last["status"]["messages"])


def test_ctrl_c_while_it_is_being_queued_leaves_nothing_behind(server, ask, monkeypatch):
    send = Client._json

    def interrupted(self, method, path, body=None):
        found = send(self, method, path, body)
        if path == "/prompt":
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Client, "_json", interrupted)
    told, said = ask(without(small(graphs.PICTURES[0])), "--num-inference-steps", "200")
    assert told == 130 and "the job was cancelled" in said
    deadline = time.monotonic() + 60
    while requests.get(f"{server.url}/prompt", timeout=30).json()["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    last = requests.get(f"{server.url}/history?max_items=1", timeout=30).json().values()
    assert not [one for one in last if "execution_success" in dict(one["status"]["messages"])
                and "200" in json.dumps(one["prompt"][2]["9"])]  # fmt: skip


def test_ctrl_c_while_files_come_says_where_they_are(ask, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "data", interrupted)
    told, said = ask(without(small(graphs.PICTURES[0])))
    assert told == 130 and "the job is done, and ComfyUI's output folder has flux_" in said
