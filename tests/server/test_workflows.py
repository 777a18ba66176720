"""The shipped workflows and the node through a live server with the small models."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import requests
from nag_pag_flux.lab import graphs, host
from nag_pag_flux.lab.make import workflows
from nag_pag_flux.lab.server import ServerError, run_graph, upload_image
from nag_pag_flux.nagpag import config
from PIL import Image

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
    on, off = (run_pixels(server, graphs.with_guidance(graph, scale=scale)) for scale in (3.0, 0.0))
    assert on.shape == (SIZE, SIZE, 3) and (on != off).any()
    said = f"guided double blocks {', '.join(map(str, range(7, 19)))}: 3 steps, branch merged after double block 18"
    assert said in server.log.read_text()


def run_pixels(server, graph):
    """The one picture of a graph; the file itself carries the graph, and so differs with it."""
    (data,) = run_graph(server, graph)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", graphs.NAMES)
def test_only_loaders_sizes_and_the_asked_inputs_change(name):
    """What runs here is the shipped graph: the same nodes and links, other file names and sizes."""
    shipped = graphs.load_graph(name)
    changed = graphs.for_small_models(shipped, SIZE, SIZE)
    assert shipped.keys() == changed.keys()
    for node_id, node in shipped.items():
        assert node["class_type"] == changed[node_id]["class_type"]
        differing = {key for key, value in node["inputs"].items() if changed[node_id]["inputs"][key] != value}
        assert differing <= {"unet_name", "clip_name1", "clip_name2", "type", "vae_name", "width", "height"}


def test_workflow_files_are_what_the_generator_writes():
    for path, text in workflows.files().items():
        assert path.read_text() == text, (
            f"{path.name} is out of date: python3 lab/host.py run -- lab/run.py make_workflows"
        )


@pytest.mark.parametrize("name", graphs.NAMES)
def test_every_workflow_has_a_thumbnail(name):
    with Image.open(host.REPO / "workflows" / f"{name}.jpg") as picture:
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


# --- the node, as the host tells of it ---


@pytest.fixture(scope="module")
def node_info(server):
    return requests.get(f"{server.url}/object_info/{config.NODE_ID}", timeout=30).json()[config.NODE_ID]


def test_the_host_knows_the_node(node_info):
    assert node_info["display_name"] == "NAG-PAG Guidance"
    assert node_info["output"] == ["MODEL"]
    assert node_info["search_aliases"] == [
        "NAG",
        "PAG",
        "perturbed attention",
        "normalized attention guidance",
        "flux guidance",
    ]


def test_every_input_is_as_promised_and_has_a_tooltip(node_info):
    inputs = {**node_info["input"]["required"], **node_info["input"].get("optional", {})}
    assert list(inputs) == ["model", *(item.name for item in config.INPUTS), config.CURVE]
    promised = {
        "scale": (3.0, 0, 10, None),
        "tau": (1.5, 1, 10, True),
        "alpha": (0.15, 0, 1, True),
        "perturbation": (0.3, 0, 1, True),
        "start_percent": (0.0, 0, 1, True),
        "end_percent": (1.0, 0, 1, True),
    }
    assert inputs["schedule"][1]["default"] == "constant" and inputs["schedule"][1].get("advanced") is None
    assert inputs["guide_unconditional"][0] == "BOOLEAN" and inputs["guide_unconditional"][1]["advanced"] is True
    assert inputs["curve"][0] == "CURVE"
    for name, (kind, options) in inputs.items():
        assert len(options["tooltip"]) > 40, name
        if name in promised:
            assert kind == "FLOAT"
            assert (options["default"], options["min"], options["max"], options.get("advanced")) == promised[name]
    assert (inputs["blocks"][1]["default"], inputs["reach"][1]["default"]) == ("auto", "double blocks")


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
        ({"start_percent": 0.6, "end_percent": 0.4}, "start_percent 0.6 is after end_percent 0.4"),
        ({"end_percent": 1.5}, "end_percent 1.5 is not a number from 0 to 1"),
    ],
)
def test_bad_input_is_refused_before_any_work(server, tmp_path, inputs, message):
    graph = graphs.with_guidance(small(graphs.NAMES[0], server, tmp_path), **inputs)
    with pytest.raises(ServerError, match="refused the graph") as caught:
        run_graph(server, graph)
    assert message in str(caught.value)


def test_what_only_the_model_can_tell_is_refused_before_sampling(server, tmp_path):
    message = "block 25 does not exist: this model has double blocks 0 to 18"
    graph, steps = graphs.with_guidance(small(graphs.NAMES[0], server, tmp_path), blocks="25"), []
    with pytest.raises(ServerError, match="NAGPAGGuidance failed: ValueError") as caught:
        run_graph(server, graph, lambda done, total: steps.append(done))
    assert message in str(caught.value) and not steps


def test_a_graph_saved_with_the_first_version_still_runs(server, tmp_path):
    """Its node has six inputs; what came later takes its default."""
    graph = small(graphs.NAMES[0], server, tmp_path)
    node = next(node for node in graph.values() if node["class_type"] == config.NODE_ID)
    first = {"model", *(item.name for item in config.FIRST_INPUTS)}
    assert first == {"model", "scale", "blocks", "tau", "alpha", "start_percent", "end_percent"}
    whole = run_pixels(server, graph)
    node["inputs"] = {name: value for name, value in node["inputs"].items() if name in first}
    assert (run_pixels(server, graph) == whole).all()


def test_a_graph_saved_with_twelve_inputs_still_runs(server, tmp_path):
    """It was saved before schedule, guide_unconditional and curve were there, and with other defaults: it keeps those."""
    saved = json.loads((SAVED / "flux_dev_text_to_image_12_inputs_api.json").read_text())
    node = next(node for node in saved.values() if node["class_type"] == config.NODE_ID)
    assert len(node["inputs"]) == 1 + 12 and (node["inputs"]["tau"], node["inputs"]["alpha"]) == (2.5, 0.25)
    values = {name: value for name, value in node["inputs"].items() if name != "model"}
    shipped = graphs.load_graph("flux_dev_text_to_image")
    saved_pixels, same_values, defaults = (
        run_pixels(server, graphs.for_small_models(graph, SIZE, SIZE, steps=3))
        for graph in (saved, graphs.with_guidance(shipped, **values), shipped)
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
    with pytest.raises(ServerError, match=rf"{config.NODE_ID} failed: ValueError") as caught:
        run_graph(server, drawn({"points": [[0, 2]], "interpolation": "linear"}))
    assert "curve point (0, 2): y is not in 0 to 1" in str(caught.value)


def test_the_pack_loads_in_under_50_ms(server):
    """The host prints what each pack's import took."""
    lines = re.findall(r"^.*?([0-9.]+) seconds: .*nag-pag-flux$", server.log.read_text(), re.MULTILINE)
    assert len(lines) == 1 and float(lines[0]) < 0.1  # it prints tenths: 0.0 is below 50 ms


def test_help_templates_and_translations_are_served(server):
    page = requests.get(f"{server.url}/extensions/nag-pag-flux/docs/NAGPAGGuidance.md", timeout=30)
    assert page.ok and "NAG-PAG Guidance" in page.text
    templates = requests.get(f"{server.url}/workflow_templates", timeout=30).json()
    assert sorted(templates["nag-pag-flux"]) == sorted(graphs.NAMES)
    for name in graphs.NAMES:
        for kind in ("json", "jpg"):
            url = f"{server.url}/api/workflow_templates/nag-pag-flux/{name}.{kind}"
            assert requests.get(url, timeout=30).ok
    translations = requests.get(f"{server.url}/i18n", timeout=30).json()
    assert translations["en"]["nodeDefs"][config.NODE_ID]["display_name"] == config.DISPLAY_NAME
