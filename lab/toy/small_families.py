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
SMALL = {
    "Qwen-Image": Small(
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel", {"in_channels": 64, "num_layers": 4}, _QWEN_GIVEN
    ),
    "Qwen-Image-Edit 2511": Small(
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
        {"in_channels": 64, "num_layers": 4, "default_ref_method": "index_timestep_zero"},
        _QWEN_GIVEN,
    ),
}


def host_has(name: str) -> bool:
    """Whether this ComfyUI has the class of a small model."""
    module, _, kind = SMALL[name].kind.rpartition(".")
    return importlib.util.find_spec(module) is not None and hasattr(importlib.import_module(module), kind)


def make_small(name: str, path: Path) -> None:
    """Write a small model's checkpoint."""
    import comfy.ops

    small, generator = SMALL[name], torch.Generator().manual_seed(0)
    module, _, kind = small.kind.rpartition(".")
    make = getattr(importlib.import_module(module), kind)
    made = make(**small.read, **small.given, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    state = {key: _weight(key, tensor.shape, generator) for key, tensor in made.state_dict().items()}
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
