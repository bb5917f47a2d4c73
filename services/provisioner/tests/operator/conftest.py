"""The operator's resources on the API servers that :mod:`windfall.servicekit.testing.kube_fixtures` gives."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.kube import Cluster, Connection, Exists
from windfall.servicekit.kube.kinds import NAMESPACE, SERVICE_ACCOUNT


@pytest.fixture
async def cluster(any_kubeconfig: Path) -> AsyncIterator[Cluster]:
    """Knows our resources."""
    async with Cluster.connect(Connection(any_kubeconfig)) as made:
        await install(made)
        yield made


@pytest.fixture
async def namespace(cluster: Cluster) -> AsyncIterator[str]:
    """Fresh, and with the service account that a server without controllers does not make."""
    name = f"test-{uuid4().hex[:8]}"
    await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    with suppress(Exists):
        await cluster.create(SERVICE_ACCOUNT, account)
    yield name
    await cluster.delete(NAMESPACE, name)
