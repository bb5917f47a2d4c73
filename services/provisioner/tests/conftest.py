"""What several tests of leased machines stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from windfall.provisioner.testing.machine_ground import Ground, grounded
from windfall.servicekit.testing.kube_api import kube_api


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Bare ground once for each platform, and contract of its server, that the module names."""
    if "bare" in metafunc.fixturenames:
        metafunc.parametrize("bare", metafunc.module.PLATFORMS, ids="-".join, indirect=True)


@pytest.fixture
async def bare(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """On the double."""
    platform, version = request.param
    async with kube_api(tmp_path) as (api, kubeconfig), grounded(kubeconfig, platform, version) as ground:
        ground.api = api
        yield ground
