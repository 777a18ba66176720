"""Sampling with the host's own loader, node and samplers, the way a graph does it."""

import importlib.util
import math

import comfy.model_management
import comfy.sample
import comfy.sd
import torch
from nag_pag_flux.nodes.guidance import NAGPAGGuidanceAdvanced

HOST_SAMPLES_CURVES = importlib.util.find_spec("comfy_api.latest._input.curve_types") is not None
CONTEXT_DIM, VEC_DIM = 64, 32
STRONG = {
    "scale": 3.0,
    "blocks": "1-3",
    "tau": 2.5,
    "alpha": 0.25,
    "reach": "attention",
    "perturbation": 1.0,
    "negative_prompt": "off",
    "start_percent": 0.0,
}


def load_flux(path, dtype=torch.float32):
    """What UNETLoader does, with the type that its weight_dtype or the host's own choice would give."""
    return comfy.sd.load_diffusion_model(path, model_options={"dtype": dtype})


def guided(model, **inputs):
    """The node, run as the host runs it; strong, in the attention, at all steps, unless something else is asked."""
    inputs = {**STRONG, **inputs}
    if inputs["reach"] != "attention" or inputs.get("reach_blocks"):
        inputs.setdefault("renew_every", 4)
    return NAGPAGGuidanceAdvanced.execute(model=model, **inputs).args[0]


def prompt(seed, tokens=9, **extra):
    """A conditioning as CLIPTextEncode and FluxGuidance make it; another seed is another prompt."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, CONTEXT_DIM, generator=generator)
    pooled = torch.randn(1, VEC_DIM, generator=generator)
    return [[context, {"pooled_output": pooled, "guidance": 3.5, **extra}]]


def latent(batch=1, height=8, width=12, seed=5):
    return torch.randn(batch, 16, height, width, generator=torch.Generator().manual_seed(seed))


def picture_tokens(height=8, width=12):
    return math.ceil(height / 2) * math.ceil(width / 2)


def sample(model, positive, negative=None, cfg=1.0, steps=3, size=(1, 8, 12), seed=7, sampler="euler", **extra):
    """KSampler's own path from an empty latent; returns the latent of shape (batch, 16, height, width)."""
    batch, height, width = size
    start = extra.pop("latent_image", torch.zeros(batch, 16, height, width))
    noise = comfy.sample.prepare_noise(start, seed)
    negative = prompt(99) if negative is None else negative
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "simple", positive, negative, start, disable_pbar=True, seed=seed, **extra
    )


def recorded(patched):
    """The seed and the model of every sampling that is begun from now on."""
    begun, real = [], comfy.sample.sample

    def sample(model, *args, **keywords):
        begun.append((keywords["seed"], model))
        return real(model, *args, **keywords)

    patched.setattr(comfy.sample, "sample", sample)
    return begun
