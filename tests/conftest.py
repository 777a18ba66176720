"""Fixtures for all tests: the pack loaded as the host loads it, the live server, the browser."""

import gc
import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]


def _load_pack():
    """Import the repo by its path under a name of its own, as ComfyUI does.

    Putting the repo on sys.path instead would hide the host's own `nodes` module behind our folder.
    """
    spec = importlib.util.spec_from_file_location(
        "nag_pag_flux", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["nag_pag_flux"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


_load_pack()

# A machine that stalls for a second makes no test fail; what is slow for good, its own time limit ends.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_finish():
    """What is imported stays: a look for garbage among it takes 0.3 seconds, every second while a model is compiled."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server():
    """A real ComfyUI server with this pack and the small models; `server.url`."""
    from nag_pag_flux.lab.server import running_server

    with running_server(families=True) as server:
        yield server


@pytest.fixture(scope="session")
def chromium_path():
    from nag_pag_flux.lab.host import find_chromium

    return find_chromium()
