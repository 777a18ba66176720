"""The small models: the same bytes every time, and the shipped ones where the stock loaders look."""

import hashlib

import torch
from nag_pag_flux.lab.toy import small_models
from nag_pag_flux.nagpag.service import models
from safetensors.torch import load_file


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_bytes_every_time(tmp_path):
    for i in "ab":
        small_models.make_flux(tmp_path / i / "flux", hidden=128, double_blocks=2, single_blocks=1, context_dim=64)
        small_models.make_clip_l(tmp_path / i / "clip")
    for name in ("flux", "clip"):
        assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)


def test_another_seed_is_another_model(tmp_path):
    for seed in (0, 1):
        small_models.make_flux(tmp_path / str(seed), double_blocks=1, single_blocks=1, context_dim=64, seed=seed)
    a, b = (load_file(tmp_path / str(seed)) for seed in (0, 1))
    assert a.keys() == b.keys() and not torch.equal(a["img_in.weight"], b["img_in.weight"])


def test_shipped_weights_lie_in_the_models_folder_and_another_set_is_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(small_models, "make_clip_l", lambda path: None)
    monkeypatch.setattr(small_models, "make_flux", lambda path, dtype: path.parent.mkdir(parents=True))
    folder = small_models.ensure_models()
    for name in (small_models.SHAPES_FILE, small_models.DECODER_FILE):
        assert digest(folder / name) == digest(small_models.TRAINED / name.rpartition("/")[2])
    monkeypatch.setattr(small_models, "TRAINED", tmp_path / "none yet")
    empty = small_models.ensure_models()
    assert empty != folder and not (empty / small_models.SHAPES_FILE).exists()


def test_the_service_finds_the_one_with_nineteen_blocks():
    """Both are FLUX.1 [dev] to it, and of equals it takes the first by name."""
    folder = small_models.ensure_models() / "diffusion_models"
    installed = [str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")]
    assert len(installed) == 2
    picked = models.pick(models.FLUX, installed, lambda name: folder / name)
    assert f"diffusion_models/{picked}" == small_models.FLUX_FILE
