"""Ask a model what it predicts for given pictures at given noise levels, through the host's own guider and wrappers."""

from __future__ import annotations

from typing import Any

import torch
from comfy.samplers import CFGGuider, Sampler
from torch import Tensor


class Probe(Sampler):
    """Stands where a sampler stands: instead of walking from step to step it evaluates the model at every sigma.

    predicted: what the model makes of each picture, noised to each sigma, (sigmas, pictures, channels, height, width),
    and truth: the pictures themselves, both in the model's own latent space. Filled by one `sample`.
    """

    predicted: Tensor
    truth: Tensor

    @torch.no_grad()  # as the host's own samplers are
    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        noising = model_wrap.inner_model.model_sampling.noise_scaling
        found = []
        for i, sigma in enumerate(sigmas):
            x = noising(sigma, noise, latent_image)
            found.append(model_wrap(x, sigma * x.new_ones(x.shape[0]), **extra_args))
            if callback:
                callback(i, found[-1], x, len(sigmas))
        self.predicted, self.truth = torch.stack(found), latent_image
        return latent_image


def predict(
    model: Any, positive: list, latents: Tensor, noise: Tensor, sigmas: Tensor, cfg: float = 1.0, negative: Any = ()
) -> tuple[Tensor, Tensor]:
    """What a MODEL predicts the pictures to be, noised by `noise` to each of `sigmas`, in the order given.

    positive, negative: CONDITIONINGs, of one prompt or of one a picture, (pictures, text tokens, features). latents,
    noise: (pictures, channels, height, width), latents as a VAE gives them. sigmas: (n,), falling, in the units
    of the model's sampling. To a patch they are the steps of one sampling: give renew_every = 1 to have each by itself.
    Returns the predicted pictures x̂₀, (n, pictures, channels, height, width), and the pictures x₀, in the model's own
    latent space. For flow matching v = (x − x̂₀) / σ, so that v_true − v = (x̂₀ − x₀) / σ.
    """
    guider, probe = CFGGuider(model), Probe()
    guider.set_conds(positive, list(negative) or positive)
    guider.set_cfg(cfg)
    guider.sample(noise, latents, probe, sigmas, disable_pbar=True, seed=0)
    return probe.predicted, probe.truth
