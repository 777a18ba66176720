"""The small FLUX in FLUX.1's proportions: one double block to two single ones, two heads, room for distilled guidance.

It is trained with fewer tokens than the host has, to the same result. All text lies at one rotary position, so tokens
with one embedding stay one and the same through every block: the padding of a prompt is carried as a single token whose
attention counts as often as there are such tokens.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .flux import (
    AXES,
    HEAD_DIM,
    THETA,
    DoubleBlock,
    Embedder,
    Flux,
    SingleBlock,
    Sizes,
    _in_parts,
    _modulated,
    _patches,
    _rotated,
    _unpatched,
    timestep_embedding,
)

# Two heads of the host's fixed width. Deeper ones learn more of a step, but less of a minute.
SIZES = Sizes(hidden=256, double_blocks=2, single_blocks=4)


class ProportionedFlux(Flux):
    """Predicts the velocity ε − x₀ from the noise level, the prompt and, where it is distilled, the guidance."""

    def __init__(self, sizes: Sizes = SIZES, distilled: bool = False):
        super().__init__(sizes)
        if distilled:
            self.guidance_in = Embedder(256, sizes.hidden)
            # At first every guidance is none: the student begins as its teacher.
            nn.init.zeros_(self.guidance_in.out_layer.weight)
            nn.init.zeros_(self.guidance_in.out_layer.bias)

    @property
    def distilled(self) -> bool:
        return hasattr(self, "guidance_in")

    def forward(  # type: ignore[override]
        self,
        latent: Tensor,
        sigma: Tensor,
        context: Tensor,
        repeats: int = 1,
        guidance: Tensor | None = None,
        stride: int = 1,
    ) -> Tensor:
        """The velocity, shaped like latent.

        latent: (batch, 16, height, width); sigma: (batch,) in [0, 1]; context: (batch, text tokens, context_dim).
        repeats: how many equal tokens the last one of context stands for. guidance: (batch,), of a distilled model.
        stride: how many patches of a full picture one of this is wide, for pictures made smaller.
        """
        height, width = latent.shape[2] // 2, latent.shape[3] // 2
        img, txt = self.img_in(_patches(latent)), self.txt_in(context)
        vec = functional.silu(self._conditioned(sigma, guidance))[:, None]
        rotation = rotation_of(txt.shape[1], height, width, stride)
        counts = torch.zeros(txt.shape[1] + img.shape[1])
        counts[txt.shape[1] - 1] = math.log(repeats)
        for block in self.double_blocks:
            img, txt = double_block(cast(DoubleBlock, block), img, txt, vec, rotation, counts)
        both = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            both = single_block(cast(SingleBlock, block), both, vec, rotation, counts)
        return _unpatched(self.final_layer(both[:, txt.shape[1] :], vec), height, width)

    def _conditioned(self, sigma: Tensor, guidance: Tensor | None) -> Tensor:
        vec = self.time_in(timestep_embedding(sigma))
        if self.distilled:
            if guidance is None:
                raise ValueError("a distilled model needs a guidance for each picture")
            vec = vec + self.guidance_in(timestep_embedding(guidance))
        return vec

    def state_dict_for_host(self) -> dict[str, Tensor]:
        """The checkpoint that the stock UNETLoader takes for FLUX.1 [dev]; undistilled, its guidance adds nothing."""
        return super().state_dict_for_host() | {
            name: tensor for name, tensor in self.state_dict().items() if name.startswith("guidance_in.")
        }

    @classmethod
    def from_host(cls, state: dict[str, Tensor]) -> ProportionedFlux:
        """The model of a checkpoint that `state_dict_for_host` gave, in float32.

        A guidance input of zeros, as an undistilled model has it, is left away.
        """
        sizes = Sizes(state["img_in.weight"].shape[0], _depth(state, "double_blocks"), _depth(state, "single_blocks"))
        model = cls(sizes, distilled=bool(state["guidance_in.out_layer.weight"].any()))
        own = {name.replace("norm.scale", "norm.weight"): tensor.float() for name, tensor in state.items()}
        own["txt_in.weight"] = own["txt_in.weight"][:, : sizes.context_dim]
        model.load_state_dict({name: own[name] for name in model.state_dict()})
        return model


def _depth(state: dict[str, Tensor], kind: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{kind}."))


def double_block(
    block: DoubleBlock, img: Tensor, txt: Tensor, vec: Tensor, rotation: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """One double block; counts: (text and image tokens,), the logarithm of how many tokens each stands for."""
    img_mod, txt_mod = block.img_mod(vec), block.txt_mod(vec)
    of_txt = block.txt_attn.norm(*_in_parts(block.txt_attn.qkv, _modulated(txt, *txt_mod[:2]), 1, 1, 1))
    of_img = block.img_attn.norm(*_in_parts(block.img_attn.qkv, _modulated(img, *img_mod[:2]), 1, 1, 1))
    q, k, v = (torch.cat(parts, dim=2) for parts in zip(of_txt, of_img, strict=True))
    z = attention(q, k, v, rotation, counts)
    z_txt, z_img = z[:, : txt.shape[1]], z[:, txt.shape[1] :]
    img = img + img_mod[2] * block.img_attn.proj(z_img)
    img = img + img_mod[5] * block.img_mlp(_modulated(img, *img_mod[3:5]))
    txt = txt + txt_mod[2] * block.txt_attn.proj(z_txt)
    txt = txt + txt_mod[5] * block.txt_mlp(_modulated(txt, *txt_mod[3:5]))
    return img, txt


def single_block(block: SingleBlock, x: Tensor, vec: Tensor, rotation: Tensor, counts: Tensor) -> Tensor:
    """One single block; counts as in `double_block`."""
    shift, scale, gate = block.modulation(vec)
    *qkv, mlp = _in_parts(block.linear1, _modulated(x, shift, scale), 1, 1, 1, 4)
    q, k, v = block.norm(*qkv)
    z = attention(q, k, v, rotation, counts)
    of_z, of_mlp = block.linear2.weight.split((x.shape[-1], 4 * x.shape[-1]), dim=1)
    out = functional.linear(z, of_z, block.linear2.bias)
    return x + gate * (out + functional.linear(functional.gelu(mlp, approximate="tanh"), of_mlp))


def attention(q: Tensor, k: Tensor, v: Tensor, rotation: Tensor, counts: Tensor) -> Tensor:
    """(batch, heads, tokens, HEAD_DIM) each; comes out as (batch, tokens, hidden).

    A key that stands for n equal ones has n times its share: log n is added to its scores.
    """
    q, k = _rotated(q, rotation), _rotated(k, rotation)
    z = (q @ k.mT / math.sqrt(HEAD_DIM) + counts).softmax(dim=-1).to(v.dtype) @ v
    return z.transpose(1, 2).flatten(2)


def rotation_of(text: int, height: int, width: int, stride: int) -> Tensor:
    """Each token's turns as complex numbers, (tokens, HEAD_DIM / 2).

    Text tokens all lie at position 0. With a stride of n a patch lies in the middle of the n × n that it covers.
    """
    rows, columns = (stride * torch.arange(size).double() + (stride - 1) / 2 for size in (height, width))
    places = torch.cartesian_prod(rows, columns)
    ids = functional.pad(places, (1, 0, text, 0))
    angles = [ids[:, [i]] / THETA ** (torch.arange(0, dim, 2).double() / dim) for i, dim in enumerate(AXES)]
    turns = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(turns), turns).to(torch.complex64)
