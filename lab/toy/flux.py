"""FLUX as a module that can be trained, with the parameter names of its checkpoints.

ComfyUI's own class can't: its RoPE kernel has no gradient, and its blocks add in place. The stock loader takes what is
trained here. Vocabulary and structure: FLUX.1, github.com/black-forest-labs/flux.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_DIM, AXES, THETA = 128, (16, 56, 56), 10_000


@dataclass(frozen=True)
class Sizes:
    """What tells one small FLUX from another. hidden is a multiple of HEAD_DIM, 128."""

    hidden: int = 128
    double_blocks: int = 8
    single_blocks: int = 4
    context_dim: int = 768
    channels: int = 64  # 16 latent channels of a 2×2 patch


DEFAULT_SIZES = Sizes()


class Flux(nn.Module):
    """Predicts the velocity ε − x₀ of a noised latent from its noise level and the prompt.

    No pooled vector and no distilled guidance come in; `state_dict_for_host` adds their layers as zeros.
    """

    def __init__(self, sizes: Sizes = DEFAULT_SIZES):
        super().__init__()
        self.sizes, hidden = sizes, sizes.hidden
        self.img_in, self.txt_in = nn.Linear(sizes.channels, hidden), nn.Linear(sizes.context_dim, hidden)
        self.time_in = Embedder(256, hidden)
        self.double_blocks = nn.ModuleList(DoubleBlock(hidden) for _ in range(sizes.double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(hidden) for _ in range(sizes.single_blocks))
        self.final_layer = LastLayer(hidden, sizes.channels)
        self._initialise()

    def _initialise(self) -> None:
        """Blocks begin as the identity and the output as zero, as in DiT (arXiv 2212.09748, section 3.2)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or "mod.lin" in name or "modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, latent: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """latent: (batch, 16, height, width); sigma: (batch,) in [0, 1]; context: (batch, text tokens, context_dim)."""
        height, width = latent.shape[2] // 2, latent.shape[3] // 2
        img, txt = self.img_in(_patches(latent)), self.txt_in(context)
        vec = functional.silu(self.time_in(timestep_embedding(sigma)))[:, None]
        rotation = _rotation(context.shape[1], height, width)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, rotation)
        both = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            both = block(both, vec, rotation)
        return _unpatched(self.final_layer(both[:, txt.shape[1] :], vec), height, width)

    def state_dict_for_host(self) -> dict[str, Tensor]:
        """The checkpoint that the stock UNETLoader takes for FLUX.1 [dev]."""
        state, hidden = dict(self.state_dict()), self.sizes.hidden
        # The host's text encoder path pads its features to T5's 4096; the pads are zeros.
        state["txt_in.weight"] = functional.pad(state["txt_in.weight"], (0, 4096 - self.sizes.context_dim))
        for name, size in (("vector_in", 768), ("guidance_in", 256)):
            for layer, inn in (("in_layer", size), ("out_layer", hidden)):
                state[f"{name}.{layer}.weight"] = torch.zeros(hidden, inn)
                state[f"{name}.{layer}.bias"] = torch.zeros(hidden)
        return {name.replace("norm.weight", "norm.scale"): tensor for name, tensor in state.items()}


class Embedder(nn.Module):
    def __init__(self, inn: int, hidden: int):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(inn, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(functional.silu(self.in_layer(x)))


class SelfAttention(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.qkv, self.proj, self.norm = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden), QKNorm()


class QKNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = nn.RMSNorm(HEAD_DIM, eps=1e-6), nn.RMSNorm(HEAD_DIM, eps=1e-6)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, tokens, hidden) each; they come out as (batch, heads, tokens, HEAD_DIM)."""
        q, k, v = (x.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for x in (q, k, v))
        return self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype), v


class Modulation(nn.Module):
    def __init__(self, hidden: int, parts: int):
        super().__init__()
        self.lin, self.parts = nn.Linear(hidden, parts * hidden), parts

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(vec).chunk(self.parts, dim=-1)


class DoubleBlock(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(hidden, 6), Modulation(hidden, 6)
        self.img_attn, self.txt_attn = SelfAttention(hidden), SelfAttention(hidden)
        self.img_mlp, self.txt_mlp = _mlp(hidden), _mlp(hidden)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        img_mod, txt_mod = self.img_mod(vec), self.txt_mod(vec)
        of_txt = self.txt_attn.norm(*_in_parts(self.txt_attn.qkv, _modulated(txt, *txt_mod[:2]), 1, 1, 1))
        of_img = self.img_attn.norm(*_in_parts(self.img_attn.qkv, _modulated(img, *img_mod[:2]), 1, 1, 1))
        q, k, v = (torch.cat(parts, dim=2) for parts in zip(of_txt, of_img, strict=True))
        z = attention(q, k, v, rotation)
        z_txt, z_img = z[:, : txt.shape[1]], z[:, txt.shape[1] :]
        img = img + img_mod[2] * self.img_attn.proj(z_img)
        img = img + img_mod[5] * self.img_mlp(_modulated(img, *img_mod[3:5]))
        txt = txt + txt_mod[2] * self.txt_attn.proj(z_txt)
        txt = txt + txt_mod[5] * self.txt_mlp(_modulated(txt, *txt_mod[3:5]))
        return img, txt


class SingleBlock(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.modulation, self.norm = Modulation(hidden, 3), QKNorm()
        self.linear1, self.linear2 = nn.Linear(hidden, 7 * hidden), nn.Linear(5 * hidden, hidden)

    def forward(self, x: Tensor, vec: Tensor, rotation: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        *qkv, mlp = _in_parts(self.linear1, _modulated(x, shift, scale), 1, 1, 1, 4)
        q, k, v = self.norm(*qkv)
        z = attention(q, k, v, rotation)
        # linear2 of both together, without the copy that puts them side by side.
        of_z, of_mlp = self.linear2.weight.split((x.shape[-1], 4 * x.shape[-1]), dim=1)
        out = functional.linear(z, of_z, self.linear2.bias)
        return x + gate * (out + functional.linear(functional.gelu(mlp, approximate="tanh"), of_mlp))


class LastLayer(nn.Module):
    def __init__(self, hidden: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(hidden, channels)
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(hidden, 2 * hidden))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        return self.linear(_modulated(x, *self.adaLN_modulation(vec).chunk(2, dim=-1)))


def _mlp(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden))


def _in_parts(layer: nn.Linear, x: Tensor, *parts: int) -> list[Tensor]:
    """The layer's output in parts, each so many times the width of x; made one by one, as joining gradients is slow."""
    sizes = [part * x.shape[-1] for part in parts]
    pairs = zip(layer.weight.split(sizes), layer.bias.split(sizes), strict=True)
    return [functional.linear(x, weight, bias) for weight, bias in pairs]


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def attention(q: Tensor, k: Tensor, v: Tensor, rotation: Tensor) -> Tensor:
    """(batch, heads, tokens, HEAD_DIM) each; comes out as (batch, tokens, hidden).

    Two plain matrix products: on a CPU the backward pass of the fused form is several times slower.
    """
    q, k = _rotated(q, rotation), _rotated(k, rotation)
    z = (q @ k.mT / math.sqrt(HEAD_DIM)).softmax(dim=-1).to(v.dtype) @ v
    return z.transpose(1, 2).flatten(2)


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions (RoPE, arXiv 2104.09864): pairs of features turned by each token's angles."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def _rotation(text: int, height: int, width: int) -> Tensor:
    """Each token's turns as complex numbers, (tokens, HEAD_DIM / 2); text tokens all lie at position 0."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ids = torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).reshape(-1, 3)
    ids = torch.cat((torch.zeros(text, 3, dtype=ids.dtype), ids)).double()
    angles = [ids[:, [i]] / THETA ** (torch.arange(0, dim, 2).double() / dim) for i, dim in enumerate(AXES)]
    turns = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(turns), turns).to(torch.complex64)


def timestep_embedding(sigma: Tensor) -> Tensor:
    """Noise levels in [0, 1] as 256 sines and cosines, as FLUX does."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    turn = 1000 * sigma[:, None].float() * frequencies
    return torch.cat((turn.cos(), turn.sin()), dim=-1)


def _patches(latent: Tensor) -> Tensor:
    return functional.pixel_unshuffle(latent, 2).flatten(2).transpose(1, 2)


def _unpatched(tokens: Tensor, height: int, width: int) -> Tensor:
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height, width)), 2)
