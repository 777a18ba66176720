"""NAG-PAG Calibrate in a graph through a live server: what it finds goes into NAG-PAG Guidance."""

import io
import json

import numpy as np
import pytest
from nag_pag_flux.lab import graphs
from nag_pag_flux.lab.server import ServerError, run_graph
from nag_pag_flux.nagpag.inputs.calibration import CALIBRATE
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED
from PIL import Image
from showing import outputs


def calibrated(**inputs):
    """Two prompts of the small trained model, and what is found for them wired into the guidance node."""
    graph = graphs.for_trained_model(
        graphs.load_graph("flux_dev_text_to_image"), "a red ring top left, on grey", steps=3
    )
    given = {
        "candidates": "auto; 6-7",
        "alphas": "0.15, 1",
        "reach": "double blocks",
        "negative_prompt": "off",
        "pictures": 2,
        "steps": 3,
        "seed": 1,
        "sigma": 0.7,
        "model": ["1", 0],
        "positive": ["22", 0],
        "empty": ["24", 0],
        "latent_image": ["4", 0],
        "vae": ["3", 0],
        **inputs,
    }
    more = {
        "20": ("CLIPTextEncode", {"text": "a blue cross bottom right, on white", "clip": ["2", 0]}),
        "21": ("FluxGuidance", {"guidance": 3.5, "conditioning": ["20", 0]}),
        "22": ("ConditioningCombine", {"conditioning_1": ["6", 0], "conditioning_2": ["21", 0]}),
        "23": ("CLIPTextEncode", {"text": "", "clip": ["2", 0]}),
        "24": ("FluxGuidance", {"guidance": 3.5, "conditioning": ["23", 0]}),
        "30": (CALIBRATE.id, given),
        "31": ("PreviewAny", {"source": ["30", 3]}),
    }
    graph |= {key: {"class_type": name, "inputs": values} for key, (name, values) in more.items()}
    return graphs.with_guidance(graph, blocks=["30", 0], alpha=["30", 1])


def pixels(server, graph):
    (data,) = run_graph(server, graph)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_what_is_found_guides(server):
    graph = calibrated()
    shown = outputs(server, graph)
    told = json.loads(shown["PreviewAny"]["text"][0])
    assert len(told["tried"]) == 4 and len(shown[CALIBRATE.id]["images"]) == 2, "the sheet and the plot"
    best = told["tried"][0]
    values = {"blocks": best["blocks"], "alpha": best["alpha"] if best["change"] > 0 else 0.0}
    assert (told["reach"], told["negative_prompt"]) == ("double blocks", "off")
    plain_graph = {key: node for key, node in graph.items() if int(key) < 20}
    by_hand = pixels(server, graphs.with_guidance(plain_graph, **values))
    assert (pixels(server, calibrated(sigma=0.7)) == by_hand).all()


def test_the_shipped_graph_runs_and_what_it_found_draws_its_picture(server):
    """As it is but for sizes: four prompts, and blocks and alpha over links."""
    graph = graphs.for_small_models(
        graphs.load_graph(graphs.CALIBRATE), 64, 64, steps=1, pictures=4, alphas="0.5, 1", batch_size=1
    )
    (node,) = (node for node in graph.values() if node["class_type"] == ADVANCED.id)
    found = {"model": ["1", 0], "blocks": ["30", 0], "alpha": ["30", 1]}
    assert node["inputs"] == {**ADVANCED.defaults, **found}, "all else at its default"
    totals = []
    (picture,) = run_graph(server, graph, lambda done, total: totals.append(total))
    assert Image.open(io.BytesIO(picture)).size == (64, 64)
    assert 3 * 4 + 8 in totals, "off and two alphas, four prompts each, and eight pictures decoded"


FEW = {"pictures": 2, "steps": 1, "alphas": "0.5"}
BEFORE = {name: value for name, value in {**CALIBRATE.defaults, **FEW}.items() if name != "negative_prompt"}


@pytest.mark.parametrize(
    "widgets, used",
    [
        ({**BEFORE, "candidates": "auto"}, "off"),
        ({**BEFORE, "negative_prompt": "sampler's"}, "sampler's"),
        (FEW, "sampler's"),
    ],
)
def test_a_graph_saved_before_it_knew_of_a_negative_prompt_runs_without_one(server, widgets, used):
    """The host writes all inputs into a graph that it saves; one that names fewer takes the defaults of now."""
    graph = calibrated()
    links = {name: value for name, value in graph["30"]["inputs"].items() if isinstance(value, list)}
    graph["30"]["inputs"] = {**links, **widgets}
    assert json.loads(outputs(server, graph)["PreviewAny"]["text"][0])["negative_prompt"] == used


def test_a_bad_candidate_is_refused_before_anything_runs(server):
    with pytest.raises(ServerError, match='"x" is not a block'):
        run_graph(server, calibrated(candidates="8\nx"))


def test_a_bad_alpha_is_refused_before_the_first_picture(server):
    with pytest.raises(ServerError, match="'-1' in alphas"):
        run_graph(server, calibrated(alphas="-1"))
