"""What is shipped in lab/trained, and how it is made."""

import os
import sys
import time

import pytest
import torch
from nag_pag_flux.lab.in_host import enter_host
from nag_pag_flux.lab.toy import autoencoder, shipping, training
from safetensors.torch import load_file, save_file


def test_it_is_small_and_whole():
    assert {path.name for path in shipping.TRAINED.iterdir()} == {
        "flux_shapes.safetensors",
        "taef1_decoder.safetensors",
        "MODEL_CARD.md",
        "LICENSE",
    }
    assert shipping.size() <= shipping.MOST_BYTES == 16_000_000
    assert "Apache License" in (shipping.TRAINED / "LICENSE").read_text()


def test_it_was_made_by_the_present_recipes():
    flux, decoder = (shipping.metadata(path) for path in (shipping.FLUX, shipping.DECODER))
    assert flux["recipe"] == training.recipe_digest() and decoder["recipe"] == autoencoder.recipe_digest(), (
        "the recipe is another than that of the shipped weights: make ship"
    )
    assert (flux["seed"], int(flux["step"])) == ("0", training.RECIPE.steps)
    assert {load_file(path)[name].dtype for path, name in ((shipping.FLUX, "img_in.weight"),)} == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_file(shipping.DECODER).values()} == {torch.float16}


def test_the_card_is_what_the_files_say():
    assert shipping.CARD.read_text() == shipping.card()


def test_the_stock_loader_takes_it_for_flux_dev():
    enter_host()
    import comfy.sd

    model = comfy.sd.load_diffusion_model(str(shipping.FLUX), model_options={"dtype": torch.float32})
    flux = model.model.diffusion_model
    assert type(model.model).__name__ == "Flux" and type(model.model.model_config).__name__ == "Flux"
    assert flux.params.guidance_embed and (len(flux.double_blocks), len(flux.single_blocks)) == (8, 4)


def test_shipping_writes_all_of_it_from_the_cache(tmp_path, monkeypatch):
    """The weights as they were trained, and a card about them."""
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path / "cache"))
    for name in ("TRAINED", "FLUX", "DECODER", "CARD"):
        monkeypatch.setattr(shipping, name, tmp_path / "trained" / getattr(shipping, name).name)
    monkeypatch.setattr(shipping, "TRAINED", tmp_path / "trained")
    monkeypatch.setattr(shipping, "quality", lambda weights, noise: 30 + noise)
    made = {
        "img_in.weight": torch.ones(128, 64),
        "double_blocks.0.x": torch.ones(1),
        "single_blocks.0.x": torch.ones(1),
    }
    for path, weights in ((training.checkpoint(0), made), (autoencoder.decoder_file(0), {"1.weight": torch.ones(2)})):
        path.parent.mkdir(parents=True)
        save_file(weights, str(path))
    shipping.ship()
    assert load_file(shipping.FLUX).keys() == made.keys()
    assert shipping.metadata(shipping.DECODER)["psnr_noise_0.1"] == "30.1"
    assert "reaches 30.0 dB" in shipping.CARD.read_text()
    assert shipping.FLUX.stat().st_mode & 0o777 == 0o644


def test_what_is_trained_already_is_not_trained_again(tmp_path, monkeypatch):
    """Of two seeds one is in the cache: the other is trained, and as it fails nothing is shipped."""
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    training.checkpoint(0).parent.mkdir(parents=True)
    training.checkpoint(0).touch()
    asked = []
    monkeypatch.setattr(shipping, "side_by_side", lambda jobs, slots: asked.extend(jobs) or ["seed 1"])
    monkeypatch.setattr(shipping, "ship", lambda: pytest.fail("shipped"))
    assert shipping.main(["0", "1"]) == 1 and asked == ["seed 1", "the decoder"]


def test_a_seed_that_is_no_number_is_refused(capsys):
    assert shipping.main(["zero"]) == 2 and "'zero'" in capsys.readouterr().err


def python(code):
    return [sys.executable, "-c", code]


def test_commands_run_side_by_side_but_no_more_than_there_are_slots(tmp_path):
    note = f"import os, pathlib, time; here = pathlib.Path({str(tmp_path)!r}) / os.environ['TQDM_POSITION']\n"
    # Two at a time have places 0 and 1; who shares a place with another finds its mark and fails.
    busy = python(
        f"{note}assert os.environ['OMP_NUM_THREADS'] == '1'; here.touch(exist_ok=False); time.sleep(.2); here.unlink()"
    )
    jobs = {f"job {i}": busy for i in range(5)} | {"broken": python("raise SystemExit(3)")}
    assert shipping.side_by_side(jobs, 2) == ["broken"]


def test_ctrl_c_leaves_no_training_behind(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    endless = python(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    sleep = time.sleep

    def interrupted(seconds):
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(shipping.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shipping.side_by_side({"endless": endless}, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
