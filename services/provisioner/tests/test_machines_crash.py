"""The provisioner's machine loses its power before or right after any of its writes."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.testing.machine_ground import (
    Ground,
    lease,
    nothing_left,
)
from windfall.servicekit.kube import Cluster, Connection, Object

T = TypeVar("T")
PLATFORMS = [("cluster-api", "v1beta2"), ("k0rdent", "v1beta2")]
"""The backend, and the contract that its server speaks."""


class Power:
    """How many writes are left until the machine on which the provisioner runs loses its power."""

    def __init__(self, writes: int) -> None:
        self.left = writes
        self.gone = asyncio.Event()

    def use(self) -> None:
        if self.left == 0:
            self.gone.set()
            raise asyncio.CancelledError("power cut")
        self.left -= 1


class CutCluster(Cluster):
    """A client whose process dies before, or right after, one of its writes."""

    power = Power(-1)
    after = False

    async def apply(self, *args: Any, **options: Any) -> Object:
        return await self._write(super().apply(*args, **options))

    async def patch(self, *args: Any, **options: Any) -> Object:
        return await self._write(super().patch(*args, **options))

    async def delete(self, *args: Any, **options: Any) -> bool:
        return await self._write(super().delete(*args, **options))

    async def _write(self, written: Coroutine[Any, Any, T]) -> T:
        if self.after:
            done = await written
            self.power.use()
            return done
        try:
            self.power.use()
        except asyncio.CancelledError:
            written.close()
            raise
        return await written


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_write_leaves_nothing_behind(bare: Ground, after: bool) -> None:
    for writes in range(40):
        wanted = lease(writes + 1)
        node = Node.of(wanted)
        cut = CutCluster.connect(Connection(bare.kubeconfig))
        cut.power, cut.after = Power(writes), after
        await bare.backend.close()
        bare.backend = bare.make(cut)
        whole = await lived(bare, wanted, cut.power)
        await bare.restart()
        for adopted in await bare.backend.adopt():
            assert adopted == node
            await bare.backend.kill(adopted)
            await bare.backend.wait(adopted)
        if writes > 10 or whole:
            await nothing_left(bare)
        if whole:
            return
    pytest.fail("a life took more than 40 writes")


async def lived(ground: Ground, wanted: Lease, power: Power) -> bool:
    """Whether a lease was lived to its end; false when the power went before."""

    async def whole() -> None:
        node = await ground.backend.start(wanted, {})
        assert await ground.backend.ready(node)
        await ground.backend.drain(node)
        assert await ground.backend.wait(node) == 0

    life, dark = asyncio.create_task(whole()), asyncio.create_task(power.gone.wait())
    await asyncio.wait([life, dark], return_when=asyncio.FIRST_COMPLETED)
    # Whoever waits at that moment hears nothing any more.
    for one in (life, dark):
        one.cancel()
    await asyncio.wait([life, dark])
    if not life.cancelled():
        life.result()
    return not power.gone.is_set()
