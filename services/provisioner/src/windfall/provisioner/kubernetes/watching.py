"""A node as it goes along: ready, in trouble, gone."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from windfall.provisioner.holdings import Node
from windfall.provisioner.kubernetes.access import Access
from windfall.provisioner.kubernetes.ending import Ending
from windfall.provisioner.kubernetes.held import HeldNodes
from windfall.provisioner.workers import Seen

log = logging.getLogger(__name__)


class Watching:
    """See the module."""

    def __init__(self, access: Access, held: HeldNodes, ending: Ending) -> None:
        self._access = access
        self._held = held
        self._ending = ending

    async def ready(self, node: Node) -> bool:
        async for seen in self._seeing(node):
            if seen.ready or seen.gone:
                return seen.ready
        return False

    async def troubles(self, node: Node) -> AsyncIterator[str]:
        last = ""
        async for seen in self._seeing(node):
            if seen.gone:
                return
            if seen.trouble != last:
                last = seen.trouble
                yield last

    async def wait(self, node: Node) -> int | None:
        held = self._held.get(node.lease_id)
        async for seen in self._seeing(node):
            assert held is not None
            if seen.gone:
                self._ending.clear(held)
                return held.end.exit_code if held.end else seen.exit_code
            if seen.broken and not held.killed:
                log.warning("%s: one worker has ended, so the others are", node.name)
                await self._ending.insist(node)
            elif held.killed and seen.comes_back:
                await self._ending.insist(node)
        return None

    async def _seeing(self, node: Node) -> AsyncIterator[Seen]:
        """The node as it is, and whenever it may be another; ends when it is not ours."""
        while (
            (held := self._held.get(node.lease_id))
            and held.clearing is None
            and (mirror := self._access.mirror) is not None
        ):
            version, seen = mirror.version, held.seen(mirror)
            yield seen
            try:
                async with asyncio.timeout(_until(seen.lost_at)):
                    # Whatever has changed since it was looked at is seen at once.
                    await mirror.changed(version)
            except TimeoutError:
                log.warning("%s: a machine is lost, and its pod is given up", node.name)
                await self._ending.insist(node)


def _until(at: datetime | None) -> float | None:
    return None if at is None else max(0.0, (at - datetime.now(UTC)).total_seconds())
