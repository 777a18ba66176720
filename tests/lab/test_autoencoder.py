"""The `taef1` of the small models, in the host's own VAELoader, VAEDecode and VAEEncode."""

import dataclasses

import pytest
import torch
from nag_pag_flux.lab import host
from nag_pag_flux.lab.in_host import enter_host
from nag_pag_flux.lab.toy import autoencoder, shapes, small_models

enter_host()


@pytest.fixture(scope="module")
def vae():
    """As the stock VAELoader gives `taef1`."""
    import folder_paths

    import nodes

    folder = small_models.ensure_models() / "vae_approx"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(folder_paths.folder_names_and_paths, "vae_approx", ([str(folder)], {".safetensors"}))
        return nodes.VAELoader().load_vae("taef1")[0]


@pytest.fixture(scope="module")
def pictures():
    return shapes.render(shapes.random_scenes(8, torch.Generator().manual_seed(5)))


def flux_latents(vae, pictures):
    """What a sampler of FLUX sees of encoded pictures."""
    import comfy.latent_formats

    import nodes

    (latent,) = nodes.VAEEncode().encode(vae, pictures.movedim(1, -1))
    return comfy.latent_formats.Flux().process_in(latent["samples"])


def decoded(vae, latents):
    import comfy.latent_formats

    import nodes

    samples = comfy.latent_formats.Flux().process_out(latents)
    return nodes.VAEDecode().decode(vae, {"samples": samples})[0].movedim(-1, 1)


def psnr(made, real):
    return float(-10 * (made.detach() - real).square().mean().log10())


def test_the_encoder_computes_to_latent(vae, pictures):
    """Renders, noise over the whole range, and a picture that is not square."""
    for picture in (pictures, torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))):
        assert torch.allclose(flux_latents(vae, picture), shapes.to_latent(picture), atol=1e-3)


def test_decoded_renders_are_sharp(vae, pictures):
    """Far above an enlargement of the small picture that a latent holds."""
    latents = shapes.to_latent(pictures)
    enlarged = torch.nn.functional.interpolate(shapes.from_latent(latents), scale_factor=4, mode="bicubic").clamp(0, 1)
    made = decoded(vae, latents)
    assert made.shape == pictures.shape
    assert psnr(made, pictures) > max(30.0, psnr(enlarged, pictures) + 5)


def test_a_noisy_latent_decodes_as_well(vae, pictures):
    """Sampled latents are never clean."""
    noise = 0.1 * torch.randn(len(pictures), 16, 16, 16, generator=torch.Generator().manual_seed(2))
    assert psnr(decoded(vae, shapes.to_latent(pictures) + noise), pictures) > 29.0


def test_larger_pictures_decode_too(vae):
    assert decoded(vae, torch.zeros(1, 16, 32, 48)).shape == (1, 3, 256, 384)


def test_the_same_seed_trains_the_same_decoder():
    recipe = dataclasses.replace(autoencoder.RECIPE, steps=2, batch=2)
    a, again, b = (autoencoder.train(seed, recipe) for seed in (0, 0, 1))
    assert all(torch.equal(a[name], again[name]) for name in a)
    assert not torch.equal(a["1.weight"], b["1.weight"])
    start = autoencoder.new_decoder(0).state_dict()
    assert all(not torch.equal(a[name], start[name]) for name in a if name.endswith("weight"))


def test_an_untrained_decoder_already_shows_the_picture(pictures):
    """Its start is an enlarger, so training only has to sharpen."""
    latents = shapes.to_latent(pictures)
    with torch.no_grad():
        made = autoencoder.new_decoder(0)(latents)
    assert torch.corrcoef(torch.stack((made.flatten(), pictures.flatten())))[0, 1] > 0.5


def test_a_crop_is_the_part_of_the_picture_that_its_latent_stands_for():
    clean = dataclasses.replace(autoencoder.RECIPE, noise=0.0)
    latents, targets = autoencoder.crops(6, torch.Generator().manual_seed(3), clean)
    assert targets.shape == (6, 3, 64, 64) and torch.allclose(shapes.to_latent(targets), latents, atol=1e-5)


def test_a_finished_decoder_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    monkeypatch.setattr(autoencoder, "train", lambda seed: {"1.weight": torch.full((2,), float(seed))})
    autoencoder.main(["3"])
    assert autoencoder.decoder_file(3).is_relative_to(host.cache_dir())
    monkeypatch.setattr(autoencoder, "train", None)
    assert autoencoder.main(["3"]) == 0
