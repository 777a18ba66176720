"""The table of requests, the graphs made from it, and how model files are found."""

import json
import subprocess
import sys

import pytest
from nag_pag_flux.lab import graphs, host
from nag_pag_flux.nagpag.inputs import requests
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED, BLOCKS, NEGATIVE_PROMPT
from nag_pag_flux.nagpag.inputs.kinds import Flag, Number, Socket, Texts
from nag_pag_flux.nagpag.service import checkpoint, models
from nag_pag_flux.nagpag.service import graphs as api_graphs
from nag_pag_flux.nagpag.service import request as table
from nag_pag_flux.nagpag.service.server import graph, schema

PROMISED = {
    "width": (1024, 64, 4096),
    "height": (1024, 64, 4096),
    "num_inference_steps": (20, 1, 200),
    "guidance_scale": (3.5, 0, 100),
    "nag_pag_scale": (3.0, 0, 10),
    "nag_pag_tau": (1.75, 1, 10),
    "nag_pag_alpha": (0.5, 0, 1),
    "strength": (0.8, 0, 1),
    "num_images": (1, 1, 8),
}


def whole(endpoint, **values):
    """A whole request with its defaults, and with whatever else, valid or not."""
    found = {field.name: field.default for field in table.ENDPOINTS[endpoint][1]}
    asked = {**found, "prompt": "a cat", "image_url": "x.png", "seed": 42, **values}
    return schema.REQUESTS[endpoint].model_construct(**asked)


def test_names_defaults_and_ranges_are_the_promised_ones():
    fields = {field.name: field for field in table.IMAGE_TO_IMAGE}
    for name, promised in PROMISED.items():
        assert (fields[name].default, fields[name].minimum, fields[name].maximum) == promised
    assert fields["width"].multiple_of == fields["height"].multiple_of == 16
    assert [name for name, field in fields.items() if field.required] == ["prompt", "image_url"]
    assert requests.LAYERS.default == tuple(f"transformer_blocks.{block}.attn" for block in (8, 12, 16))
    assert fields["wait"].default is True and fields["seed"].nullable


@pytest.mark.parametrize(
    "item", [item for item in ADVANCED.inputs if item not in (BLOCKS, NEGATIVE_PROMPT)], ids=lambda item: item.name
)
def test_every_plain_input_of_the_node_has_its_field(item):
    field = next((field for field in table.TEXT_TO_IMAGE if field.name == f"nag_pag_{item.name}"), None)
    if isinstance(item, Socket):
        assert field is None
        return
    assert type(field) is type(item)
    assert field.default == item.default and field.target == (ADVANCED.id, item.name)
    for name in ("minimum", "maximum", "options", "whole", "does"):
        if hasattr(item, name):
            assert getattr(field, name) == getattr(item, name)


@pytest.mark.parametrize("endpoint, name", list(zip(table.ENDPOINTS, graphs.PICTURES, strict=True)))
def test_the_defaults_make_the_shipped_graph(endpoint, name):
    """But for the prompt, the picture, the files' names, and the blocks: the published ones, not `auto`."""
    files = {file.field: file.name for file in models.FILES}
    made, shipped = graph.build(endpoint, whole(endpoint, negative_prompt="", **files)), graphs.load_graph(name)
    shipped["5"]["inputs"]["text"] = "a cat"
    # The shipped graph has the simple node; its sister, which has all inputs, stands in its place.
    shipped["8"] |= {"class_type": ADVANCED.id, "_meta": {"title": ADVANCED.title}}
    shipped["8"]["inputs"] = {**ADVANCED.defaults, **shipped["8"]["inputs"]}
    shipped["8"]["inputs"]["blocks"] = ", ".join(requests.LAYERS.default)
    if endpoint == "image-to-image":
        shipped["13"]["inputs"]["image"] = "x.png"
    assert made == shipped


@pytest.mark.parametrize("endpoint", table.ENDPOINTS)
@pytest.mark.parametrize("text", ["", "a dog"])
def test_a_negative_prompt_is_wired_to_the_sampler_and_carried(endpoint, text):
    plain, made = (graph.build(endpoint, whole(endpoint, negative_prompt=asked)) for asked in (None, text))
    node = api_graphs.node_of(made, "KSampler")["inputs"]["negative"][0]
    assert made[node] == {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": text, "clip": plain["5"]["inputs"]["clip"]},
        "_meta": {"title": "Negative prompt"},
    }
    assert api_graphs.node_of(made, ADVANCED.id)["inputs"]["negative_prompt"] == "sampler's"
    assert api_graphs.node_of(plain, ADVANCED.id)["inputs"]["negative_prompt"] == "off"
    assert plain[node]["inputs"]["text"] == ""
    rest = [number for number in plain if number != node and plain[number]["class_type"] != ADVANCED.id]
    assert {number: made[number] for number in rest} == {number: plain[number] for number in rest}


@pytest.mark.parametrize(
    "said, negative",
    [
        ({}, ""),
        ({"negative_prompt": None}, ""),
        ({"nag_pag_scale": 2.0}, ""),
        ({"nag_pag_applied_layers": ["8"]}, None),
        ({"nag_pag_negative": "mean"}, None),
        ({"nag_pag_temperature": 3.0}, None),
        ({"nag_pag_perturbation": 0.9}, None),
        ({"nag_pag_perturbation": 0.9, "negative_prompt": "a dog"}, "a dog"),
    ],
)
def test_whoever_says_how_a_branch_is_disturbed_gets_one_that_is(said, negative):
    assert schema.validate("text-to-image", {"prompt": "a cat", **said}).negative_prompt == negative


def test_every_field_with_a_target_changes_its_input_and_no_link():
    plain = graph.build("image-to-image", whole("image-to-image"))
    for field in table.IMAGE_TO_IMAGE:
        if field.target:
            value = ["3"] if isinstance(field, Texts) else True if isinstance(field, Flag) else "other"
            value = 1 if isinstance(field, Number) else value
            changed = graph.build("image-to-image", whole("image-to-image", **{field.name: value}))
            differing = [
                (node["class_type"], name)
                for number, node in changed.items()
                for name, found in node["inputs"].items()
                if found != plain[number]["inputs"][name]
            ]
            kinds = {field.target} if field.target[0] else {("ImageScale", field.name)}
            assert set(differing) <= kinds and not any(
                isinstance(plain[number]["inputs"].get(field.target[1]), list)
                for number, node in plain.items()
                if node["class_type"] == field.target[0]
            )


# --- files ---


def write(path, shapes):
    """A safetensors file with a header and nothing after it."""
    text = json.dumps(
        {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())


def flux(inn=64, guidance=True, prefix=""):
    shapes = {f"{prefix}double_blocks.{i}.img_attn.qkv.weight": [9, 9] for i in range(19)}
    shapes |= {f"{prefix}img_in.weight": [3072, inn], f"{prefix}vector_in.in_layer.weight": [9, 768]}
    return shapes | ({f"{prefix}guidance_in.in_layer.weight": [9, 9]} if guidance else {})


FAMILIES = {
    "FLUX.1 [dev]": flux(),
    "FLUX.1 [schnell]": flux(guidance=False),
    "FLUX.1 Fill": flux(384),
    "FLUX.1 Canny or Depth": flux(128),
    "Chroma": {**flux(), "distilled_guidance_layer.in_proj.weight": [9, 9]},
    "FLUX.2": {**flux(), "double_stream_modulation_img.lin.weight": [9, 9]},
    "CLIP-L": {"text_model.embeddings.position_embedding.weight": [77, 768]},
    "T5-XXL": {"shared.weight": [32128, 4096], "encoder.block.23.layer.0.SelfAttention.q.weight": [4096, 4096]},
    "autoencoder, 16 channels": {"decoder.conv_in.weight": [512, 16, 3, 3]},
    "other": {"something.weight": [1]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_by_their_headers(tmp_path, family):
    write(tmp_path / "a.safetensors", FAMILIES[family])
    assert checkpoint.kind_of(tmp_path / "a.safetensors") == family


def test_prefixes_and_diffusers_names(tmp_path):
    write(tmp_path / "a.safetensors", flux(prefix="model.diffusion_model."))
    names = {f"transformer_blocks.{i}.attn.to_q.weight": [9, 9] for i in range(19)}
    names |= {"x_embedder.weight": [9, 64], "time_text_embed.text_embedder.linear_1.weight": [9, 9]}
    write(tmp_path / "b.safetensors", names)
    assert checkpoint.inspect(tmp_path / "a.safetensors").family == "FLUX.1 [dev]"
    found = checkpoint.inspect(tmp_path / "b.safetensors")
    assert (found.family, found.double_blocks, found.auto) == ("FLUX.1 [schnell]", 19, tuple(range(7, 19)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 8,
        b"\x02" + b"\0" * 7 + b"[]",
        b"\x09" + b"\0" * 7 + b'{"a": 1}  ',
        b"\x10" + b"\0" * 7 + b"{",
    ],
)
def test_files_that_are_no_safetensors(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.safetensors is not a safetensors file"):
        checkpoint.inspect(tmp_path / "a.safetensors")
    assert checkpoint.kind_of(tmp_path / "a.safetensors") is None


def pick(tmp_path, file, named):
    """What is picked of files of these names and headers (None: no header)."""
    for name, family in named.items():
        if family is None:
            (tmp_path / name).write_bytes(b"no header")
        else:
            write(tmp_path / name, FAMILIES[family])
    return models.pick(file, sorted(named, reverse=True), lambda name: tmp_path / name)


DEV, SCHNELL = "FLUX.1 [dev]", "FLUX.1 [schnell]"


@pytest.mark.parametrize(
    "file, named, picked",
    [
        (models.FLUX, {"a.safetensors": DEV, "flux1-dev.safetensors": DEV}, "flux1-dev.safetensors"),
        (models.FLUX, {"x/flux1-dev.safetensors": DEV, "a.safetensors": DEV}, "x/flux1-dev.safetensors"),
        (
            models.FLUX,
            {"flux1-krea-dev.safetensors": DEV, "flux1-dev-fp8.safetensors": DEV},
            "flux1-dev-fp8.safetensors",
        ),
        (
            models.FLUX,
            {"flux1-schnell.safetensors": SCHNELL, "flux1-krea-dev.safetensors": DEV},
            "flux1-krea-dev.safetensors",
        ),
        (models.FLUX, {"flux1-schnell.safetensors": SCHNELL, "sd.safetensors": "other"}, "flux1-schnell.safetensors"),
        (models.FLUX, {"flux1-fill-dev.safetensors": "FLUX.1 Fill", "flux2.safetensors": "FLUX.2"}, None),
        (models.FLUX, {"flux1-dev.pt": None, "my.safetensors": DEV}, "my.safetensors"),
        (models.FLUX, {"flux-dev.pt": None, "wan.pt": None}, "flux-dev.pt"),
        (models.CLIP_L, {"a.safetensors": "CLIP-L", "t5xxl.safetensors": "T5-XXL"}, "a.safetensors"),
        (
            models.T5XXL,
            {"t5xxl_fp8_e4m3fn.safetensors": "T5-XXL", "t5xxl_fp16.safetensors": "T5-XXL"},
            "t5xxl_fp16.safetensors",
        ),
        (models.T5XXL, {"umt5.safetensors": "other"}, None),
        (models.VAE, {"sd3_vae.safetensors": "autoencoder, 16 channels"}, None),
        (
            models.VAE,
            {"flux_vae.safetensors": "autoencoder, 16 channels", "ae.safetensors": "autoencoder, 16 channels"},
            "ae.safetensors",
        ),
        (models.VAE, {"flux2-vae.safetensors": "other"}, None),
        (models.VAE, {}, None),
    ],
)
def test_what_is_picked(tmp_path, file, named, picked):
    for name in named:
        (tmp_path / name).parent.mkdir(exist_ok=True)
    assert pick(tmp_path, file, named) == picked


def test_an_official_name_with_another_models_header_is_not_picked(tmp_path):
    assert pick(tmp_path, models.FLUX, {"flux1-dev.safetensors": "FLUX.1 Fill"}) is None


def test_importing_the_service_is_light():
    """Registering the routes must not bring pydantic, Pillow or torch; the first request does."""
    code = (
        "import sys, aiohttp.web; before = set(sys.modules)\n"
        "import nagpag.service.server as server; server.add_routes()\n"
        "heavy = {'pydantic', 'PIL', 'torch', 'numpy'} & (set(sys.modules) - before)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=host.REPO, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
