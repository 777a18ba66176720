"""Small models of random weights of what else ComfyUI samples, made by its own description of each (supported_models).

None is of a family whose blocks are known: pictures, videos, sound, shapes, and latents of several parts.
"""

import importlib
import inspect
from dataclasses import dataclass, field

import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import torch
from comfy.ldm.audio.embedders import NumberConditioner
from comfy.nested_tensor import NestedTensor
from unets import UNETS


@dataclass(frozen=True, eq=False)
class Other:
    """A model. kind: its name in supported_models; sizes: those of its class.

    latents: of one picture or sound, (channels, …), several where it makes several at once. context: features of a
    text. of_text: what else a prompt has, by name: a shape of its own numbers, or a value.
    integers: how the prompt's second text is called, of words by their numbers. state: weights beside the model's own
    that its making takes. what: which of its kind it is. says: a module of the host and what has to stand in it: older
    ones make the model in another way, or can't sample it at cfg 1.
    """

    kind: str
    sizes: dict
    latents: tuple
    context: int = 48
    of_text: dict = field(default_factory=dict)
    integers: str = ""
    state: dict = field(default_factory=dict)
    what: str = ""
    says: tuple = ()

    def __str__(self):
        return f"{self.kind} {self.what}".strip()


UNET = {**UNETS["SD15"], "num_heads": -1, "num_head_channels": 64}
TEMPORAL = {
    "use_temporal_attention": True,
    "use_temporal_resblock": True,
    "extra_ff_mix_layer": True,
    "use_spatial_context": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
}
WAN = {"dim": 64, "ffn_dim": 128, "num_layers": 2, "num_heads": 2, "text_dim": 48, "in_dim": 16, "out_dim": 16}
AUDIO = {"embed_dim": 64, "cond_token_dim": 768, "project_cond_tokens": True, "depth": 2, "num_heads": 2}
POOLED = {"pooled_output": (1, 1280)}
VIDEO = (16, 2, 6, 8)


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seconds(names):
    """The weights of Stable Audio's embedders of lengths."""
    made = {key: some(*value.shape) for key, value in NumberConditioner(768, max_val=512).state_dict().items()}
    return {f"conditioner.conditioners.{name}.{key}": value for name in names for key, value in made.items()}


CASES = [
    Other("SD20", {**UNET, "use_linear_in_transformer": True}, ((4, 8, 8),), state={"v": 1}),
    Other("SDXL", UNETS["SDXL"], ((4, 8, 8),), of_text=POOLED, what="v", state={"v_pred": torch.zeros(1)}),
    Other(
        "SDXL",
        UNETS["SDXL"],
        ((4, 8, 8),),
        of_text=POOLED,
        what="EDM",
        state={"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)},
    ),
    Other(
        "SVD_img2vid",
        {**UNET, **TEMPORAL, "in_channels": 8, "num_classes": "sequential", "adm_in_channels": 768},
        ((4, 8, 8),),
    ),
    Other(
        "Stable_Cascade_C",
        {
            "c_cond": 64,
            "c_hidden": [32, 32],
            "nhead": [2, 2],
            "blocks": [[1, 1], [1, 1]],
            "c_clip_text": 48,
            "c_clip_text_pooled": 32,
        },
        ((16, 8, 8),),
        of_text={"pooled_output": (1, 1, 32)},
    ),
    Other(
        "Stable_Cascade_B",
        {
            "c_cond": 64,
            "c_hidden": [32, 32, 64, 64],
            "nhead": [-1, -1, 2, 2],
            "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]],
            "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]],
            "c_clip": 32,
        },
        ((4, 16, 16),),
        of_text={"pooled_output": (1, 1, 32)},
    ),
    Other(
        "StableAudio",
        {**AUDIO, "global_cond_dim": 1536},
        ((64, 32),),
        context=768,
        state=seconds(("seconds_start", "seconds_total")),
    ),
    Other(
        "PixArtSigma",
        {
            "input_size": 32,
            "hidden_size": 64,
            "depth": 2,
            "num_heads": 2,
            "caption_channels": 48,
            "micro_condition": False,
            "model_max_length": 9,
            "pe_interpolation": 1,
        },
        ((4, 40, 40),),
    ),
    Other(
        "HunyuanDiT",
        {
            "hidden_size": 64,
            "depth": 2,
            "num_heads": 2,
            "text_len": 9,
            "text_len_t5": 9,
            "size_cond": True,
            "use_style_cond": True,
        },
        ((4, 8, 8),),
        context=1024,
        of_text={
            "conditioning_mt5xl": (1, 9, 2048),
            "attention_mask": torch.ones(1, 9),
            "attention_mask_mt5xl": torch.ones(1, 9),
        },
    ),
    Other(
        "GenmoMochi",
        {
            "in_channels": 12,
            "learn_sigma": False,
            "hidden_size_x": 64,
            "hidden_size_y": 32,
            "depth": 1,
            "num_heads": 2,
            "mlp_ratio_x": 192.0,
            "mlp_ratio_y": 4.0,
            "t5_feat_dim": 48,
            "t5_token_length": 16,
            "rope_theta": 10000.0,
            "qk_norm": True,
            "qkv_bias": False,
            "out_bias": True,
            "patch_embed_bias": True,
            "timestep_mlp_bias": True,
            "timestep_scale": 1000.0,
            "use_extended_posenc": True,
            "posenc_preserve_area": True,
            "use_t5": True,
        },
        ((12, 2, 8, 8),),
        of_text={"attention_mask": torch.ones(1, 9, dtype=torch.long)},
    ),
    Other(
        "CosmosT2V",
        {
            "max_img_h": 24,
            "max_img_w": 24,
            "max_frames": 16,
            "in_channels": 16,
            "out_channels": 16,
            "patch_spatial": 2,
            "patch_temporal": 1,
            "model_channels": 64,
            "num_blocks": 2,
            "num_heads": 2,
            "crossattn_emb_channels": 48,
            "pos_emb_cls": "rope3d",
            "use_adaln_lora": True,
            "adaln_lora_dim": 16,
            "block_x_format": "THWBD",
            "affline_emb_norm": True,
            "extra_per_block_abs_pos_emb": True,
            "extra_per_block_abs_pos_emb_type": "learnable",
        },
        (VIDEO,),
    ),
    Other("WAN21_Vace", {**WAN, "model_type": "vace", "vace_layers": 1, "vace_in_dim": 96}, (VIDEO,)),
    Other("WAN21_Camera", {**WAN, "model_type": "camera", "in_dim": 32}, (VIDEO,)),
    Other("WAN21_HuMo", {**WAN, "model_type": "humo"}, (VIDEO,)),
    Other("WAN22_S2V", {**WAN, "model_type": "s2v"}, (VIDEO,)),
    Other("WAN22_Animate", {**WAN, "model_type": "animate", "in_dim": 36}, (VIDEO,)),
    Other("WAN21_SCAIL", {**WAN, "model_type": "scail", "in_dim": 20}, (VIDEO,)),
    Other("WAN21_SCAIL2", {**WAN, "model_type": "scail2", "in_dim": 20}, (VIDEO,)),
    Other("WAN22_WanDancer", {**WAN, "model_type": "wandancer", "in_dim": 36}, (VIDEO,)),
    Other("WAN21_CausalAR_T2V", {**WAN, "model_type": "t2v"}, (VIDEO,)),
    Other(
        "Hunyuan3Dv2",
        {"context_in_dim": 48, "hidden_size": 64, "num_heads": 1, "depth": 1, "depth_single_blocks": 1},
        ((64, 16),),
    ),
    Other(
        "Hunyuan3Dv2_1",
        {"hidden_size": 64, "context_dim": 48, "depth": 3, "num_heads": 2, "num_moe_layers": 1, "num_experts": 2},
        ((64, 16),),
        says=("comfy.ldm.hunyuan3dv2_1.hunyuandit", "swap_cfg_halves"),
    ),
    Other(
        "TripoSplat",
        {
            "model_channels": 64,
            "cond_channels": 48,
            "num_blocks": 2,
            "num_refiner_blocks": 1,
            "num_head_channels": 32,
            "q_token_length": 16,
        },
        ((16, 16), (1, 5)),
    ),
    Other(
        "HiDream",
        {
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "caption_channels": [48, 48],
            "text_emb_dim": 32,
            "num_routed_experts": 2,
            "num_activated_experts": 1,
            "axes_dims_rope": (8, 12, 12),
            "llama_layers": [0, 1],
        },
        ((16, 8, 8),),
        of_text={"pooled_output": (1, 32), "conditioning_llama3": (1, 2, 9, 48)},
    ),
    Other(
        "ACEStep15",
        {
            "hidden_size": 64,
            "text_hidden_dim": 48,
            "num_dit_layers": 2,
            "num_lyric_layers": 1,
            "num_timbre_layers": 1,
            "num_tokenizer_layers": 1,
            "num_heads": 2,
            "num_kv_heads": 1,
            "head_dim": 32,
            "intermediate_size": 64,
            "encoder_hidden_size": 64,
            "encoder_intermediate_size": 64,
            "encoder_num_heads": 2,
            "fsq_dim": 64,
        },
        ((64, 16),),
        of_text={"conditioning_lyrics": (1, 5, 48)},
        says=("comfy.ldm.ace.ace_step15", "encoder_hidden_size"),
    ),
    Other(
        "Boogu",
        {
            "hidden_size": 96,
            "num_layers": 2,
            "num_double_stream_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "multiple_of": 32,
            "axes_dim_rope": (8, 8, 8),
            "axes_lens": (64, 64, 64),
            "instruction_feat_dim": 48,
        },
        ((16, 8, 8),),
        of_text={"attention_mask": torch.ones(1, 9, dtype=torch.long)},
    ),
    Other(
        "MageFlow",
        {
            "num_layers": 2,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "joint_attention_dim": 48,
            "axes_dims_rope": (8, 12, 12),
        },
        ((128, 6, 6),),
    ),
    Other(
        "JoyImage",
        {
            "hidden_size": 64,
            "num_attention_heads": 2,
            "text_dim": 48,
            "num_layers": 2,
            "rope_dim_list": [8, 12, 12],
        },
        ((16, 1, 8, 8),),
    ),
    Other(
        "Ideogram4",
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "intermediate_size": 64,
            "adaln_dim": 16,
            "llm_features_dim": 48,
            "mrope_section": (6, 5, 5),
        },
        ((128, 6, 6),),
    ),
    Other(
        "ErnieImage",
        {
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_layers": 2,
            "ffn_hidden_size": 64,
            "text_in_dim": 48,
            "rope_axes_dim": (8, 12, 12),
        },
        ((128, 6, 6),),
    ),
    Other(
        "CogVideoX_T2V",
        {
            "num_attention_heads": 3,
            "attention_head_dim": 64,
            "time_embed_dim": 32,
            "text_embed_dim": 48,
            "num_layers": 2,
            "sample_width": 8,
            "sample_height": 6,
            "sample_frames": 5,
            "max_text_seq_length": 9,
        },
        ((16, 2, 6, 8),),
    ),
    Other(
        "PixelDiTT2I",
        {
            "num_groups": 2,
            "hidden_size": 64,
            "pixel_hidden_size": 4,
            "pixel_attn_hidden_size": 32,
            "pixel_num_groups": 2,
            "patch_depth": 2,
            "pixel_depth": 1,
            "txt_embed_dim": 48,
            "txt_max_length": 16,
        },
        ((3, 32, 32),),
    ),
    Other(
        "HiDreamO1",
        {
            "text_config_overrides": {
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 32,
                "rope_dims": [6, 5, 5],
            },
            "vision_config_overrides": {
                "hidden_size": 32,
                "num_heads": 2,
                "intermediate_size": 32,
                "depth": 1,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": (),
            },
        },
        ((3, 64, 96),),
        context=1,
        integers="text_input_ids",
    ),
    Other(
        "StableAudio3",
        {**AUDIO, "global_cond_dim": 768, "timestep_features_type": "learned", "io_channels": 256},
        ((256, 32),),
        context=768,
        state=seconds(("seconds_total",)),
    ),
    Other(
        "LotusD",
        {**UNET, "use_linear_in_transformer": True, "adm_in_channels": 4, "num_classes": "sequential"},
        ((4, 8, 8),),
    ),
]


# What else ComfyUI has: models of the families; those that are one of the above but for their sizes; those that can't
# be small, for what reads lyrics, pixels, or what is to be restored, has one size; and those that are not sampled.
ELSEWHERE = """
Flux FluxInpaint FluxSchnell Flux2 LongCatImage Chroma ChromaRadiance QwenImage Lumina2 ZImage WAN21_T2V WAN21_I2V
WAN21_FunControl2V WAN21_FlowRVS WAN22_T2V HunyuanVideo HunyuanVideoI2V HunyuanVideoSkyreelsI2V HunyuanVideo15
HunyuanVideo15_SR_Distilled HunyuanImage21 HunyuanImage21Refiner SD3 LTXV LTXAV AuraFlow Kandinsky5 Kandinsky5Image
CosmosT2IPredict2 CosmosI2VPredict2 Anima Krea2 Omnigen2 Lens MiniMaxH3

SD15 SD15_instructpix2pix SDXL_instructpix2pix SDXLRefiner SSD1B KOALA_700M KOALA_1B Segmind_Vega SD21UnclipL
SD21UnclipH SD_X4Upscaler Stable_Zero123 SV3D_u SV3D_p PixArtAlpha HunyuanDiT1 CosmosI2V WAN22_Camera Hunyuan3Dv2mini
CogVideoX_I2V CogVideoX_Inpaint

ACEStep SeedVR2 PiD ZImagePixelSpace

RT_DETR_v4 DepthAnything3 SAM3 SAM31
"""


def host_has(case):
    """Whether this ComfyUI has the model, as it is made here."""
    if not hasattr(comfy.supported_models, case.kind):
        return False
    return not case.says or case.says[1] in inspect.getsource(importlib.import_module(case.says[0]))


HERE = [case for case in CASES if host_has(case)]
if missing := [str(case) for case in CASES if case not in HERE]:
    print(f"\ntests/host/test_any_model.py: not {', '.join(missing)}, which this ComfyUI does not have")


def load(case):
    """A MODEL of seeded weights."""
    kind = getattr(comfy.supported_models, case.kind)
    config = kind({**kind.unet_config, **case.sizes})
    config.unet_config.update(case.sizes)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(dict(case.state), "", device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.diffusion_model.state_dict().items():
        weight.copy_(_weight(weight.shape, name, generator))
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def _weight(shape, name, generator):
    random = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return random / max(1, random[0].numel()) ** 0.5
    return torch.ones(shape) if "norm" in name and name.endswith("weight") else 0.02 * random


def prompt(case, seed, tokens=9):
    """A conditioning; another seed is another prompt."""
    own = {n: some(*v, seed=seed + 100) if isinstance(v, tuple) else v for n, v in case.of_text.items()}
    if case.integers:
        own[case.integers] = torch.randint(1000, (1, tokens), generator=torch.Generator().manual_seed(seed))
    return [[some(1, tokens, case.context, seed=seed), own]]


def sample(case, model, positive, negative, batch=1, cfg=1.0):
    """KSampler's own path, the second half of it: a model's first noise may be a thousand times the picture's size."""
    parts = [torch.zeros(batch, *latent) for latent in case.latents]
    start = NestedTensor(parts) if len(parts) > 1 else parts[0]
    noise = comfy.sample.prepare_noise(start, 7)
    out = comfy.sample.sample(
        *(model, noise, 2, cfg, "euler", "simple", positive, negative, start), denoise=0.5, disable_pbar=True, seed=7
    )
    return torch.cat([part.flatten(1) for part in out.unbind()], 1) if len(parts) > 1 else out
