"""A pack of no nodes for a ComfyUI with small models: what its loader takes as given, it then reads from the file.

It is put into that ComfyUI's custom_nodes, alone. Qwen-Image always has 24 heads there, and texts of 3584 features.
"""

from typing import Any

from comfy import model_detection

NODE_CLASS_MAPPINGS: dict[str, type] = {}
_as_given = model_detection.detect_unet_config


def _as_written(state_dict: dict[str, Any], key_prefix: str, *args: Any, **kwargs: Any) -> dict | None:
    found = _as_given(state_dict, key_prefix, *args, **kwargs)
    if found and found.get("image_model") == "qwen_image":
        width, features = state_dict[f"{key_prefix}txt_in.weight"].shape
        return {**found, "num_attention_heads": width // 128, "joint_attention_dim": features}
    return found


model_detection.detect_unet_config = _as_written
