"""The small models: the same bytes every time, finite in every type, and they listen to the prompt."""

import hashlib

import pytest
import torch
from nag_pag_flux.lab import small_models
from safetensors.torch import load_file


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_bytes_every_time(tmp_path):
    for i in "ab":
        small_models.make_flux(tmp_path / i / "flux", hidden=128, double_blocks=2, single_blocks=1, context_dim=64)
        small_models.make_taef1(tmp_path / i)
        small_models.make_clip_l(tmp_path / i / "clip")
    for name in ("flux", "taef1_encoder.safetensors", "taef1_decoder.safetensors", "clip"):
        assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)


def test_another_seed_is_another_model(tmp_path):
    for seed in (0, 1):
        small_models.make_flux(tmp_path / str(seed), double_blocks=1, single_blocks=1, context_dim=64, seed=seed)
    a, b = (load_file(tmp_path / str(seed)) for seed in (0, 1))
    assert a.keys() == b.keys() and not torch.equal(a["img_in.weight"], b["img_in.weight"])


def test_trained_weights_are_taken_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(small_models, "TRAINED", tmp_path / "trained")
    monkeypatch.setattr(small_models, "make_clip_l", lambda path: None)
    before = small_models.ensure_models()
    (tmp_path / "trained").mkdir()
    small_models.make_flux(tmp_path / "trained" / "flux_small.safetensors", double_blocks=1, single_blocks=1, seed=5)
    after = small_models.ensure_models()
    assert before != after
    assert digest(after / small_models.FLUX_FILE) == digest(tmp_path / "trained" / "flux_small.safetensors")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """The small taef1 in TAESD's layers, read with the plain convolutions that the host uses."""
    folder = tmp_path_factory.mktemp("taef1")
    small_models.make_taef1(folder)
    return [load_file(folder / f"taef1_{part}.safetensors") for part in ("encoder", "decoder")]


def test_the_autoencoder_has_taesds_layers(autoencoder):
    encoder, decoder = autoencoder
    assert encoder["14.weight"].shape == (16, 64, 3, 3) and decoder["1.weight"].shape == (64, 16, 3, 3)
    assert "2.bias" not in encoder and "7.bias" not in decoder and "18.conv.4.bias" in decoder
