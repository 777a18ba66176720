"""What a model predicts at given noise levels, against the host's own sampler: one Euler step to 0 predicts."""

import pytest
import torch
from comfy.samplers import CFGGuider, ksampler
from nag_pag_flux.nagpag.calibration.probe import predict
from sampling import guided, latent, prompt

SIGMAS = torch.tensor([0.9, 0.4])
NOISE = latent(2, seed=6)


def one_step(model, positive, latents, sigma, cfg=1.0):
    """The host's own sampling from sigma straight to 0, in the model's own latent space."""
    guider = CFGGuider(model)
    guider.set_conds(positive, prompt(99))
    guider.set_cfg(cfg)
    sigmas = torch.tensor([float(sigma), 0.0])
    out = guider.sample(NOISE[: len(latents)], latents, ksampler("euler"), sigmas, disable_pbar=True, seed=0)
    return model.model.process_latent_in(out)


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_a_prediction_is_one_euler_step_to_no_noise(flux, cfg):
    # A branch that is not renewed would outlast a sigma in the probe, and not in two samplings.
    for model in (flux, guided(flux, reach="output", blocks="1", renew_every=1)):
        predicted, truth = predict(model, prompt(1), latent(2), NOISE, SIGMAS, cfg, prompt(99))
        assert torch.equal(truth, flux.model.process_latent_in(latent(2)))
        for found, sigma in zip(predicted, SIGMAS, strict=True):
            assert torch.allclose(found, one_step(model, prompt(1), latent(2), sigma, cfg), atol=1e-5)


def test_guidance_moves_the_prediction_at_every_noise_level(flux):
    plain, _ = predict(flux, prompt(1), latent(2), NOISE, SIGMAS)
    moved, _ = predict(guided(flux, blocks="1"), prompt(1), latent(2), NOISE, SIGMAS)
    assert ((moved - plain).abs().amax((2, 3, 4)) > 1e-4).all()


def test_every_picture_of_a_batch_can_have_a_prompt_of_its_own(flux):
    rows = [prompt(1)[0], prompt(2)[0]]
    both = {"pooled_output": torch.cat([row[1]["pooled_output"] for row in rows]), "guidance": 3.5}
    together, _ = predict(flux, [[torch.cat([row[0] for row in rows]), both]], latent(2), NOISE, SIGMAS)
    for i in range(2):
        alone, _ = predict(flux, [rows[i]], latent(2)[i : i + 1], NOISE[i : i + 1], SIGMAS)
        assert torch.allclose(together[:, i], alone[:, 0], atol=1e-5)
