"""The plot of real and of made recordings: a picture in every case, and what it needs is said before any work."""

import importlib.util
import inspect
import math
import warnings

import comfy.model_management
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from nag_pag_flux.nagpag.diagnostics.plot import BLUE, ORANGE, draw, draw_measured
from nag_pag_flux.nagpag.diagnostics.record import Guidance, Record, Recording, Row
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.measure import Measured
from nag_pag_flux.nodes.calibration import NAGPAGCalibrate
from nag_pag_flux.nodes.diagnostics import NAGPAGPlot
from nag_pag_flux.nodes.guidance import NAGPAGGuidance, NAGPAGGuidanceAdvanced
from sampling import guided, prompt, sample


def made(steps, blocks, guidances=1, state="finished", value=0.3):
    """A recording with known numbers."""
    recording = Recording(state=state, schedule=[1 - i / steps for i in range(steps + 1)])
    names = tuple(f"double block {i}" for i in range(blocks))
    recording.guidances = [Guidance("double blocks: scale 3", {}, names, "never reached: x")] * guidances
    for step in range(1, steps + 1):
        for guidance in range(guidances):
            for name in names:
                row = (3.0, "reused" if step % 2 else "computed", 2.0, value, value, value, value)
                recording.rows.append(Row(step, 0.5, guidance, name, *row, evaluations=1))
    recording.maps = {(0, name): torch.rand(8, 12) for name in names}
    return recording


CASES = {
    "normal": made(20, 3),
    "one step": made(1, 1),
    "fifty steps, nineteen blocks": made(50, 19),
    "two applications, interrupted": made(8, 3, guidances=2, state="interrupted"),
    "not a number": made(4, 2, value=float("nan")),
    "no maps": Recording(rows=made(2, 1).rows, guidances=made(2, 1).guidances, schedule=[1.0, 0.5, 0.0]),
    "empty": Recording(state="finished"),
    "never sampled": None,
}


@pytest.mark.parametrize("case", CASES)
def test_every_recording_is_a_picture(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a label that the font lacks, an axis without extent, a mean of nothing
        for matched in (True, False):
            picture = draw(CASES[case], matched)
            assert picture.shape == (960, 1280, 3) and picture.dtype == np.float32
            assert 0 <= picture.min() < 0.5 and picture.max() == 1


def test_what_differs_is_drawn():
    """Another change, another strength, another state: another picture."""
    pictures = [draw(CASES["normal"]), draw(made(20, 3, value=0.4)), draw(made(20, 3, state="interrupted"))]
    for i, one in enumerate(pictures):
        assert all((one != other).any() for other in pictures[i + 1 :])
    assert (draw(CASES["normal"]) == draw(CASES["normal"])).all()


def test_the_node_passes_the_latent_on_and_gives_the_numbers(flux, monkeypatch):
    import comfy_api.latest._ui as host_ui

    monkeypatch.setattr(host_ui.ImageSaveHelper, "save_images", lambda *args, **kwargs: [])
    record = Record()
    samples = sample(record_model(guided(flux), record), prompt(1))
    image, latent, numbers = NAGPAGPlot.execute(record, {"samples": samples, "noise_mask": None}).args
    assert image.shape == (1, 960, 1280, 3) and latent["samples"] is samples and "noise_mask" in latent
    assert numbers == record.recordings[0].as_json()
    assert (image[0].numpy() == draw(record.recordings[0])).all()


def test_without_matplotlib_the_prompt_is_refused_and_says_how_to_install_it(monkeypatch):
    assert NAGPAGPlot.validate_inputs() is True
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = NAGPAGPlot.validate_inputs()
    assert "needs matplotlib" in said and "-m pip install matplotlib" in said


@pytest.mark.parametrize("node", [NAGPAGPlot, NAGPAGCalibrate, NAGPAGGuidance, NAGPAGGuidanceAdvanced])
def test_what_is_refused_is_said_on_one_input(node):
    """The host says it on every input that validate_inputs names, and drops it where none is named."""
    _, *named = inspect.getfullargspec(node.validate_inputs).args
    assert len(named) == 1 and named[0] in [item.id for item in node.define_schema().inputs]


def test_an_interrupted_run_is_drawn(flux):
    def stop(step, *args):
        raise comfy.model_management.InterruptProcessingException()

    record = Record()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(record_model(guided(flux), record), prompt(1), callback=stop)
    assert draw(*record.of(torch.zeros(1, 16, 8, 12))).shape == (960, 1280, 3)


@pytest.mark.parametrize("best", [0.1, 0.02, -0.01])
def test_a_calibration_is_a_picture(best):
    measured = {f"{i}-18, alpha 0.15": Measured(best - i / 20, 0.02) for i in range(8)} | {
        "x": Measured(-0.2, math.nan)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = draw_measured(measured, "0-18, alpha 0.15" if best > 0 else None)
    # The chosen one is blue, what harms is orange, and where nothing is chosen nothing is blue.
    has = {color: (abs(image - np.array(to_rgb(color))).max(axis=2) < 0.02).any() for color in (BLUE, ORANGE)}
    assert has == {BLUE: best > 0, ORANGE: True}
    assert image.shape == (150 + 34 * 9, 1280, 3) and 0 <= image.min() < 0.5 and image.max() == 1
