"""Small models of the families beside FLUX, of seeded random weights, for the stock loader: they show that all runs.

A checkpoint has the names and shapes of ComfyUI's own class. The loader reads a part of the sizes from it; what it
takes as given for a family (Qwen-Image always has 24 heads of 128) is made smaller while it loads, or no file could be
small.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class Small:
    """A small model. kind: ComfyUI's class, with its module; read: sizes that the loader reads from a checkpoint.

    given: those that it takes as given.
    """

    kind: str
    read: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)


_QWEN_GIVEN = {
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}
_LUMINA_READ = {"patch_size": 2, "in_channels": 16, "dim": 64, "cap_feat_dim": 48, "n_layers": 4, "qk_norm": True}
_LUMINA_GIVEN = {
    "n_heads": 2,
    "axes_dims": [8, 12, 12],
    "axes_lens": [300, 512, 512],
    "ffn_dim_multiplier": 1.0,
    "n_refiner_layers": 1,
}
_WAN_READ = {"dim": 64, "ffn_dim": 128, "num_layers": 4, "in_dim": 16, "out_dim": 16}
_WAN_GIVEN = {"num_heads": 2, "text_dim": 48}
SMALL = {
    "Qwen-Image": Small(
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel", {"in_channels": 64, "num_layers": 4}, _QWEN_GIVEN
    ),
    "Qwen-Image-Edit 2511": Small(
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
        {"in_channels": 64, "num_layers": 4, "default_ref_method": "index_timestep_zero"},
        _QWEN_GIVEN,
    ),
    "Qwen-Image-Layered": Small(
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
        {"in_channels": 64, "num_layers": 4, "default_ref_method": "negative_index", "use_additional_t_cond": True},
        _QWEN_GIVEN,
    ),
    # The loader knows Z-Image by its width, so that a small one is a Lumina 2 to it, with Z-Image's blocks.
    "Z-Image": Small(
        "comfy.ldm.lumina.model.NextDiT",
        {**_LUMINA_READ, "dim": 256},
        {
            **_LUMINA_GIVEN,
            "n_kv_heads": 2,
            "axes_dims": [32, 48, 48],
            "z_image_modulation": True,
            "pad_tokens_multiple": 32,
            "time_scale": 1000.0,
        },
    ),
    "Wan 2.1": Small("comfy.ldm.wan.model.WanModel", _WAN_READ, _WAN_GIVEN),
    "Wan 2.1 image to video": Small(
        "comfy.ldm.wan.model.WanModel", {**_WAN_READ, "model_type": "i2v", "in_dim": 36}, _WAN_GIVEN
    ),
    "Wan 2.1 with a reference": Small("comfy.ldm.wan.model.WanModel", {**_WAN_READ, "in_dim_ref_conv": 16}, _WAN_GIVEN),
    "Wan 2.2 5B": Small("comfy.ldm.wan.model.WanModel", {**_WAN_READ, "in_dim": 48, "out_dim": 48}, _WAN_GIVEN),
    "Lumina 2": Small("comfy.ldm.lumina.model.NextDiT", _LUMINA_READ, {**_LUMINA_GIVEN, "n_kv_heads": 1}),
}


def host_has(name: str) -> bool:
    """Whether this ComfyUI has the class of a small model."""
    module, _, kind = SMALL[name].kind.rpartition(".")
    return importlib.util.find_spec(module) is not None and hasattr(importlib.import_module(module), kind)


def make_small(name: str, path: Path) -> None:
    """Write a small model's checkpoint."""
    write(SMALL[name], path)


def write(small: Small, path: Path) -> None:
    """Write the checkpoint of a small model of any kind."""
    import comfy.ops

    generator = torch.Generator().manual_seed(0)
    module, _, kind = small.kind.rpartition(".")
    make = getattr(importlib.import_module(module), kind)
    made = make(**small.read, **small.given, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    shapes = {key: tensor.shape for key, tensor in made.state_dict().items()}
    state = {key: _weight(key, shape, generator).bfloat16() for key, shape in shapes.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path))


def _weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    random = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return random / max(1, random[0].numel()) ** 0.5
    return torch.ones(shape) if "norm" in name else 0.02 * random


@contextmanager
def given_sizes(name: str) -> Iterator[None]:
    """While this is open, the loader takes this model's sizes as given."""
    import comfy.model_detection

    detect = comfy.model_detection.detect_unet_config

    def smaller(*args: Any, **kwargs: Any) -> dict | None:
        found = detect(*args, **kwargs)
        return None if found is None else {**found, **SMALL[name].given}

    with mock.patch.object(comfy.model_detection, "detect_unet_config", smaller):
        yield


def load_small(name: str, path: Path, dtype: torch.dtype = torch.float32) -> Any:
    """What UNETLoader makes of it."""
    import comfy.sd

    with given_sizes(name):
        return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype})
