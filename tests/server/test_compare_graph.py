"""NAG-PAG Compare in its shipped graph through a live server."""

import io

import pytest
import requests
from nag_pag_flux.lab import graphs
from nag_pag_flux.lab.server import ServerError, run_graph
from nag_pag_flux.nagpag.inputs.comparison import COMPARE
from PIL import Image

SIZE, STEPS = 64, 2


def shipped(name=graphs.COMPARE, **inputs):
    return graphs.for_small_models(graphs.load_graph(name), SIZE, SIZE, steps=STEPS, **inputs)


def drawn(server, graph):
    """The pictures that are saved, and how far the bar went at most: steps of what was missing, and the decoding."""
    totals = []
    saved = run_graph(server, graph, lambda done, total: totals.append(total))
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in saved], max(totals)


def with_pictures_saved(graph):
    saver = next(node for node in graph.values() if node["class_type"] == "SaveImage")
    saver["inputs"]["images"] = [saver["inputs"]["images"][0], 1]
    return graph


def test_the_shipped_graph_draws_its_sheet_and_then_only_what_is_missing(server):
    """And its pictures are those of the graph with the guidance node."""
    (sheet,), total = drawn(server, shipped(seed=1, seeds=1))
    assert total == 7 * (STEPS + 1), "off and six settings"
    assert sheet.width == 4 * SIZE + 3 * 4 and sheet.height > 2 * SIZE
    axes = "scale: 3, 7\nnegative_prompt: sampler's"
    pictures, total = drawn(server, with_pictures_saved(shipped(seed=1, seeds=1, axes=axes)))
    assert len(pictures) == 3 and total == 1 * STEPS + 3, "scale 7 is new"
    graph = shipped(graphs.WITH_NEGATIVE, seed=1)
    settings = [{"scale": 0.0}, {"scale": 3.0, "negative_prompt": "sampler's"}]
    for picture, inputs in zip(pictures, settings, strict=False):
        ((own,), _) = drawn(server, graphs.with_guidance(graph, **inputs))
        assert picture.tobytes() == own.tobytes(), inputs


def test_after_an_interruption_it_goes_on(server):
    steps = 12  # so many that the interruption comes before the last picture
    graph = graphs.for_small_models(
        graphs.load_graph(graphs.COMPARE), SIZE, SIZE, steps=steps, seed=3, seeds=4, axes="scale: 3"
    )
    totals = []

    def progress(done, total):
        if done > steps and not totals:  # the first of 8 pictures is whole
            totals.append(total)
            requests.post(f"{server.url}/interrupt", json={}, timeout=30)

    with pytest.raises(ServerError, match="interrupted"):
        run_graph(server, graph, progress)
    _, left = drawn(server, graph)
    assert totals == [8 * (steps + 1)]
    kept, rest = divmod(totals[0] - left, steps)
    assert 1 <= kept < 8 and rest == 0


def test_one_fault_is_said_once(server):
    with pytest.raises(ServerError, match="refused the graph") as caught:
        run_graph(server, shipped(axes="scale: 1, much"))
    assert str(caught.value).count("scale 'much' is not a number from 0 to 10") == 1


def test_any_stock_sampler_can_be_chosen(server):
    url = f"{server.url}/object_info"
    ours = requests.get(f"{url}/{COMPARE.id}", timeout=30).json()[COMPARE.id]["input"]["optional"]
    stock = requests.get(f"{url}/KSampler", timeout=30).json()["KSampler"]["input"]["required"]
    for name in ("sampler_name", "scheduler"):
        kind, options = ours[name]
        assert (options["options"] if kind == "COMBO" else kind) == stock[name][0]
        assert options["default"] in stock[name][0]
