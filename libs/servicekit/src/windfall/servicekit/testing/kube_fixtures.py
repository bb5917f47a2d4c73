"""Pytest fixtures over Kubernetes: the double, which is always there, and a real API server where one is found.

A real one is what ``KUBECONFIG`` names, else what ``../shared/kube/kube-up`` beside the checkout starts, once per
session and not before a test asks for it. Tests make namespaces of their own in it, and definitions of the group
``conformance.windfall.dev``.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from windfall.servicekit.kube import Cluster, Connection
from windfall.servicekit.kube.kinds import NAMESPACE, SERVICE_ACCOUNT
from windfall.servicekit.testing.kube_api import KubeApi, kube_api
from windfall.servicekit.testing.kube_examples import ApiServer, Space

_STARTER: Final = Path("..", "shared", "kube", "kube-up")
_NONE: Final = f"KUBECONFIG names no API server, and there is no {_STARTER} beside the checkout"
_PORTS: Final = f"another control plane on this machine holds the ports of those controllers that {_STARTER} starts"
_CONTROLLERS_S: Final = 15
_USED: Final = pytest.StashKey[str]()


def _named() -> Path | None:
    named = os.environ.get("KUBECONFIG", "")
    return Path(named) if named and Path(named).is_file() else None


def _starter(config: pytest.Config) -> Path | None:
    starter = config.rootpath / _STARTER
    return starter if starter.exists() else None


@pytest.fixture(scope="session")
def real_kubeconfig(pytestconfig: pytest.Config) -> Iterator[Path]:
    """Of a real API server. Skips where there is none."""
    if (named := _named()) is not None:
        yield named
        return
    if (starter := _starter(pytestconfig)) is None:
        pytest.skip(_NONE)
    process = subprocess.Popen([starter], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "KUBECONFIG=" not in line:
            pytest.fail(f"{_STARTER} did not start a control plane")
        kubeconfig = Path(line.strip().partition("=")[2])
        # In a thread: whoever asks for this fixture may do so inside a loop.
        with ThreadPoolExecutor(1) as aside:
            controlled = aside.submit(lambda: asyncio.run(_has_controllers(kubeconfig))).result()
        if not controlled:
            pytestconfig.stash[_USED] = f"the double alone; {_PORTS}"
            pytest.skip(_PORTS)
        yield kubeconfig
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def _has_controllers(kubeconfig: Path) -> bool:
    """Whether somebody makes the account that every namespace gets."""
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        try:
            async with asyncio.timeout(_CONTROLLERS_S):
                async for change in cluster.follow(SERVICE_ACCOUNT, "default"):
                    if change.verb == "present":
                        return True
        except TimeoutError:
            pass
    return False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whoever wants an API server is tested on the double, and on a real one where there is one."""
    if "api_server" in metafunc.fixturenames:
        servers = ["double"]
        if _named() or _starter(metafunc.config):
            servers.append("real")
        metafunc.config.stash[_USED] = _used(metafunc.config)
        metafunc.parametrize("api_server", servers, indirect=True)


def _used(config: pytest.Config) -> str:
    if (named := _named()) is not None:
        return f"the double, and the API server that KUBECONFIG names ({named})"
    if _starter(config) is not None:
        return f"the double, and a real API server that {_STARTER} starts"
    return f"the double alone; {_NONE}"


@pytest.fixture
async def kube_double(tmp_path: Path) -> AsyncIterator[KubeApi]:
    """An API server of the test's own, with its switches. Its kubeconfig lies in ``tmp_path``."""
    async with kube_api(tmp_path) as (api, _):
        yield api


@pytest.fixture
def kubeconfig(kube_double: KubeApi, tmp_path: Path) -> Path:
    """Of the double."""
    return tmp_path / "kubeconfig"


@pytest.fixture
async def api_server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApiServer]:
    """The double, and then a real one."""
    if request.param == "real":
        yield ApiServer(request.getfixturevalue("real_kubeconfig"), None)
        return
    async with kube_api(tmp_path) as (api, path):
        yield ApiServer(path, api)


@pytest.fixture
def any_kubeconfig(api_server: ApiServer) -> Path:
    """Of the double, and then of a real API server."""
    return api_server.kubeconfig


@pytest.fixture
def best_kubeconfig(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Path:
    """Of a real API server where there is one, else of the double: for what is too heavy to be done twice."""
    pytestconfig.stash[_USED] = _used(pytestconfig)
    real = _named() is not None or _starter(pytestconfig) is not None
    found: Path = request.getfixturevalue("real_kubeconfig" if real else "kubeconfig")
    return found


@pytest.fixture
async def space(api_server: ApiServer) -> AsyncIterator[Space]:
    """A namespace on the double, and then on a real API server. It is deleted afterwards."""
    async with Cluster.connect(Connection(api_server.kubeconfig)) as cluster:
        name = f"test-{uuid4().hex[:10]}"
        await cluster.create(NAMESPACE, {"metadata": {"name": name}})
        yield Space(cluster, name, api_server)
        await cluster.delete(NAMESPACE, name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which API server the tests used. A header would not be seen under ``-q``."""
    if used := config.stash.get(_USED, ""):
        terminalreporter.write_line(f"Kubernetes: {used}.")
