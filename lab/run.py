"""Run a part of the laboratory: python lab/run.py demo

The repo is loaded by its path under a name of its own, as ComfyUI does; on sys.path our `nodes` would hide ComfyUI's.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load_pack() -> None:
    """Import this repo as the package `nag_pag_flux`."""
    where = [str(ROOT)]
    spec = importlib.util.spec_from_file_location(
        "nag_pag_flux", ROOT / "__init__.py", submodule_search_locations=where
    )
    assert spec and spec.loader
    sys.modules["nag_pag_flux"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    load_pack()
    sys.path.pop(0)  # this folder: its modules are `nag_pag_flux.lab.…`, once
    sys.exit(importlib.import_module(f"nag_pag_flux.lab.{sys.argv[1]}").main(sys.argv[2:]))
