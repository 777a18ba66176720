"""Small models of other families for whole graphs of stock nodes: a model, its LoRA and its autoencoder.

Their text encoders have no small form: what SD3's loader makes of CLIP-L stands in, tokens of 4096 features. Wan reads
such; the small Qwen-Image is made for them, and needs `lab/small_sizes.py`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import torch
from safetensors.torch import save_file

from .. import host
from ..in_host import enter_host
from . import digests, small_families
from .small_families import Small

QWEN_FILE = "diffusion_models/families/qwen_image.safetensors"
WAN_FILE = "diffusion_models/families/wan.safetensors"
VAE_FILE = "vae/families/wan_vae.safetensors"  # of both
LORA_FILE = "loras/families/qwen_image.safetensors"
# Heads of 128 features, two to a model.
FILES = {
    QWEN_FILE: Small(
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
        {"in_channels": 64, "num_layers": 3},
        {"num_attention_heads": 2, "joint_attention_dim": 4096},
    ),
    WAN_FILE: Small(
        "comfy.ldm.wan.model.WanModel",
        {"dim": 256, "ffn_dim": 512, "num_layers": 4, "in_dim": 16, "out_dim": 16},
        {"num_heads": 2},
    ),
}


def ensure_models() -> Path:
    """A `models` folder for ComfyUI with all of them, made once and kept in the cache."""
    recipe = digests.digest(digests.sources(Path(__file__), Path(str(small_families.__file__))))
    folder = host.cache_dir() / f"families-{recipe}"
    host.make_once(folder, _make_elsewhere)
    return folder


def _make_elsewhere(folder: Path) -> None:
    """In a process of its own: this one need not be a ComfyUI."""
    found = host.find_host()
    command = [str(found.python), str(host.REPO / "lab" / "run.py"), "families", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "COMFYUI_PATH": str(found.path)})


def main(arguments: list[str]) -> int:
    """Write them into a folder."""
    enter_host()
    folder = Path(arguments[0])
    for file, small in FILES.items():
        small_families.write(small, folder / file)
    _write_lora(folder / LORA_FILE)
    _write_vae(folder / VAE_FILE)
    return 0


def _write_lora(path: Path) -> None:
    generator, name = torch.Generator().manual_seed(1), "transformer_blocks.1.attn.to_q"
    made = {
        f"{name}.lora_down.weight": torch.randn(4, 256, generator=generator),
        f"{name}.lora_up.weight": 0.1 * torch.randn(256, 4, generator=generator),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(made, str(path))


def _write_vae(path: Path) -> None:
    from comfy.ldm.wan.vae import WanVAE

    generator, made = torch.Generator().manual_seed(2), {}
    for name, tensor in WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).state_dict().items():
        random = torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
        made[name] = torch.ones(tensor.shape) if name.endswith("gamma") else random
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(made, str(path))
