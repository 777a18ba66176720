"""Small models of the families beside FLUX, of seeded random weights, for the stock loader: they show that all runs.

A checkpoint has the names and shapes of ComfyUI's own class. The loader reads a part of the sizes from it; what it
takes as given for a family (Qwen-Image always has 24 heads of 128) is made smaller while it loads, or no file could be
small.
"""

from __future__ import annotations

import importlib
import inspect
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

    given: those that it takes as given. left_out: how the names of weights begin that nothing here runs and that would
    make a large file; known_by: the one of them by which the loader knows the model. says: what the host's module,
    or that of a class above, has to have, so that the model can be guided.
    """

    kind: str
    read: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)
    left_out: str = ""
    known_by: str = ""
    says: str = ""


_MMDIT = "comfy.ldm.modules.diffusionmodules.mmdit"
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
_SD3_READ = {
    "in_channels": 16,
    "out_channels": 16,
    "depth": 2,
    "adm_in_channels": 32,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 128}},
    "input_size": None,
    "num_patches": 256,
    "pos_embed_max_size": 16,
    "qk_norm": "rms",
}
# To the loader a model has as many blocks as heads, of 64 features each.
_SD3_GIVEN = {"num_blocks": 4, "mlp_ratio": 1.0}
_HUNYUAN_KIND = "comfy.ldm.hunyuan_video.model.HunyuanVideo"
_HUNYUAN_READ = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "context_in_dim": 48,
    "hidden_size": 32,
    "depth": 4,
    "depth_single_blocks": 2,
    "guidance_embed": False,
    "byt5": True,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}
_HUNYUAN_GIVEN = {
    "num_heads": 2,
    "axes_dim": [4, 6, 6],
    "mlp_ratio": 4.0,
    "theta": 256,
    "qkv_bias": True,
    "vec_in_dim": None,
    "meanflow_sum": False,
}
_HUNYUAN_1_READ, _HUNYUAN_1_GIVEN = {**_HUNYUAN_READ, "byt5": False}, {**_HUNYUAN_GIVEN, "vec_in_dim": 32}
_COSMOS_KIND = "comfy.ldm.cosmos.predict2.MiniTrainDIT"
_COSMOS_READ = {"in_channels": 16, "model_channels": 64}
_COSMOS_GIVEN = {
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "num_blocks": 4,
    "num_heads": 2,
    "crossattn_emb_channels": 48,
    "pos_emb_cls": "rope3d",
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "rope_enable_fps_modulation": False,
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
    "AuraFlow": Small(
        "comfy.ldm.aura.mmdit.MMDiT",
        {"n_double_layers": 4, "n_layers": 6, "max_seq": 256, "cond_seq_dim": 2048},
        {"dim": 64, "n_heads": 2, "global_conddim": 64},
    ),
    "OmniGen 2": Small(
        "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel",
        {},
        {
            "hidden_size": 96,
            "num_layers": 4,
            "num_refiner_layers": 1,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "axes_dim_rope": [8, 8, 8],
            "multiple_of": 32,
            "text_feat_dim": 48,
            "timestep_scale": 1000.0,
        },
    ),
    "Lens": Small(
        "comfy.ldm.lens.model.LensTransformer2DModel",
        {"num_layers": 4, "num_attention_heads": 2, "enc_hidden_dim": 24, "selected_layer_index": (0, 1)},
    ),
    "LTX-2": Small(
        "comfy.ldm.lightricks.av_model.LTXAVModel",
        {"num_layers": 4, "cross_attention_dim": 64},
        {
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "caption_channels": 48,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 16,
            "audio_cross_attention_dim": 32,
            "connector_num_layers": 1,
            "connector_num_attention_heads": 2,
            "connector_attention_head_dim": 16,
        },
    ),
    "LTXV": Small(
        "comfy.ldm.lightricks.model.LTXVModel",
        {"num_layers": 4, "cross_attention_dim": 64},
        {"num_attention_heads": 2, "attention_head_dim": 32, "caption_channels": 48},
    ),
    "SD 3.5 Large": Small(f"{_MMDIT}.OpenAISignatureMMDITWrapper", _SD3_READ, _SD3_GIVEN),
    "SD 3.5 Medium": Small(
        f"{_MMDIT}.OpenAISignatureMMDITWrapper", {**_SD3_READ, "x_block_self_attn_layers": [0, 1]}, _SD3_GIVEN
    ),
    # ComfyUI's class has these, and no model that is out does: registers, and layers that work on the text.
    "SD 3 with registers": Small(
        f"{_MMDIT}.OpenAISignatureMMDITWrapper",
        {**_SD3_READ, "qk_norm": None, "context_processor_layers": 1},
        {**_SD3_GIVEN, "register_length": 3, "context_size": 48},
    ),
    "Lumina 2": Small("comfy.ldm.lumina.model.NextDiT", _LUMINA_READ, {**_LUMINA_GIVEN, "n_kv_heads": 1}),
    "HunyuanVideo": Small(_HUNYUAN_KIND, {**_HUNYUAN_1_READ, "guidance_embed": True}, _HUNYUAN_1_GIVEN),
    "HunyuanVideo image to video": Small(_HUNYUAN_KIND, {**_HUNYUAN_1_READ, "in_channels": 33}, _HUNYUAN_1_GIVEN),
    "HunyuanVideo SkyReels": Small(_HUNYUAN_KIND, {**_HUNYUAN_1_READ, "in_channels": 32}, _HUNYUAN_1_GIVEN),
    "Hunyuan Image 2.1 refiner": Small(
        _HUNYUAN_KIND,
        {**_HUNYUAN_1_READ, "in_channels": 128, "out_channels": 64, "patch_size": [1, 1, 1], "meanflow": True},
        {**_HUNYUAN_GIVEN, "meanflow_sum": True},
    ),
    "HunyuanVideo 1.5": Small(
        _HUNYUAN_KIND,
        {
            **_HUNYUAN_READ,
            "in_channels": 65,
            "out_channels": 32,
            "patch_size": [1, 1, 1],
            "depth_single_blocks": 0,
            "use_cond_type_embedding": True,
            "vision_in_dim": 1152,
        },
        {**_HUNYUAN_GIVEN, "meanflow_sum": True},
    ),
    "Hunyuan Image 2.1": Small(
        _HUNYUAN_KIND,
        {**_HUNYUAN_READ, "in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "meanflow": True},
        {**_HUNYUAN_GIVEN, "axes_dim": [8, 8]},
    ),
    # Its sizes say to the loader which Kandinsky 5 it is, so that a small one is none of those; its blocks are theirs.
    "Kandinsky 5": Small(
        "comfy.ldm.kandinsky5.model.Kandinsky5",
        {
            "model_dim": 64,
            "ff_dim": 128,
            "time_dim": 32,
            "visual_embed_dim": 132,
            "num_text_blocks": 2,
            "num_visual_blocks": 4,
        },
        {"axes_dims": (8, 12, 12), "in_text_dim": 48, "in_text_dim2": 32},
    ),
    "Cosmos Predict 2": Small(_COSMOS_KIND, _COSMOS_READ, _COSMOS_GIVEN, says="block_index"),
    # What adapts its text has one size only, and is not run where a prompt has no second tokens.
    "Anima": Small(
        "comfy.ldm.anima.model.Anima",
        _COSMOS_READ,
        _COSMOS_GIVEN,
        says="block_index",
        left_out="llm_adapter.",
        known_by="llm_adapter.blocks.0.cross_attn.q_proj.weight",
    ),
    "MiniMax H3": Small(
        "comfy.ldm.minimax.model.MiniMaxH3Model",
        {
            "hidden_size": 64,
            "num_layers": 4,
            "token_refiner_num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "ffn_hidden_size": 128,
            "text_dim": 48,
            "timestep_input_dim": 32,
            "time_embed_hidden_size": 64,
            "time_embed_dim": 32,
            "rope_inv_freq_len": 4,
        },
    ),
    "Krea 2": Small(
        "comfy.ldm.krea2.model.SingleStreamDiT",
        {"features": 64, "channels": 16, "patch": 2, "layers": 4, "txtlayers": 2, "txtdim": 24},
        {"heads": 2, "kvheads": 1, "txtheads": 2, "txtkvheads": 2},
    ),
}
# Their sizes nobody can make smaller, so that they are kept in 8 bits.
_LARGE = ("byt5_in.", "vision_in.")


def host_has(name: str) -> bool:
    """Whether this ComfyUI has the class of a small model, and says there what guidance needs."""
    module, _, kind = SMALL[name].kind.rpartition(".")
    try:
        classes = getattr(importlib.import_module(module), kind, object).__mro__
    except ModuleNotFoundError:
        return False
    modules = {cls.__module__ for cls in classes if cls.__module__.startswith("comfy.")}
    return any(SMALL[name].says in inspect.getsource(importlib.import_module(each)) for each in modules)


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
    shapes = {key: tensor.shape for key, tensor in made.state_dict().items() if not _is_left_out(small, key)}
    state = {key: _weight(key, shape, generator).to(_kept_as(key)) for key, shape in shapes.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path))


def _is_left_out(small: Small, name: str) -> bool:
    return bool(small.left_out) and name.startswith(small.left_out) and name != small.known_by


def _kept_as(name: str) -> torch.dtype:
    return torch.float8_e4m3fn if name.startswith(_LARGE) else torch.bfloat16


def _weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    random = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return random / max(1, random[0].numel()) ** 0.5
    return torch.ones(shape) if "norm" in name or ".ln_" in name else 0.02 * random


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
