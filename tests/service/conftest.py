"""The live server's service."""

import pytest


@pytest.fixture(scope="session")
def service(server):
    from asking import Service

    return Service(server)
