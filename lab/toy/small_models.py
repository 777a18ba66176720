"""Small models of the real architectures, for the stock loaders: seeded weights, the same bytes every time.

Of random weights: a FLUX whose blocks 8, 12 and 16 exist, which shows that everything runs and no more, and a CLIP-L
text encoder. Trained, and shipped with this repo: a FLUX that draws coloured shapes. Both FLUX use its autoencoder.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import host
from . import autoencoder, digests

TRAINED = host.REPO / "lab" / "trained"  # what is shipped; `shipping` makes it

FLUX_FILE = "diffusion_models/flux_small.safetensors"
CLIP_FILE = "text_encoders/clip_l_small.safetensors"
# In a folder of its own, so that the service, which picks the first of equals, goes on finding the one with 19 blocks.
SHAPES_FILE = "diffusion_models/trained/flux_shapes.safetensors"
ENCODER_FILE = "vae_approx/taef1_encoder.safetensors"
DECODER_FILE = "vae_approx/taef1_decoder.safetensors"


class Weights:
    """A state dict that grows layer by layer from one seed."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, Tensor] = {}

    def add(self, name: str, *shape: int, std: float, mean: float = 0.0) -> None:
        self.tensors[name] = mean + std * torch.randn(shape, generator=self.generator)

    def linear(self, name: str, out: int, inn: int, gain: float = 1.0) -> None:
        self.add(f"{name}.weight", out, inn, std=gain / inn**0.5)
        self.add(f"{name}.bias", out, std=0.02)

    def norm(self, name: str, size: int) -> None:
        self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"] = torch.ones(size), torch.zeros(size)

    def save(self, path: Path, dtype: torch.dtype) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.to(dtype).contiguous() for name, tensor in self.tensors.items()}, str(path))


# --- FLUX ---

DENOISE = 2.0


def make_flux(
    path: Path | str,
    hidden: int = 128,
    double_blocks: int = 19,
    single_blocks: int = 4,
    context_dim: int = 4096,
    vec_dim: int = 768,
    guidance: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a FLUX checkpoint for the stock UNETLoader, which reads every size from the file.

    hidden: a multiple of 128, the fixed size of a head. guidance: with the input for distilled guidance the host
    takes it for FLUX.1 [dev], without for [schnell].
    """
    weights = Weights(seed)
    weights.linear("img_in", hidden, 64)
    weights.tensors["img_in.weight"] = torch.linalg.qr(weights.tensors["img_in.weight"]).Q * 2
    weights.linear("txt_in", hidden, context_dim, gain=4.0)
    for name, size in (("time_in", 256), ("vector_in", vec_dim), *([("guidance_in", 256)] if guidance else [])):
        weights.linear(f"{name}.in_layer", hidden, size)
        weights.linear(f"{name}.out_layer", hidden, hidden)
    for i in range(double_blocks):
        for stream in ("img", "txt"):
            _double_stream(weights, f"double_blocks.{i}.{stream}", hidden)
    for i in range(single_blocks):
        _single_block(weights, f"single_blocks.{i}", hidden)
    weights.linear("final_layer.linear", 64, hidden)
    # Untrained, the velocity would leave the noise as it is. This share of it points back along the latent, so that
    # noise shrinks and what the blocks make of the prompt is seen.
    weights.tensors["final_layer.linear.weight"] += DENOISE * weights.tensors["img_in.weight"].T / 2
    weights.linear("final_layer.adaLN_modulation.1", 2 * hidden, hidden, gain=0.3)
    weights.save(Path(path), dtype)


def _double_stream(weights: Weights, name: str, hidden: int) -> None:
    weights.linear(f"{name}_mod.lin", 6 * hidden, hidden, gain=0.3)
    weights.linear(f"{name}_attn.qkv", 3 * hidden, hidden)
    weights.linear(f"{name}_attn.proj", hidden, hidden)
    _head_norms(weights, f"{name}_attn.norm")
    weights.linear(f"{name}_mlp.0", 4 * hidden, hidden)
    weights.linear(f"{name}_mlp.2", hidden, 4 * hidden)


def _single_block(weights: Weights, name: str, hidden: int) -> None:
    weights.linear(f"{name}.modulation.lin", 3 * hidden, hidden, gain=0.3)
    weights.linear(f"{name}.linear1", 7 * hidden, hidden)
    weights.linear(f"{name}.linear2", hidden, 5 * hidden)
    _head_norms(weights, f"{name}.norm")


def _head_norms(weights: Weights, name: str) -> None:
    for norm in ("query_norm", "key_norm"):
        weights.tensors[f"{name}.{norm}.scale"] = torch.ones(128)


# --- the text encoder ---


def make_clip_l(path: Path | str, seed: int = 3, dtype: torch.dtype = torch.float16) -> None:
    """Write a CLIP-L text encoder: 12 layers of width 768, 77 positions."""
    weights, width = Weights(seed), 768
    weights.add("text_model.embeddings.token_embedding.weight", 49408, width, std=0.5)
    weights.add("text_model.embeddings.position_embedding.weight", 77, width, std=0.25)
    for i in range(12):
        _clip_layer(weights, f"text_model.encoder.layers.{i}", width)
    weights.norm("text_model.final_layer_norm", width)
    weights.save(Path(path), dtype)


def _clip_layer(weights: Weights, name: str, width: int) -> None:
    for projection in ("q_proj", "k_proj", "v_proj"):
        weights.linear(f"{name}.self_attn.{projection}", width, width)
    # What a layer adds is zero: a word's embedding passes through as it is, so training can look it up.
    _zeros(weights, f"{name}.self_attn.out_proj", width, width)
    weights.norm(f"{name}.layer_norm1", width)
    weights.norm(f"{name}.layer_norm2", width)
    weights.linear(f"{name}.mlp.fc1", 4 * width, width)
    _zeros(weights, f"{name}.mlp.fc2", width, 4 * width)


def _zeros(weights: Weights, name: str, out: int, inn: int) -> None:
    weights.tensors[f"{name}.weight"], weights.tensors[f"{name}.bias"] = torch.zeros(out, inn), torch.zeros(out)


# --- all of them, once, in the cache ---


def ensure_models() -> Path:
    """A `models` folder for ComfyUI with all of the above, made once and kept in the cache."""
    folder = host.cache_dir() / f"models-{_recipe_digest()}"
    host.make_once(folder, _make_models)
    return folder


def _make_models(folder: Path) -> None:
    host.say("making the small models")
    make_flux(folder / FLUX_FILE, dtype=torch.bfloat16)
    make_clip_l(folder / CLIP_FILE)
    autoencoder.save_encoder(folder / ENCODER_FILE)
    for name in (SHAPES_FILE, DECODER_FILE):
        if (trained := TRAINED / Path(name).name).exists():  # they are not while they are made for the first time
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(trained, folder / name)


def _recipe_digest() -> str:
    trained = (hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(TRAINED.glob("*.safetensors")))
    return digests.digest(digests.sources(Path(__file__), Path(autoencoder.__file__)), " ".join(trained))
