"""Both endpoints to finished pictures, equal to the same graph queued by hand with HTTP's own default blocks."""

import base64
import io
import json

import numpy as np
import pytest
import requests
from asking import SMALL, pixels, png
from nag_pag_flux.lab import graphs
from nag_pag_flux.lab.server import run_graph, upload_image
from PIL import Image

TEXT, IMAGE = graphs.PICTURES
PUBLISHED = {"blocks": "8, 12, 16"}


def by_hand(service, name, node=None, **inputs):
    """The shipped graph, run without the service, with these inputs of the guidance node; its pictures' pixels."""
    graph = graphs.for_small_models(graphs.load_graph(name), 64, 64, steps=2, text="a cat", **inputs)
    graph["7"]["inputs"]["text"] = ""  # of the negative prompt
    return [pixels(data) for data in run_graph(service.server, graphs.with_guidance(graph, **node or {}))]


def pictures(answer):
    assert answer.status_code == 200, answer.text
    return [pixels(requests.get(image["url"], timeout=30).content) for image in answer.json()["images"]]


def test_text_to_image_is_the_shipped_graph(service):
    answer = service.post(seed=7, num_images=2)
    made, expected = pictures(answer), by_hand(service, TEXT, seed=7, batch_size=2, **PUBLISHED)
    assert len(made) == 2 and np.array_equal(made, expected)
    assert (made[0] != made[1]).any() and made[0].shape == (64, 64, 3)


def test_every_setting_reaches_its_node(service):
    """Values that are no default, against the same ones set by hand."""
    node = {
        "scale": 2.0, "blocks": "1, 3-4", "tau": 2.0, "alpha": 0.5, "start_percent": 0.1, "end_percent": 0.9,
        "reach": "output", "renew_every": 2, "negative": "softened", "temperature": 3.0, "perturbation": 0.5,
        "reach_blocks": 3,
    }  # fmt: skip
    fields = {f"nag_pag_{name}": value for name, value in node.items() if name != "blocks"}
    answer = service.post(
        seed=8, guidance_scale=2.0, sampler_name="heun", scheduler="beta",
        nag_pag_applied_layers=["double_blocks.1", "3-4"], **fields,
    )  # fmt: skip
    prompt = json.loads(Image.open(image_file(answer)).info["prompt"])
    by_kind = {entry["class_type"]: entry["inputs"] for entry in prompt.values()}
    guidance = by_kind["NAGPAGGuidanceAdvanced"]
    assert {name: guidance[name] for name in node} == node | {"blocks": "double_blocks.1, 3-4"}
    sampler = {"seed": 8, "steps": 2, "sampler_name": "heun", "scheduler": "beta", "cfg": 1.0, "denoise": 1.0}
    assert {name: by_kind["KSampler"][name] for name in sampler} == sampler
    assert by_kind["FluxGuidance"]["guidance"] == 2.0
    hand = by_hand(
        service, TEXT, node | {"negative_prompt": "off"}, seed=8, guidance=2.0, sampler_name="heun", scheduler="beta"
    )
    assert np.array_equal(pictures(answer), hand)


@pytest.mark.parametrize("endpoint, start", [("text-to-image", {}), ("image-to-image", {"strength": 0.8})])
def test_a_negative_prompt_is_carried(service, endpoint, start):
    """Another text is another picture; with guidance off, or without a text, it is the picture that it was."""
    if endpoint == "image-to-image":
        start["image_url"] = f"data:;base64,{base64.b64encode(png()).decode()}"

    def drawn(**body):
        (picture,) = pictures(service.post(endpoint, seed=11, nag_pag_applied_layers=["auto"], **start, **body))
        return picture

    dog, nothing, none = drawn(negative_prompt="a dog"), drawn(negative_prompt=""), drawn()
    assert (dog != nothing).any() and (nothing != none).any()
    within = [drawn(negative_prompt=text, nag_pag_reach="attention") for text in ("a dog", "")]
    assert (within[0] != within[1]).any() and (within[0] != dog).any()
    assert np.array_equal(none, drawn(negative_prompt=None))  # as blocks are named, which are disturbed instead
    off = drawn(nag_pag_scale=0.0)
    assert np.array_equal(drawn(negative_prompt="a dog", nag_pag_scale=0.0), off) and (off != none).any()


def image_file(answer):
    (image,) = answer.json()["images"]
    return io.BytesIO(requests.get(image["url"], timeout=30).content)


@pytest.mark.parametrize("how", ["data", "name"])
def test_image_to_image_is_the_shipped_graph(service, tmp_path, how):
    data = png(80, 64)
    (tmp_path / "noise.png").write_bytes(data)
    name = upload_image(service.server, tmp_path / "noise.png")
    url = name if how == "name" else f"data:image/png;base64,{base64.b64encode(data).decode()}"
    answer = service.post("image-to-image", image_url=url, strength=0.6, seed=9)
    assert np.array_equal(pictures(answer), by_hand(service, IMAGE, image=name, denoise=0.6, seed=9, **PUBLISHED))
    fit = answer.json()["image"]
    assert (fit["size"], fit["kept"], fit["to"]) == ([80, 64], [64, 64], [64, 64])
    assert fit["method"] == "scale and centre crop"
    assert answer.json()["settings"]["image_url"] == fit["file"] and (fit["file"] == name) == (how == "name")


def test_several_pictures_from_one_differ_and_the_first_is_the_one_alone(service):
    url = f"data:;base64,{base64.b64encode(png()).decode()}"
    alone, both = (
        pictures(service.post("image-to-image", image_url=url, seed=10, num_images=count)) for count in (1, 2)
    )
    assert len(both) == 2 and (both[0] != both[1]).any()
    assert abs(both[0].astype(int) - alone[0].astype(int)).max() <= 1  # batches may round otherwise


def test_strength_0_keeps_the_picture_and_the_least_is_told(service):
    url = f"data:;base64,{base64.b64encode(png(64, 64)).decode()}"
    kept, other_seed = (
        pictures(service.post("image-to-image", image_url=url, strength=0, seed=seed)) for seed in (1, 2)
    )
    assert np.array_equal(kept, other_seed)
    answer = service.post("image-to-image", image_url=url, strength=1e-300, seed=1)
    assert answer.status_code == 200 and answer.json()["settings"]["strength"] == 0.01


def test_the_answer_repeats_itself(service):
    """A drawn seed is told; with the settings of an answer the same picture comes again."""
    first = service.post(seed=None)
    body = first.json()
    assert 0 <= body["seed"] < 2**50 and body["settings"]["seed"] == body["seed"] and body["seconds"] >= 0
    again = service.raw(json=body["settings"])
    assert np.array_equal(pictures(first), pictures(again)) and again.json()["settings"] == body["settings"]
    assert again.json()["images"][0]["filename"] != body["images"][0]["filename"]  # though all else was in the cache
    assert body["settings"]["diffusion_model"] == "flux_small.safetensors"  # found
    assert body["settings"]["nag_pag_applied_layers"] == [f"transformer_blocks.{i}.attn" for i in (8, 12, 16)]


def test_it_is_an_ordinary_prompt(service):
    """In the history with its pictures, and the PNG carries the graph that ComfyUI opens."""
    body = service.post(seed=12).json()
    history = requests.get(f"{service.url}/history/{body['prompt_id']}", timeout=30).json()[body["prompt_id"]]
    images = [image for output in history["outputs"].values() for image in output["images"]]
    told = [{name: image[name] for name in ("filename", "subfolder", "type")} for image in body["images"]]
    assert images == told
    graph = json.loads(
        Image.open(io.BytesIO(requests.get(body["images"][0]["url"], timeout=30).content)).info["prompt"]
    )
    shipped = graphs.load_graph(TEXT)
    # All nodes are the shipped graph's, but for guidance: the sister that has all inputs.
    kinds = {number: node["class_type"].removesuffix("Advanced") for number, node in graph.items()}
    assert kinds == {number: node["class_type"] for number, node in shipped.items()}
    assert graph == history["prompt"][2]


def test_the_api_mirror(service):
    answer = requests.post(f"{service.url}/api/nagpag/text-to-image", json={"prompt": "a cat", **SMALL}, timeout=120)
    assert answer.status_code == 200
