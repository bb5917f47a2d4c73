"""What the operator asks for on the bus: a site that is deleted gives back what it holds."""

import logging
from datetime import datetime

from windfall.contracts.commands import ReleaseNode
from windfall.contracts.envelope import seal
from windfall.contracts.message import derived_id
from windfall.contracts.resources.fields import Metadata
from windfall.servicekit.bus import Bus
from windfall.servicekit.errors import Poison

log = logging.getLogger(__name__)


class Orders:
    """Without a bus nobody is asked, and the grace decides."""

    def __init__(self) -> None:
        self.bus: Bus | None = None
        self._asked: set[str] = set()

    async def release(self, site: Metadata, now: datetime) -> None:
        """Ask the site's provisioner to drain its node; once in this process, and once for the stream.

        Raises:
            Transient: the bus did not take it.
        """
        if self.bus is None or site.uid in self._asked:
            return
        id_ = derived_id(site.uid, ReleaseNode.topic, site.name)
        word = ReleaseNode(id=id_, at=now, site=site.name, reason="its Site is being deleted")
        try:
            await self.bus.publish(seal(word, "/windfall/operator"))
        except Poison as error:
            log.warning("site %s is not asked to drain: %s", site.name, error)
        self._asked.add(site.uid)
