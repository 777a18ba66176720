"""Every core node of the host that takes and returns a MODEL, as far as it can run with a small FLUX and no file."""

import ast
import importlib
from functools import cache
from pathlib import Path

import comfy_extras

# Inputs of those whose defaults would do nothing to a model of 4 double and 2 single blocks.
INPUTS = {
    "SkipLayerGuidanceDiTSimple": {"double_layers": "2", "single_layers": "0"},
    "EasyCacheNode": {"start_percent": 0.0, "reuse_threshold": 0.5},
    "LazyCacheNode": {"start_percent": 0.0, "reuse_threshold": 0.5},
}

# What can't run with FLUX by itself, wants what is not here beside it, or changes nothing that a block could see.
OTHERS = {
    "ChromaRadianceOptions": "Chroma Radiance",
    "ImageOnlyCheckpointLoader": "a file",
    "MiniMaxH3SigmaShift": "only the model's sampling",
    "ModelComputeDtype": "only the types of weights",
    "ModelSamplingContinuousEDM": "only the model's sampling",
    "ModelSamplingContinuousV": "only the model's sampling",
    "ModelSamplingDiscrete": "only the model's sampling",
    "ModelSamplingFlux": "only the model's sampling",
    "ModelSamplingSD3": "only the model's sampling",
    "ModelSamplingStableCascade": "only the model's sampling",
    "MultiGPUCFGSplitNode": "several GPUs",
    "NAGuidance": "tested beside these, in more ways",
    "PatchModelAddDownscale": "a UNet",
    "SelectModelDeviceNode": "several GPUs",
    "SkipLayerGuidanceDiT": "tested beside these, in more ways",
    "SkipLayerGuidanceSD3": "SD3",
    "TripoSplatSamplingPreview": "a VAE",
    "UNetCrossAttentionMultiply": "only weights of a UNet",
    "UNetSelfAttentionMultiply": "only weights of a UNet",
    "UNetTemporalAttentionMultiply": "only weights of a UNet",
    "wanBlockSwap": "Wan",
    "ARVideoI2V": "a VAE",
    "AnimaLLLiteApply": "a model patch, and Anima",
    "FreeU": "a UNet",
    "FreeU_V2": "a UNet",
    "HiDreamO1PatchSeamSmoothing": "HiDream",
    "HyperTile": "a UNet: its function does not take what FLUX hands it",
    "HypernetworkLoader": "a file, and a UNet",
    "LTXVReferenceAudio": "LTXV",
    "LatentApplyOperationCFG": "an operation",
    "LoraLoaderBypass": "a file",
    "LoraLoaderBypassModelOnly": "a file",
    "LoraModelLoader": "a LoRA",
    "ModelAdd": "two models",
    "ModelMergeBlocks": "two models",
    "ModelMergeSimple": "two models",
    "ModelNoiseScale": "another sampling than FLUX's",
    "ModelSamplingLTXV": "a latent of LTXV",
    "ModelSubtract": "two models",
    "PerpNeg": "an empty prompt",
    "QwenImageDiffsynthControlnet": "a model patch, and Qwen-Image",
    "SUPIRApply": "a model patch, and SDXL",
    "SelfAttentionGuidance": "a UNet: it reads the middle block's attention",
    "TomePatchModel": "a UNet: its function does not take what FLUX hands it",
    "TorchCompileModel": "tested in test_compile.py",
    "USOStyleReference": "a model patch of its own",
    "WanInfiniteTalkToVideo": "Wan",
    "WanUni3CControlnetApply": "a model patch, and Wan",
}


def runs_here(name):
    return name not in OTHERS


@cache  # asked for at every use of a node, and a reading takes a second
def found():
    """The classes, by name → the module that has them, read from the source: importing all would take long."""
    folder = Path(comfy_extras.__path__[0])
    return {
        node.name: path.stem
        for path in sorted(folder.glob("nodes_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and takes_and_returns_a_model(ast.unparse(node))
    }


def takes_and_returns_a_model(source):
    new = "o.Model.Input(" in source.replace("IO.", "io.") and "o.Model.Output(" in source.replace("IO.", "io.")
    return new or ("('MODEL',)" in source and "RETURN_TYPES = ('MODEL'" in source)


def applied(name, model):
    """The model with this node on it, of its defaults and of INPUTS."""
    cls = getattr(importlib.import_module(f"comfy_extras.{found()[name]}"), name)
    inputs = cls.INPUT_TYPES()
    given = {"model": model}
    for key, (kind, *options) in {**inputs.get("required", {}), **inputs.get("optional", {})}.items():
        if key != "model":
            options = options[0] if options else {}
            given[key] = options["default"] if "default" in options else default_of(key, kind, options)
    given |= INPUTS.get(name, {})
    out = getattr(cls(), cls.FUNCTION)(**given) if not hasattr(cls, "define_schema") else cls.execute(**given)
    return out[0] if isinstance(out, tuple) else out.args[0]


def default_of(key, kind, options):
    if isinstance(kind, list):
        return kind[0]
    if kind == "COMBO":
        return options["options"][0]
    raise LookupError(f"{key} is a {kind}")
