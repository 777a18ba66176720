"""Make this process a ComfyUI, for what runs the host's own code without its server."""

from __future__ import annotations

import os
import sys


def enter_host(gpu: bool = False) -> None:
    """Put the host's modules within reach. They read the command line when they are imported, so it is hidden first.

    gpu: on the GPU, where models then stay for good; else on the CPU.
    """
    if "comfy" in sys.modules:
        return
    sys.argv = sys.argv[:1]
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    from comfy.cli_args import args

    args.cpu, args.highvram = not gpu, gpu
