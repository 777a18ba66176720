"""Run a part of the laboratory: python lab/run.py demo

The repo is loaded by its path under a name of its own, as ComfyUI does; on sys.path our `nodes` would hide ComfyUI's.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Command: the module whose main runs it; its docstring says what it does.
COMMANDS = {
    "demo": "demo",
    "test_hosts": "test_hosts",
    "lab": "toy.shipping",
    "training": "toy.training",
    "models": "toy.models",
    "families": "toy.whole_families",
    "autoencoder": "toy.autoencoder",
    "evidence": "evidence.report",
    "choosing": "evidence.choosing",
    "evidence_job": "evidence.job",
    "obedience": "evidence.obedience",
    "calibrate": "evidence.calibration",
    "judge_cnn": "evidence.judge_cnn",
    "emoji_check": "evidence.emoji_check",
    "bench": "cost.bench",
    "family_cost": "cost.families",
    "sweeps": "cost.sweeps",
    "beside": "beside.command",
    "fuzz": "fuzz.report",
    "make_workflows": "make.workflows",
    "make_blueprint": "make.blueprint",
    "make_locales": "make.locales",
    "make_api_docs": "make.api_docs",
    "make_thumbnails": "make.thumbnails",
}


def load_pack() -> None:
    """Import this repo as the package `nag_pag_flux`."""
    where = [str(ROOT)]
    spec = importlib.util.spec_from_file_location(
        "nag_pag_flux", ROOT / "__init__.py", submodule_search_locations=where
    )
    assert spec and spec.loader
    sys.modules["nag_pag_flux"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main(arguments: list[str]) -> int:
    """Run a command; the exit status."""
    if not arguments or arguments[0] not in COMMANDS:
        given = f"{arguments[0]!r} is not a command; " if arguments else ""
        print(f"lab/run.py: {given}valid are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    load_pack()
    return importlib.import_module(f"nag_pag_flux.lab.{COMMANDS[arguments[0]]}").main(arguments[1:])


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules are `nag_pag_flux.lab.…`, once
    sys.exit(main(sys.argv[1:]))
