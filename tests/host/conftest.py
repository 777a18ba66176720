"""A real ComfyUI in this process, and small FLUX models that its stock loader takes."""

import importlib
import importlib.util
import logging

import pytest
from nag_pag_flux.lab.in_host import enter_host

enter_host()
logging.getLogger().setLevel(logging.INFO)


def _checkpoint(folder, double_blocks, single_blocks):
    from nag_pag_flux.lab.toy.small_models import make_flux

    path = folder / "flux.safetensors"
    make_flux(path, 256, double_blocks, single_blocks, context_dim=64, vec_dim=32)
    return str(path)


@pytest.fixture(scope="session")
def flux_file(tmp_path_factory):
    """The checkpoint of a FLUX with 4 double and 2 single blocks, 2 heads."""
    return _checkpoint(tmp_path_factory.mktemp("models"), 4, 2)


@pytest.fixture(scope="session")
def flux(flux_file):
    """That FLUX as the stock loader gives it, in float32."""
    from sampling import load_flux

    return load_flux(flux_file)


@pytest.fixture(scope="session")
def shallow_file(tmp_path_factory):
    """The checkpoint of a FLUX with 2 double blocks and 1 single, 2 heads, for what takes long with many blocks."""
    return _checkpoint(tmp_path_factory.mktemp("shallow"), 2, 1)


@pytest.fixture(scope="session")
def shallow(shallow_file):
    """That FLUX as the stock loader gives it, in float32."""
    from sampling import load_flux

    return load_flux(shallow_file)


@pytest.fixture(scope="module")
def flux64(flux_file):
    """The small FLUX in float64, so that two ways of summing agree to many digits.

    The host's RoPE kernel takes no float64; its own plain form, used for training, does.
    """
    import comfy.ldm.flux.math as flux_math
    import torch
    from sampling import load_flux

    with pytest.MonkeyPatch.context() as patched:
        plain = flux_math._apply_rope1
        patched.setattr(flux_math, "apply_rope", lambda q, k, pe: (plain(q, pe), plain(k, pe)))
        yield load_flux(flux_file, torch.float64)


@pytest.fixture(scope="session")
def vae():
    """The small autoencoder of FLUX.1's latents, as the stock loader gives it."""
    import folder_paths
    from nag_pag_flux.lab.toy.small_models import ensure_models

    from nodes import VAELoader

    folder_paths.add_model_folder_path("vae_approx", str(ensure_models() / "vae_approx"))
    return VAELoader().load_vae("taef1")[0]


@pytest.fixture
def sampled(monkeypatch):
    """The seed and the model of every sampling that is begun."""
    from sampling import recorded

    return recorded(monkeypatch)


@pytest.fixture
def hear(monkeypatch):
    """Have a function called with every step of the host's progress bar, also with those that it would leave out."""
    import comfy.utils

    for name in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        monkeypatch.setattr(comfy.utils, name, 0)
    return lambda hook: monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)


@pytest.fixture
def interrupt_at(hear):
    """Interrupt the host once, as its own button does, at a step of its progress bar; what the bar says, as it does."""
    import comfy.model_management

    def begin(step: int) -> list[tuple[int, int]]:
        shown, at = [], [step]

        def hook(value, total, preview, node_id=None):
            shown.append((value, total))
            if value in at:
                at.clear()
                comfy.model_management.interrupt_current_processing()

        hear(hook)
        return shown

    return begin


def _lacking() -> dict[str, str]:
    """Tests of what an older host does not have, by file, and what that is."""
    needed = {
        "test_caches.py": ("nodes_flux", "FluxKVCache"),
        "test_bernini.py": ("nodes_bernini", "BerniniConditioning"),
    }
    return {file: node for file, (module, node) in needed.items() if not _has(f"comfy_extras.{module}", node)}


def _has(module: str, node: str) -> bool:
    return importlib.util.find_spec(module) is not None and hasattr(importlib.import_module(module), node)


# Said, and not skipped: `make test` runs the newest host, which has it all.
for _file, _node in _lacking().items():
    print(f"\ntests/host/{_file}: not for this ComfyUI, which has no {_node}")
collect_ignore = list(_lacking())
