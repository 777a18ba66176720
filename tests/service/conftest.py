"""The live server's service, and the command line that asks it."""

import os
import subprocess

import pytest


@pytest.fixture(scope="session")
def service(server):
    from asking import Service

    return Service(server)


@pytest.fixture
def nagpag(service):
    """Run a command against the live server."""
    from asking import command
    from nag_pag_flux.lab import host

    def run(*words, **env):
        env = {**os.environ, "NAGPAG_SERVER": service.url, **env}
        return subprocess.run(command(*words), cwd=host.REPO, env=env, capture_output=True, text=True, timeout=180)

    return run
