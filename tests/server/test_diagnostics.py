"""The diagnostics graph through a live server: what its nodes say, and what the host's cache makes of them."""

import copy
import io
import json

import pytest
import requests
from nag_pag_flux.lab import graphs
from nag_pag_flux.lab.make.locales import NODES
from nag_pag_flux.lab.server import run_graph
from PIL import Image
from showing import outputs, outputs_by_id

STEPS = 3
MERGE = "prediction"


def small(seed=42, **guidance):
    graph = graphs.for_small_models(graphs.load_graph(graphs.DIAGNOSTICS), 128, 128, steps=STEPS, seed=seed)
    return with_numbers(graphs.with_guidance(graph, **guidance))


def with_numbers(graph):
    """The same graph with the plot's numbers shown by the stock PreviewAny."""
    graph = copy.deepcopy(graph)
    plot = next(key for key, node in graph.items() if node["class_type"] == "NAGPAGPlot")
    graph["90"] = {"class_type": "PreviewAny", "inputs": {"source": [plot, 2]}}
    return graph


def numbers(shown):
    return json.loads(shown["PreviewAny"]["text"][0])


def picture(server, shown):
    (image,) = shown["NAGPAGPlot"]["images"]
    return Image.open(io.BytesIO(requests.get(f"{server.url}/view", params=image, timeout=30).content)).convert("RGB")


def test_every_node_shows_what_it_found(server):
    shown = outputs(server, graphs.with_guidance(small(seed=1), start_percent=0.0, renew_every=6))
    (text,) = shown["NAGPAGInspect"]["text"]
    for found in (
        "blocks: 19 double, 4 single",
        f"auto is: double blocks {', '.join(map(str, range(7, 19)))}",
        "weights: fp32",
    ):
        assert found in text
    said = numbers(shown)
    assert said["state"] == "finished" and said["problems"] == []
    merges = [(row["step"], row["block"], row["branch"]) for row in said["rows"]]
    assert merges == [(1, MERGE, "computed"), (2, MERGE, "reused"), (3, MERGE, "reused")]
    strengths = [row["strength"] for row in said["rows"]]
    assert strengths[0] == 3.0 and strengths == sorted(strengths, reverse=True) and strengths[2] < 2.5
    assert picture(server, shown).size == (1280, 960)


def test_a_cached_record_never_mixes_runs(server):
    first = outputs(server, small(seed=2))
    again = outputs(server, small(seed=2))  # all of it from the host's cache
    other = outputs(server, small(seed=3))  # Record from the cache, the sampler anew
    assert numbers(first) == numbers(again)
    assert len(numbers(other)["rows"]) == len(numbers(first)["rows"])
    assert numbers(other)["rows"] != numbers(first)["rows"]


def test_a_plot_of_an_earlier_sampling_finds_its_own_run(server):
    """A second sampler on the same recorded model, run before either plot is drawn."""
    graph = small(seed=4)
    sampler = next(key for key, node in graph.items() if node["class_type"] == "KSampler")
    plot = next(key for key, node in graph.items() if node["class_type"] == "NAGPAGPlot")
    graph["91"] = copy.deepcopy(graph[sampler])
    graph["91"]["inputs"] |= {"steps": 2, "latent_image": [sampler, 0], "denoise": 1.0, "seed": 5}
    graph["92"] = {"class_type": "NAGPAGPlot", "inputs": {**graph[plot]["inputs"], "latent": ["91", 0]}}
    graph["93"] = {"class_type": "PreviewAny", "inputs": {"source": ["92", 2]}}
    shown = outputs_by_id(server, graph)
    steps = [json.loads(shown[key]["text"][0])["steps"] for key in ("90", "93")]
    assert steps == [STEPS, 2]


@pytest.mark.parametrize("inputs, why", [({"scale": 0.0}, "scale is 0"), ({"start_percent": 1.0}, "no step of this")])
def test_an_empty_record_is_a_picture_that_says_why(server, inputs, why):
    shown = outputs(server, small(**inputs))
    assert why in numbers(shown)["problems"][0] and numbers(shown)["rows"] == []
    assert picture(server, shown).size == (1280, 960)


def test_the_plot_is_an_image_for_other_nodes(server):
    (data,) = run_graph(server, graphs.with_plot_saved(small(seed=1)))
    assert Image.open(io.BytesIO(data)).size == (1280, 960)


@pytest.mark.parametrize("other", NODES, ids=lambda other: other.id)
def test_the_host_knows_the_nodes(server, other):
    info = requests.get(f"{server.url}/object_info/{other.id}", timeout=30).json()[other.id]
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    assert info["display_name"] == other.title and info["search_aliases"] == list(other.aliases)
    assert {name: options[1]["tooltip"] for name, options in inputs.items()} == {i.name: i.does for i in other.inputs}
    assert list(info["output_tooltips"]) == [output.does for output in other.outputs]
    page = requests.get(f"{server.url}/extensions/nag-pag-flux/docs/{other.id}.md", timeout=30)
    assert page.ok and other.title in page.text
