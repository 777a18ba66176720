"""The small FLUX on which nodes are tried, fresh for each trial, and its sampling with what was said meanwhile."""

from __future__ import annotations

import asyncio
import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...nodes.diagnostics import NAGPAGInspect
from ...nodes.guidance import NAGPAGGuidanceAdvanced
from ..toy.small_models import make_flux
from .filling import CONTEXT_DIM, LATENT, VEC_DIM, prompt
from .packs import Node
from .ways import STEPS, WAYS

# All double blocks of FLUX.1, as packs count on them, and some of its single ones, in width 128.
DOUBLES, SINGLES = 19, 10


def make_small(folder: Path) -> Path:
    """Write the checkpoint into `folder`."""
    path = folder / "flux.safetensors"
    make_flux(path, double_blocks=DOUBLES, single_blocks=SINGLES, context_dim=CONTEXT_DIM, vec_dim=VEC_DIM)
    return path


def load(checkpoint: Path) -> Any:
    """The model as the stock loader gives it."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(checkpoint), model_options={"dtype": torch.float32})


def fresh(loaded: Any) -> Any:
    """As just loaded, sharing nothing with earlier ones: some nodes change the model in place."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    config = loaded.model.model_config  # only said, never changed; the host's can't be copied
    return type(loaded)(copy.deepcopy(loaded.model, {id(config): config}), loaded.load_device, loaded.offload_device)


def sample(model: Any, cfg: float) -> Tensor:
    """Euler's method; with cfg 2 what acts on cfg acts, and positive and negative share a batch."""
    import comfy.sample

    start = torch.zeros(LATENT)
    noise = comfy.sample.prepare_noise(start, 7)
    with torch.inference_mode():  # as the host runs a graph
        return comfy.sample.sample(
            model, noise, STEPS, cfg, "euler", "simple", prompt(1), prompt(99), start, disable_pbar=True, seed=7
        )


def ours(model: Any, way: str, **inputs: Any) -> Any:
    """NAG-PAG Guidance (Advanced) on a model."""
    return NAGPAGGuidanceAdvanced.execute(model=model, **{**WAYS[way].inputs, **inputs}).args[0]


def inspected(model: Any) -> str:
    """What NAG-PAG Inspect Model says."""
    return NAGPAGInspect.execute(model=model).args[1]


def theirs(model: Any, node: Node, inputs: dict[str, Any]) -> Any:
    """Their node on a model, called as the host calls it."""
    import execution

    given = {**inputs, **dict.fromkeys(node.models, model)}
    data, _, v3_data = execution.get_input_data(given, node.cls, "1")
    v3 = issubclass(node.cls, execution._ComfyNodeInternal)
    called = execution._async_map_node_over_list(
        "beside", "1", node.cls if v3 else node.cls(), data, node.cls.FUNCTION, v3_data=v3_data
    )
    with torch.inference_mode():
        (out,) = asyncio.run(called)
    if isinstance(out, dict):
        out = out["result"]
    return (out.args if hasattr(out, "args") else out)[node.place]


class Said(logging.Handler):
    """What our pack says in the log, while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def __enter__(self) -> Said:
        log = logging.getLogger("nag_pag_flux")
        log.setLevel(logging.INFO)
        log.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger("nag_pag_flux").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))
