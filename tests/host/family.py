"""Small FLUX.2 and Chroma of random weights, as the host's own loader makes them."""

import comfy.ops
import comfy.sd
import torch

SIZES = {"context_in_dim": 64, "hidden_size": 256, "num_heads": 2, "depth": 4, "depth_single_blocks": 2}
FLUX2 = {
    **SIZES,
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "mlp_ratio": 3.0,
    "vec_in_dim": None,
    "axes_dim": [32] * 4,
    "theta": 2000,
    "txt_ids_dims": [3],
    "qkv_bias": False,
    "guidance_embed": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
}
CHROMA = {
    **SIZES,
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": 2,
    "mlp_ratio": 4.0,
    "vec_in_dim": None,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "txt_ids_dims": [],
    "qkv_bias": True,
    "in_dim": 64,
    "out_dim": 256,
    "hidden_dim": 64,
    "n_layers": 5,
}


def load(kind, sizes):
    """Random weights for this class's own shapes, as the loader reads them from a checkpoint."""
    generator, state = torch.Generator().manual_seed(0), {}
    shapes = kind(operations=comfy.ops.disable_weight_init, dtype=torch.float32, **sizes).state_dict()
    for name, tensor in shapes.items():
        random = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            state[name] = random / tensor[0].numel() ** 0.5
        else:
            state[name] = torch.ones(tensor.shape) if "norm" in name else 0.02 * random
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})
