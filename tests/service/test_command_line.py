"""The command line as a subprocess, and the Python client, against the live server."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from asking import SMALL, command, pixels, png
from nag_pag_flux.lab import host
from nag_pag_flux.nagpag.inputs import requests as inputs
from nag_pag_flux.nagpag.service import client as of_client
from nag_pag_flux.nagpag.service import request as table
from nag_pag_flux.nagpag.service.client import BadRequest, Client, JobFailed, NoServer, as_url, cli, compare
from PIL import Image

OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
PROMPT = ["--prompt", "a cat", "--seed", "31", *OPTIONS]


def test_text_to_image_saves_where_told_and_never_over_a_file(service, nagpag, tmp_path):
    expected = requests.get(service.post(seed=31).json()["images"][0]["url"], timeout=30).content
    target = tmp_path / "new folder" / "cat.png"
    done = nagpag("text-to-image", *PROMPT, "--output", target)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(pixels(target.read_bytes()), pixels(expected))
    assert "seed 31" in done.stdout and str(target) in done.stdout
    assert "text-to-image: done" in done.stderr and "2/2" in done.stderr  # the progress bar
    first = target.read_bytes()
    done = nagpag("text-to-image", *PROMPT, "--output", target)
    assert str(target.with_name("cat_1.png")) in done.stdout
    assert target.read_bytes() == first and target.with_name("cat_1.png").is_file()


def test_image_to_image_from_a_local_file_as_json(nagpag, tmp_path):
    (tmp_path / "start.png").write_bytes(png())
    words = ("image-to-image", *PROMPT, "--image-url", tmp_path / "start.png", "--strength", 0.5, "--num_images", 2)
    done = nagpag(*words, "--output", tmp_path, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    assert len(told["files"]) == 2 and all(Path(file).is_file() for file in told["files"])
    assert (told["seed"], told["settings"]["strength"]) == (31, 0.5) and told["image"]["kept"] == [64, 64]


def test_compare_writes_both_with_their_labels(nagpag, tmp_path):
    done = nagpag("text-to-image", *PROMPT, "--output", tmp_path / "a.png", "--compare", "--json")
    told = json.loads(done.stdout)
    sheet = np.asarray(Image.open(told["compare"]))
    assert Path(told["compare"]).name == "a_compare.png" and sheet.shape == (64 + compare.LABEL, 128, 3)
    guided = pixels((tmp_path / "a.png").read_bytes())
    assert np.array_equal(sheet[:64, 64:], guided) and (sheet[:64, :64] != guided).any()
    assert (sheet[64:, :64] < 128).any() and (sheet[64:, 64:] < 128).any()  # ink of the labels


def test_a_negative_prompt_from_the_command_line(nagpag, tmp_path):
    told = [
        json.loads(nagpag("text-to-image", *PROMPT, *more, "--output", tmp_path / f"{i}.png", "--json").stdout)
        for i, more in enumerate(((), ("--negative-prompt", "a dog")))
    ]
    assert [one["settings"]["negative_prompt"] for one in told] == ["", "a dog"]
    plain, pushed = (pixels((tmp_path / f"{i}.png").read_bytes()) for i in (0, 1))
    assert (plain != pushed).any()


def test_labels_fit_and_differ():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(file, "PNG")
    sheet = np.asarray(compare.side_by_side([{"x" * 40: file.getvalue(), "y": file.getvalue()}]))
    dark = np.flatnonzero((sheet[64:] < 128).any(axis=(0, 2)))
    assert dark.min() >= 4 and not ((dark >= 60) & (dark < 68)).any()  # each beneath its own picture


def test_without_waiting(service, nagpag):
    told = json.loads(nagpag("text-to-image", *PROMPT, "--no-wait", "--json").stdout)
    deadline = time.monotonic() + 60
    while service.job(told["prompt_id"]).json()["status"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert told["url"].endswith(told["prompt_id"])


def test_models(nagpag):
    done = nagpag("models")
    assert done.returncode == 0 and "diffusion_model (models/diffusion_models): flux_small.safetensors" in done.stdout
    assert "ae.safetensors: https://" in done.stdout and "also there: taef1" in done.stdout
    assert json.loads(nagpag("models", "--json").stdout)["vae"]["picked"] is None


# --- exit codes ---


@pytest.mark.parametrize(
    "words, said",
    [
        (["text-to-image"], "--prompt"),
        (["text-to-image", "--prompt", "a", "--width", "100"], "width: 100 is not valid (a whole number"),
        (["text-to-image", "--prompt", "a", "--width", "wide"], "--width: 'wide' is not a whole number from 64"),
        (["text-to-image", *PROMPT, "--nag-pag-applied-layers", "8", "x"], '"x" is not a block'),
        (["text-to-image", *PROMPT, "--sampler-name", "nope"], "nope"),
        (["text-to-image", *PROMPT, "--output", "a.jpg"], "PNG"),
        (["text-to-image", *PROMPT, "--output", "/proc/no/such"], "--output"),
        (["image-to-image", *PROMPT, "--image-url", "nothing.png"], "no such picture"),
        (["text-to-image", *PROMPT, "--no-wait", "--compare"], "--compare"),
        (["inspect", "README.md"], "not a safetensors file"),
        (["inspect", "nothing.safetensors"], "No such file"),
        (["sideways"], "sideways"),
    ],
)
def test_bad_input_is_2(nagpag, words, said):
    done = nagpag(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words, said",
    [
        (["--steps", "4"], "--steps is no option; did you mean --num-inference-steps?"),
        (["--blocks", "8"], "--blocks is no option; did you mean --nag-pag-applied-layers?"),
        (["--nag-pag-blocks", "8"], "--nag-pag-blocks is no option; did you mean --nag-pag-applied-layers?"),
        (["--scale=2"], "--scale is no option; did you mean --nag-pag-scale?"),
        (["--denoise", "1"], "--denoise is no option; did you mean --strength?"),
        (["--layers", "8"], "--layers is no option; did you mean --nag-pag-applied-layers?"),
        (["--hieght", "8"], "--hieght is no option; did you mean --height?"),
        (["--qqq"], "--qqq is no option"),
        (["a cat"], "a cat is no option"),
        ([], "--prompt, --image-url is missing"),
    ],
)
def test_what_is_no_option_is_said_first_with_what_was_meant(capsys, words, said):
    """Also where a required one is missing, which may be the one that was mistyped; and no page of usage before it."""
    assert cli.main(["image-to-image", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"nagpag: {said}", "  nagpag image-to-image --help lists what there is"]


def test_a_choice_shows_its_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main(["text-to-image", "--help"])
    text = capsys.readouterr().out
    assert "--nag-pag-reach attention|double blocks|output|prediction" in text and "STR" not in text
    assert text.startswith("usage: nagpag text-to-image --prompt TEXT [options]\n")


def test_no_server_is_3_in_one_line(nagpag):
    done = nagpag("text-to-image", "--prompt", "a", NAGPAG_SERVER="http://127.0.0.1:1")
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "127.0.0.1:1" in done.stderr and "python main.py" in done.stderr


def test_a_failed_job_is_4(nagpag):
    done = nagpag("text-to-image", *PROMPT, "--nag-pag-applied-layers", "2[9]", "--json")
    assert done.returncode == 4 and "head 9 does not exist" in json.loads(done.stdout)["error"]
    done = nagpag("text-to-image", "--prompt", "a")
    assert done.returncode == 4 and "put ae.safetensors into models/vae" in done.stderr


def test_ctrl_c_cancels_the_job_and_says_so(service, tmp_path):
    long = ("--num-inference-steps", 200, "--width", 512, "--height", 512)
    words = command("text-to-image", *PROMPT, *long, "--seed", 32, "--output", tmp_path)
    env = {**os.environ, "NAGPAG_SERVER": service.url}
    # A shell starts what it sends to the background deaf to Ctrl-C, and so would be what these tests start there.
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(words, cwd=host.REPO, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=hearing)
    try:
        deadline = time.monotonic() + 60
        while not (ids := service.queued()) or not service.job(ids[0]).json().get("progress", {}).get("step"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "the job was cancelled" in said and "Traceback" not in said
    deadline = time.monotonic() + 60
    while (status := service.job(ids[0]).json()["status"]) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status == "cancelled" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, said",
    [
        ("_bytes", "stopped while the request was on its way; the server may draw it all the same"),
        ("follow", "stopped; the job was cancelled"),
        ("data", "stopped; the job is done, and ComfyUI's output folder has flux_"),
    ],
)
def test_what_ctrl_c_says_is_so_whenever_it_comes(service, tmp_path, monkeypatch, capsys, name, said):
    """While it is sent, while it is waited for, while the picture comes."""

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(of_client.Image if name == "data" else Client, name, interrupted)
    words = command("text-to-image", *PROMPT, "--server", service.url, "--output", tmp_path)[3:]
    told, heard = cli.main(words), capsys.readouterr().err
    assert told == 130 and said in heard and not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["argparse", "nagpag.service.client.cli", "nagpag.service.client.options"])
def test_ctrl_c_before_it_has_begun_is_one_line(module):
    """While Python imports it, which takes a second on a cold disk."""
    code = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "runpy.run_module('nagpag', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=host.REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "nagpag: stopped\n")


# --- what needs no server ---


def test_the_options_are_the_fields(nagpag):
    for name, (_, fields) in table.ENDPOINTS.items():
        help_text = nagpag(name, "--help", COLUMNS="200").stdout
        for field in (*fields, inputs.OUTPUT, inputs.COMPARE, inputs.SERVER, inputs.JSON):
            assert f"--{field.name.replace('_', '-')}" in help_text


def write_header(path, shapes):
    """A safetensors file in which no tensor follows."""
    text = json.dumps(
        {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    )
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())


def test_inspect_reads_the_header_only(nagpag, tmp_path):
    header = {
        **{f"double_blocks.{i}.img_attn.qkv.weight": [1536, 512] for i in range(19)},
        **{f"single_blocks.{i}.linear1.weight": [512, 512] for i in range(38)},
        "img_in.weight": [512, 64],
        "vector_in.in_layer.weight": [512, 768],
        "guidance_in.in_layer.weight": [512, 256],
    }
    path = tmp_path / "model.safetensors"
    write_header(path, header)
    done = nagpag("inspect", path)
    for line in (
        "FLUX.1 [dev]",
        "double blocks  19",
        "single blocks  38",
        "auto           7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18",
    ):
        assert line in done.stdout, done.stdout + done.stderr
    assert json.loads(nagpag("inspect", path, "--json").stdout)["auto"] == list(range(7, 19))


def test_inspect_says_of_other_files_whether_they_may_be_guided(nagpag, tmp_path):
    for shapes, said in (
        (
            {"input_blocks.0.0.weight": [320, 4, 3, 3]},
            "guidance       with a negative prompt, if it is a diffusion model",
        ),
        ({"text_model.embeddings.position_embedding.weight": [77, 768]}, "guidance       not for this file"),
    ):
        write_header(tmp_path / "file.safetensors", shapes)
        assert said in nagpag("inspect", tmp_path / "file.safetensors").stdout


def test_the_client_needs_the_standard_library_only(tmp_path):
    """Neither torch nor the host nor any package is imported to ask and to inspect."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "import nagpag.service.client.cli, nagpag.service.checkpoint\n"
        "nagpag.service.client.cli.parser()\n"
        "extra = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(extra - set(sys.stdlib_module_names) - {'nagpag'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=host.REPO, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- the Python client ---


def test_the_client_in_python(service, tmp_path):
    client, jobs = Client(service.url), []
    result = client.image_to_image("a cat", png(), progress=jobs.append, seed=33, strength=0.5, **SMALL)
    path = result.images[0].save(tmp_path / "out.png")
    assert pixels(path.read_bytes()).shape == (64, 64, 3) and result.seed == 33 and result.seconds >= 0
    assert jobs[-1]["status"] == "done" and client.job(result.prompt_id) == jobs[-1]
    with pytest.raises(FileExistsError):
        result.images[0].save(path)
    with pytest.raises(BadRequest) as caught:
        client.text_to_image("a cat", width=100, height=7)
    assert {error["pointer"] for error in caught.value.problem["errors"]} == {"#/width", "#/height"}


def test_a_job_that_others_cancel(service):
    client, caught = Client(service.url), []

    def wait():
        try:
            client.text_to_image("a cat", seed=34, **{**SMALL, "num_inference_steps": 200})
        except JobFailed as error:
            caught.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    while not (ids := service.queued()) or not service.job(ids[0]).ok:
        time.sleep(0.05)
    client.cancel(ids[0])
    thread.join(60)
    assert caught and "the job was cancelled" in caught[0]


def test_a_server_without_the_pack():
    import http.server

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(NoServer, match="no NAG-PAG pack"):
        Client(f"127.0.0.1:{server.server_port}").models()
    server.shutdown()
    server.server_close()


def test_bytes_and_paths_are_sent_along(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    assert as_url(b"picture") == as_url(tmp_path / "a.png") == "data:;base64,cGljdHVyZQ=="
    assert as_url("name.png") == "name.png"
