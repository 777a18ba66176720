"""The demo as a user runs it: a subprocess of its own with its own server."""

import contextlib
import dataclasses
import functools
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from nag_pag_flux.lab import demo, host
from nag_pag_flux.lab.server import ServerError
from nag_pag_flux.lab.toy import shapes
from PIL import Image

COMMAND = [sys.executable, str(host.REPO / "lab" / "run.py"), "demo"]
# The same for two of its four seeds.
SEEDS = demo.SEEDS[:2]
OF_TWO = f"""
import sys, run
run.load_pack()
from nag_pag_flux.lab import demo
demo.SEEDS = {SEEDS}
sys.exit(demo.main(sys.argv[1:]))
"""


def scene(background, *things):
    """Objects of a middle size in the middle of their places."""
    return shapes.Scene(
        shapes.BACKGROUND_NAMES.index(background),
        tuple(
            shapes.Thing(
                shapes.SHAPES.index(shape), shapes.COLOR_NAMES.index(color), place, 32 + 64 * x, 32 + 64 * y, 22
            )
            for shape, color, place, x, y in things
        ),
    )


# What the demo's prompts ask for.
SCENES = {
    "flux_dev_text_to_image": scene("grey", ("ring", "red", 0, 0, 0), ("cross", "blue", 3, 1, 1)),
    "flux_dev_image_to_image": scene("black", ("frame", "yellow", 0, 0, 0), ("triangle", "green", 3, 1, 1)),
}


def pixels(path):
    """(3, height, width) in [0, 1]."""
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")) / 255).float().movedim(-1, 0)


def quarters(pictures):
    """The mean colour of each quarter, (pictures, 3, 2, 2)."""
    return torch.nn.functional.avg_pool2d(pictures, shapes.SIZE // 2)


def test_the_prompts_are_captions_of_its_scenes():
    assert {name: scene.caption for name, scene in SCENES.items()} == demo.PROMPTS


def servers_of(process):
    with contextlib.suppress(psutil.NoSuchProcess):  # of those that come and go
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "main.py" in " ".join(child.cmdline())]
    return []


def test_it_makes_the_pictures_and_says_where(tmp_path):
    command = [sys.executable, "-c", OF_TWO, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=host.REPO / "lab")
    assert done.returncode == 0, done.stderr
    for graph, guidance in itertools.product(SCENES, ("off", "on")):
        names = [f"{graph}_seed{seed}_guidance_{guidance}.png" for seed in SEEDS]
        pictures = torch.stack([pixels(tmp_path / name) for name in names])
        assert pictures.shape == (2, 3, shapes.SIZE, shapes.SIZE) and all(name in done.stdout for name in names)
        # Each quarter has the colour of what was asked for there; the palest object differs by more from none.
        asked = quarters(shapes.render([SCENES[graph]]))
        assert (quarters(pictures).mean(0) - asked).abs().max() < 0.045, f"{graph}, guidance {guidance}"
    # Rows of guidance off and on, a column per seed.
    assert Image.open(tmp_path / "contact_sheet.png").size == (2 * demo.CELL, 4 * (demo.CELL + demo.LABEL))
    assert done.stdout.rstrip().endswith(str(tmp_path))
    assert "20/20" in done.stderr  # the progress bar reached the last step


def test_ctrl_c_stops_the_server_too(tmp_path):
    # A shell starts what it sends to the background deaf to Ctrl-C, and so would be what these tests start there.
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [*COMMAND, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hearing)
    try:
        while not (servers := servers_of(process)):
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "stopped" in said
    assert not any(server.is_running() and server.status() != psutil.STATUS_ZOMBIE for server in servers)


def test_a_failure_shows_the_end_of_the_servers_log(server, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        return {
            "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "missing.safetensors", "weight_dtype": "default"}}
        }

    monkeypatch.setattr(demo.graphs, "for_trained_model", broken)
    monkeypatch.setattr(demo, "running_server", lambda: _already(server))
    with pytest.raises(ServerError, match="(?s)refused the graph.*the end of the server's log"):
        demo.run_demo(tmp_path)


@pytest.mark.parametrize("step", ["upload_image", "run_graph"])
def test_a_server_that_is_gone_is_said_in_one_line(server, tmp_path, monkeypatch, step):
    """No traceback: what could not be done, and the end of the log."""
    gone = dataclasses.replace(server, url="http://127.0.0.1:9")
    if step == "run_graph":
        monkeypatch.setattr(demo, "upload_image", lambda server, path: path.name)
    monkeypatch.setattr(demo, "running_server", lambda: _already(gone))
    with pytest.raises(ServerError, match="(?s)the (server did not take|connection to the server broke).*server's log"):
        demo.run_demo(tmp_path)


def test_guidance_that_does_nothing_fails_the_demo(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "same.png")
    results = [demo.Result("a_graph", guidance, 7, 1.0, tmp_path / "same.png") for guidance in ("off", "on")]
    with pytest.raises(ServerError, match="a_graph, seed 7: the picture is the same"):
        demo._check_that_guidance_showed(results)


class _already:
    def __init__(self, server):
        self.server = server

    def __enter__(self):
        return self.server

    def __exit__(self, *error):
        return None
