"""The shipped workflows and the node through a live server with the small models."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import requests
from nag_pag_flux.lab import graphs
from nag_pag_flux.lab.make import blueprint, workflows
from nag_pag_flux.lab.server import ServerError, run_graph, upload_image
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED, GUIDANCE, SAVED_WIDGETS
from PIL import Image
from showing import frames

SIZE = 128
SAVED = Path(__file__).parent / "saved"


def small(name, server, tmp_path, **inputs):
    picture = tmp_path / "start.png"
    Image.radial_gradient("L").convert("RGB").resize((200, 150)).save(picture)
    image = upload_image(server, picture)
    return graphs.for_small_models(graphs.load_graph(name), SIZE, SIZE, image=image, steps=3, **inputs)


@pytest.mark.parametrize("name", graphs.NAMES)
def test_the_api_graph_runs_and_guidance_shows(server, tmp_path, name):
    graph = small(name, server, tmp_path)
    before = len(server.log.read_text())
    on, off = (run_pixels(server, graphs.with_guidance(graph, scale=scale)) for scale in (3.0, 0.0))
    assert on.shape == (SIZE, SIZE, 3) and (on != off).any()
    # Of three steps those behind its start_percent, each with a branch of its own: so few keep no difference.
    steps = 2 if name == graphs.WITH_NEGATIVE else 1
    said = (
        f"guided by a negative prompt: {steps} steps, branch merged at the prediction and computed at {steps} of them"
    )
    assert said in server.log.read_text()[before:]


@pytest.mark.parametrize("name", [graphs.QWEN_IMAGE, graphs.WAN])
def test_the_graph_of_another_family_runs_and_guidance_shows(server, name):
    """As it is shipped, but for the files, the sizes and the steps: LoRA, shift, cfg and all."""
    small = graphs.for_small_models(graphs.load_graph(name), SIZE, SIZE, steps=3, length=5)
    before = len(server.log.read_text())
    on, off = (frames(*run_graph(server, graphs.with_guidance(small, **more))) for more in ({}, {"scale": 0.0}))
    assert on.shape == (5 if name == graphs.WAN else 1, SIZE, SIZE, 3) and (on != off).any()
    said = "guided by a negative prompt: 1 steps, branch merged at the prediction and computed at 1 of them"
    assert server.log.read_text()[before:].count(said) == 1


def run_pixels(server, graph):
    """The one picture of a graph; the file itself carries the graph, and so differs with it."""
    (data,) = run_graph(server, graph)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_only_loaders_sizes_and_the_asked_inputs_change(name):
    """What runs here is the shipped graph: the same nodes and links, other file names and sizes."""
    shipped = graphs.load_graph(name)
    changed = graphs.for_small_models(shipped, SIZE, SIZE)
    assert shipped.keys() == changed.keys()
    for node_id, node in shipped.items():
        assert node["class_type"] == changed[node_id]["class_type"]
        differing = {key for key, value in node["inputs"].items() if changed[node_id]["inputs"][key] != value}
        files = {"unet_name", "clip_name", "clip_name1", "clip_name2", "type", "vae_name", "lora_name"}
        assert differing <= files | {"width", "height"}


def test_workflow_files_are_what_the_generator_writes():
    for path, text in workflows.files().items():
        assert path.read_text() == text, (
            f"{path.name} is out of date: python3 lab/host.py run -- lab/run.py make_workflows"
        )


def test_the_blueprint_is_what_the_generator_writes_and_is_served(server):
    assert blueprint.PATH.read_text() == blueprint.text(), "python3 lab/host.py run -- lab/run.py make_blueprint"
    listed = requests.get(f"{server.url}/global_subgraphs", timeout=30).json()
    (key,) = (key for key, entry in listed.items() if entry["name"] == blueprint.NAME)
    assert listed[key]["info"]["node_pack"] == "custom_nodes.nag-pag-flux"
    assert requests.get(f"{server.url}/global_subgraphs/{key}", timeout=30).json()["data"] == blueprint.text()


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_every_workflow_has_a_thumbnail(name):
    with Image.open(graphs.template(name, "jpg")) as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize("name", graphs.NAMES)
def test_flux_defaults(name):
    nodes = {node["class_type"]: node["inputs"] for node in graphs.load_graph(name).values()}
    sampler = {key: nodes["KSampler"][key] for key in ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")}
    denoise = 0.8 if "image_to" in name else 1.0
    assert sampler == {
        "seed": 42,
        "steps": 20,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": denoise,
    }
    assert nodes["FluxGuidance"]["guidance"] == 3.5
    assert [nodes["UNETLoader"]["unet_name"], nodes["VAELoader"]["vae_name"]] == [
        "flux1-dev.safetensors",
        "ae.safetensors",
    ]
    sized = nodes["ImageScale"] if "image_to" in name else nodes["EmptySD3LatentImage"]
    assert (sized["width"], sized["height"]) == (1024, 1024)


def test_the_other_families_have_the_files_and_settings_of_comfyuis_templates():
    """Qwen-Image with its 8-step LoRA switched on."""
    for name, files, sampler, shift, size in (
        (
            graphs.QWEN_IMAGE,
            [
                "qwen_image_fp8_e4m3fn.safetensors",
                "qwen_2.5_vl_7b_fp8_scaled.safetensors",
                "qwen_image_vae.safetensors",
                "Qwen-Image-Lightning-8steps-V1.0.safetensors",
            ],
            (8, 1.0, "euler", "simple", 1.0),
            3.1,
            (1328, 1328),
        ),
        (
            graphs.WAN,
            ["wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"],
            (30, 6.0, "uni_pc", "simple", 1.0),
            8.0,
            (832, 480),
        ),
    ):
        nodes = {node["class_type"]: node["inputs"] for node in graphs.load_graph(name).values()}
        named = [value for inputs in nodes.values() for value in inputs.values() if str(value).endswith(".safetensors")]
        assert named == files
        names = ("steps", "cfg", "sampler_name", "scheduler", "denoise")
        assert tuple(nodes["KSampler"][one] for one in names) == sampler
        assert [inputs["shift"] for inputs in nodes.values() if "shift" in inputs] == [shift]
        assert [(one["width"], one["height"]) for one in nodes.values() if "width" in one] == [size]
        shown = json.loads(graphs.template(name).read_text())["nodes"]
        linked = {model["name"]: model for node in shown for model in node["properties"].get("models", ())}
        note = next(node for node in shown if node["type"] == "MarkdownNote")["widgets_values"][0]
        assert list(linked) == files
        assert all(f"- {one['directory']}: [{one['name']}]({one['url']})" in note for one in linked.values())


# --- the node, as the host tells of it ---


def info_of(server, node):
    return requests.get(f"{server.url}/object_info/{node.id}", timeout=30).json()[node.id]


@pytest.mark.parametrize(
    "node, title", [(GUIDANCE, "NAG-PAG Guidance"), (ADVANCED, "NAG-PAG Guidance (Advanced)")], ids=lambda x: str(x)[:9]
)
def test_the_host_knows_the_node(server, node, title):
    node_info = info_of(server, node)
    assert node_info["display_name"] == title
    assert node_info["output"] == ["MODEL"]
    assert node_info["search_aliases"] == list(node.aliases)


ALL = [
    *("model", "scale", "alpha", "tau", "blocks", "reach", "reach_blocks"),
    *("negative_prompt", "negative_conditioning", "negative", "temperature", "perturbation"),
    *("start_percent", "end_percent", "schedule", "curve", "renew_every", "guide_unconditional"),
]


def test_every_input_is_as_promised_and_has_a_tooltip(server):
    """One node for everyone, with few inputs, and its sister with all of them in the order of meaning."""
    simple, inputs = (
        {**found["input"]["required"], **found["input"].get("optional", {})}
        for found in (info_of(server, node) for node in (GUIDANCE, ADVANCED))
    )
    assert list(simple) == ["model", "scale", "blocks", "start_percent", "end_percent", "negative_prompt"]
    assert list(inputs) == ALL == [item.name for item in ADVANCED.inputs]
    assert all(simple[name] == inputs[name] for name in simple)
    promised = {
        "scale": (3.0, 0, 10),
        "tau": (1.75, 1, 10),
        "alpha": (0.5, 0, 1),
        "perturbation": (0.1, 0, 1),
        "start_percent": (0.45, 0, 1),
        "end_percent": (1.0, 0, 1),
    }
    assert inputs["schedule"][1]["default"] == "constant"
    assert inputs["guide_unconditional"][0] == "BOOLEAN"
    assert inputs["curve"][0] == "CURVE"
    for name, (kind, options) in inputs.items():
        assert len(options["tooltip"]) > 40, name
        assert options.get("advanced") is None, "who takes the sister wants to see all of it"
        if name in promised:
            assert kind == "FLOAT"
            assert (options["default"], options["min"], options["max"]) == promised[name]
    assert (inputs["blocks"][1]["default"], inputs["reach"][1]["default"]) == ("auto", "prediction")


def test_no_input_but_the_model_has_to_be_sent(server, tmp_path):
    graph = small(graphs.NAMES[0], server, tmp_path)
    whole = run_pixels(server, graph)
    node = guidance_of(graph)
    node["inputs"] = {"model": node["inputs"]["model"]}
    assert (run_pixels(server, graph) == whole).all()


def guidance_of(graph):
    return next(node for node in graph.values() if node["class_type"] in (GUIDANCE.id, ADVANCED.id))


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"scale": 11.0}, "bigger than max"),
        ({"blocks": "8;12"}, '"8;12" is not a block'),
        ({"blocks": ""}, "empty item"),
        ({"blocks": "twelve"}, '"twelve" is not a block'),
        ({"negative": "sideways"}, "sideways"),
        ({"schedule": "sideways"}, "sideways"),
        ({"blocks": "8:11"}, '"8:11": its scale "11" is not a number from 0 to 10'),
        ({"blocks": "8:2, 8:3"}, '"8:2" and "8:3" give double block 8 different'),
        ({"end_percent": 1.5}, "bigger than max"),
    ],
)
def test_bad_input_is_refused_once_on_its_own_input(server, tmp_path, inputs, message):
    graph = graphs.with_guidance(small(graphs.NAMES[0], server, tmp_path), **inputs)
    answer = requests.post(f"{server.url}/prompt", json={"prompt": graph}, timeout=30)
    assert answer.status_code == 400
    (node,) = answer.json()["node_errors"].values()
    (error,) = node["errors"]
    assert error["extra_info"]["input_name"] == next(iter(inputs))
    assert message in f"{error['message']} {error['details']}"


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"blocks": "25"}, "block 25 does not exist: this model has double blocks 0 to 18"),
        ({"start_percent": 0.6, "end_percent": 0.4}, "start_percent 0.6 is after end_percent 0.4"),
    ],
)
def test_what_is_seen_only_when_the_node_runs_is_refused_before_sampling(server, tmp_path, inputs, message):
    """What the model alone can tell, and what is between two inputs: a validation would pin it on both."""
    graph, steps = graphs.with_guidance(small(graphs.NAMES[0], server, tmp_path), **inputs), []
    with pytest.raises(ServerError, match="NAGPAGGuidance failed: ValueError") as caught:
        run_graph(server, graph, lambda done, total: steps.append(done))
    assert message in str(caught.value) and not steps


def test_the_second_text_box_says_what_to_push_away_from(server, tmp_path):
    """The shipped graph with another negative prompt is another picture; without guidance it is the same."""

    def drawn(text, **inputs):
        graph = small(graphs.WITH_NEGATIVE, server, tmp_path)
        (node,) = (node for node in graph.values() if node["_meta"]["title"] == "Negative prompt")
        node["inputs"]["text"] = text
        return run_pixels(server, graphs.with_guidance(graph, **inputs))

    one, other = drawn("a dog"), drawn("watercolor painting")
    assert (one != other).any()
    assert (drawn("a dog", scale=0.0) == drawn("watercolor painting", scale=0.0)).all()


def test_a_negative_conditioning_of_its_own_over_a_link(server, tmp_path):
    graph = small(graphs.WITH_NEGATIVE, server, tmp_path)
    theirs = run_pixels(server, graph)
    node, sampler = guidance_of(graph), next(node for node in graph.values() if node["class_type"] == "KSampler")
    node["inputs"] |= {"negative_conditioning": sampler["inputs"]["negative"], "negative_prompt": "off"}
    sampler["inputs"]["negative"] = sampler["inputs"]["positive"]
    assert (run_pixels(server, graph) == theirs).all()


# --- graphs from before the node had a sister ---


def test_both_nodes_draw_the_same(server, tmp_path):
    graph = graphs.with_guidance(small(graphs.NAMES[0], server, tmp_path), scale=2.0, blocks="8, 12", end_percent=0.8)
    simple = run_pixels(server, graph)
    node = guidance_of(graph)
    node["class_type"], node["inputs"] = ADVANCED.id, {**ADVANCED.defaults, **node["inputs"]}
    assert (run_pixels(server, graph) == simple).all()


def saved_graph(server, tmp_path, count):
    """An API graph as it was saved when NAGPAGGuidance had so many widgets, each set to something else than now."""
    graph = small(graphs.NAMES[0], server, tmp_path)
    values = [2.0, "8, 12", 2.0, 0.5, 0.1, 0.9, "output", 2, "softened", 3.0, 0.5, 2, "bell", True]
    saved = dict(zip([item.name for item in SAVED_WIDGETS], values, strict=True))
    node = guidance_of(graph)
    node["inputs"] = {"model": node["inputs"]["model"], **dict(list(saved.items())[:count])}
    assert node["class_type"] == GUIDANCE.id
    return graph


@pytest.mark.parametrize("count", [6, 12, 14])
def test_a_graph_saved_with_all_inputs_runs_as_the_sister(server, tmp_path, count):
    """Every value that was saved counts; what came later takes its default, but that none carried a negative prompt."""
    graph = saved_graph(server, tmp_path, count)
    found = run_pixels(server, graph)
    last = requests.get(f"{server.url}/history?max_items=1", timeout=30).json()
    (ran,) = (guidance_of(one["prompt"][2]) for one in last.values())
    assert ran["class_type"] == ADVANCED.id and ran["inputs"] == guidance_of(graph)["inputs"] | {
        "negative_prompt": "off"
    }
    node = guidance_of(graph)
    node["class_type"], node["inputs"] = ADVANCED.id, {**ADVANCED.defaults, **ran["inputs"]}
    assert (run_pixels(server, graph) == found).all()
    few = graphs.with_guidance(small(graphs.NAMES[0], server, tmp_path), **GUIDANCE.defaults | {"scale": 2.0})
    assert (run_pixels(server, few) != found).any()


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        [],
        {"1": None},
        {"1": []},
        {"1": {"class_type": GUIDANCE.id}},
        {"1": {"class_type": GUIDANCE.id, "inputs": 3}},
    ],
)
def test_a_request_that_is_none_is_left_to_the_host(server, prompt):
    answer = requests.post(f"{server.url}/prompt", json={"prompt": prompt}, timeout=30)
    assert "on_prompt_handler" not in server.log.read_text().splitlines()[-1] and answer.status_code >= 400


def test_a_graph_saved_with_twelve_inputs_still_runs(server, tmp_path):
    """It was saved before schedule, guide_unconditional and curve were there, with other defaults: it keeps those."""
    saved = json.loads((SAVED / "flux_dev_text_to_image_12_inputs_api.json").read_text())
    node = guidance_of(saved)
    assert len(node["inputs"]) == 1 + 12 and (node["inputs"]["tau"], node["inputs"]["alpha"]) == (2.5, 0.25)
    values = {name: value for name, value in node["inputs"].items() if name != "model"}
    shipped = graphs.load_graph("flux_dev_text_to_image")
    saved_pixels, same_values, defaults = (
        run_pixels(server, graphs.for_small_models(graph, SIZE, SIZE, steps=3))
        for graph in (saved, graphs.with_guidance(shipped, negative_prompt="off", **values), shipped)
    )
    assert (saved_pixels == same_values).all() and (saved_pixels != defaults).any()


def test_a_curve_from_the_stock_editor_runs_and_a_bad_one_is_refused(server, tmp_path):
    graph = small("flux_dev_text_to_image", server, tmp_path)
    falling = {"points": [[0, 1], [1, 0]], "interpolation": "linear"}

    def drawn(curve):
        editor = {"class_type": "CurveEditor", "inputs": {"curve": curve}, "_meta": {"title": "Curve Editor"}}
        return graphs.with_guidance({**graph, "90": editor}, curve=["90", 0])

    ours = run_pixels(server, drawn(falling)).astype(int)
    scheduled = run_pixels(server, graphs.with_guidance(graph, schedule="linear fade-out")).astype(int)
    assert abs(ours - scheduled).max() <= 1 and (ours != run_pixels(server, graph)).any()
    with pytest.raises(ServerError, match=rf"{ADVANCED.id} failed: ValueError") as caught:
        run_graph(server, drawn({"points": [[0, 2]], "interpolation": "linear"}))
    assert "curve point (0, 2): y is not in 0 to 1" in str(caught.value)


def test_the_host_says_that_it_loaded_the_pack(server):
    assert len(re.findall(r"^.*[0-9.]+ seconds: .*nag-pag-flux$", server.log.read_text(), re.MULTILINE)) == 1


def test_help_templates_and_translations_are_served(server):
    page = requests.get(f"{server.url}/extensions/nag-pag-flux/docs/NAGPAGGuidance.md", timeout=30)
    assert page.ok and "NAG-PAG Guidance" in page.text
    # Where the frontend looks first, and takes nothing that comes as a web page.
    page = requests.get(f"{server.url}/extensions/nag-pag-flux/docs/NAGPAGGuidance/pt-BR.md", timeout=30)
    assert page.ok and "KSampler" in page.text and "html" not in page.headers["Content-Type"]
    templates = requests.get(f"{server.url}/workflow_templates", timeout=30).json()
    assert sorted(templates["nag-pag-flux"]) == sorted(graphs.TITLES.values())
    for name in graphs.TITLES.values():
        for kind in ("json", "jpg"):
            url = f"{server.url}/api/workflow_templates/nag-pag-flux/{name}.{kind}"
            assert requests.get(url, timeout=30).ok
    translations = requests.get(f"{server.url}/i18n", timeout=30).json()
    for node in (GUIDANCE, ADVANCED):
        assert translations["en"]["nodeDefs"][node.id]["display_name"] == node.title
        assert requests.get(f"{server.url}/extensions/nag-pag-flux/docs/{node.id}.md", timeout=30).ok
