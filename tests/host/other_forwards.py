"""Stand-ins for other packs' forwards: FLUX's, written anew, calling block replacements in the forms that packs have.

Each pack keeps its copy from another release of ComfyUI, so that the options come with the block or don't, and reach
its attention or don't.
"""

import types
from dataclasses import dataclass
from unittest import mock

import comfy.ldm.flux.layers as layers
import torch


@dataclass(frozen=True)
class Form:
    """How a forward calls a block's replacement.

    first, second: which dict has transformer_options. handed_on: whether the block gets those of the first. cached: of
    the calls of the model, every second one runs the first block alone and adds what the others did. twice: double
    blocks that are called twice, skipped: those that are not. wrapped: all double blocks are called as if one.
    """

    first: bool = True
    second: bool = False
    handed_on: bool = True
    cached: bool = False
    twice: tuple = ()
    skipped: tuple = ()
    wrapped: bool = False


class OtherForward:
    """A pack's node: `on(model)` gives a clone that runs this forward."""

    def __init__(self, form):
        self.form, self.calls, self.rest = form, 0, None

    def on(self, model):
        model = model.clone()
        flux = model.model.diffusion_model

        def run(apply_model, given):
            with mock.patch.object(flux, "forward_orig", types.MethodType(self.forward(), flux)):
                return apply_model(given["input"], given["timestep"], **given["c"])

        model.set_model_unet_function_wrapper(run)
        return model

    def forward(other):
        def forward_orig(
            self,
            img,
            img_ids,
            txt,
            txt_ids,
            timesteps,
            y,
            guidance=None,
            control=None,
            transformer_options={},
            attn_mask=None,
            timestep_zero_index=None,
        ):
            embed = layers.timestep_embedding
            img, txt = self.img_in(img), self.txt_in(txt)
            vec = self.time_in(embed(timesteps, 256).to(img.dtype)) + self.guidance_in(
                embed(guidance, 256).to(img.dtype)
            )
            vec = vec + self.vector_in(y[:, : self.params.vec_in_dim])
            common = {"vec": vec, "pe": self.pe_embedder(torch.cat((txt_ids, img_ids), dim=1)), "attn_mask": attn_mask}
            call = other.caller(dict(transformer_options), common)
            blocks = [Wrapped(self.double_blocks)] if other.form.wrapped else self.double_blocks
            img, txt = call("double", 0, blocks[0], img, txt)
            other.calls += 1
            if other.form.cached and other.calls % 2 == 0:
                img = img + other.rest
            else:
                first = img.clone()
                for i, block in enumerate(blocks):
                    if i and i not in other.form.skipped:
                        for _ in range(2 if i in other.form.twice else 1):
                            img, txt = call("double", i, block, img, txt)
                img = torch.cat((txt, img), 1)
                for i, block in enumerate(self.single_blocks):
                    img, _ = call("single", i, block, img, None)
                img = img[:, txt.shape[1] :]
                other.rest = img - first
            return self.final_layer(img, vec)

        return forward_orig

    def caller(self, options, common):
        """A function that calls a block, or what replaces it."""
        replaced = options.get("patches_replace", {}).get("dit", {})

        def call(kind, i, block, img, txt):
            options.update(block_type=kind, block_index=i)
            text = {} if txt is None else {"txt": txt}

            def original_block(args):
                own = {name: args[name] for name in (*text, "vec", "pe", "attn_mask")}
                if self.form.handed_on:
                    own["transformer_options"] = args.get("transformer_options", {})
                out = block(args["img"], **own)
                return {"img": out} if txt is None else {"img": out[0], "txt": out[1]}

            given = {"img": img, **text, **common} | ({"transformer_options": options} if self.form.first else {})
            extra = {"original_block": original_block} | ({"transformer_options": options} if self.form.second else {})
            if (f"{kind}_block", i) in replaced:
                out = replaced[f"{kind}_block", i](given, extra)
            else:
                out = original_block({"transformer_options": options, **given})
            return out["img"], out.get("txt")

        return call


class Wrapped:
    """Several double blocks that look like one, as a cache puts them in a model."""

    def __init__(self, blocks):
        self.blocks = blocks

    def __call__(self, img, txt, **given):
        for block in self.blocks:
            img, txt = block(img, txt, **given)
        return img, txt
