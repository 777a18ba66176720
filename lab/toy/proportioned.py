"""The small FLUX in FLUX.1's proportions: two single blocks to a double one, two heads, room for distilled guidance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .flux import (
    AXES,
    THETA,
    Embedder,
    Flux,
    Sizes,
    _patches,
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

    def forward(
        self, latent: Tensor, sigma: Tensor, context: Tensor, guidance: Tensor | None = None, stride: int = 1
    ) -> Tensor:
        """The velocity, shaped like latent.

        latent: (batch, 16, height, width); sigma: (batch,) in [0, 1]; context: (batch, text tokens, context_dim).
        guidance: (batch,), of a distilled model. stride: how many patches of a full picture one of this is wide, for
        pictures made smaller.
        """
        height, width = latent.shape[2] // 2, latent.shape[3] // 2
        img, txt = self.img_in(_patches(latent)), self.txt_in(context)
        vec = functional.silu(self._conditioned(sigma, guidance))[:, None]
        rotation = rotation_of(txt.shape[1], height, width, stride)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, rotation)
        both = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            both = block(both, vec, rotation)
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
