"""Small UNets of random weights that the stock loader takes for Stable Diffusion 1.5 and SDXL."""

from unittest import mock

import comfy.ops
import comfy.sample
import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file

_SIZES = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 48,
    "use_spatial_transformer": True,
    "legacy": False,
}
UNETS = {
    "SD15": {**_SIZES, "num_heads": 8, "num_head_channels": -1},
    "SDXL": {
        **_SIZES,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}
# Of the sizes by which the host knows SD 1.5, with no more blocks than it asks for.
SD15_AS_KNOWN = {
    **UNETS["SD15"],
    "model_channels": 320,
    "context_dim": 768,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
}


def _weight(shape, name, generator):
    random = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return random / random[0].numel() ** 0.5
    return torch.ones(shape) if name.endswith(".weight") else 0.02 * random  # of a norm


def write(sizes, path):
    """A checkpoint of seeded weights."""
    made = UNetModel(**sizes, operations=comfy.ops.disable_weight_init)
    generator = torch.Generator().manual_seed(0)
    state = {key: _weight(tensor.shape, key, generator) for key, tensor in made.state_dict().items()}
    save_file(state, str(path))


def load(name, path):
    """What UNETLoader makes of a checkpoint. By these sizes the host knows the model, so it is told of smaller ones."""
    write(UNETS[name], path)
    known = getattr(comfy.supported_models, name).unet_config
    smaller = {key: value for key, value in UNETS[name].items() if key in known}
    with mock.patch.dict(known, smaller):
        return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32})


def prompt(seed, tokens=9, **extra):
    """A conditioning; another seed is another prompt, not so far off that a place of 4 channels comes to the limit."""
    generator = torch.Generator().manual_seed(seed)
    context = 0.3 * torch.randn(1, tokens, 48, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, 1280, generator=generator), **extra}]]


def sample(model, positive, negative, batch=1, cfg=1.0, steps=2, **extra):
    """KSampler's own path from an empty latent."""
    start = torch.zeros(batch, 4, 8, 12)
    noise = comfy.sample.prepare_noise(start, 7)
    return comfy.sample.sample(
        model, noise, steps, cfg, "euler", "normal", positive, negative, start, disable_pbar=True, seed=7, **extra
    )
