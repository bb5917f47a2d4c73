"""Keeps a hub's own certificates from ending: they are made anew long before, and nothing restarts for it. gRPC looks
at its files at each connection; the NATS server is asked to read its own.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from windfall.cli.identity.folders import COORDINATOR, ENROLMENT, NATS, HubFile, HubFolder
from windfall.cli.identity.keeping import AGAIN, AT_LEAST, certificate, due
from windfall.cli.keys import Place, issued
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Mistake

log = logging.getLogger(__name__)

SERVED: Final = (NATS, COORDINATOR, ENROLMENT)
"""Who at a hub shows a certificate."""


def places(hub: HubFile) -> list[Place]:
    """They, and the names by which sites reach them."""
    return [Place(service, (hub.host, hub.listen)) for service in SERVED]


async def keep(
    folder: HubFolder, hub: HubFile, lasts: timedelta, clock: Clock, read_again: Callable[[], Awaitable[None]]
) -> None:
    """Make anew whatever is due, for ever.

    Args:
        lasts: how long each is good for.
        read_again: has the NATS server read its files. Raises ``Mistake``.

    Raises:
        Mistake: a certificate that lies there cannot be read.
    """
    unread = False
    while True:
        held = [certificate(folder.tls(service)) for service in SERVED]
        await clock.sleep(AGAIN if unread else max(AT_LEAST, min(map(due, held)) - clock.now()))
        before = certificate(folder.tls(NATS)).serial_number
        try:
            for line in issued(folder.keys, places(hub), lasts, clock.now()):
                log.info("%s", line)
            if unread or certificate(folder.tls(NATS)).serial_number != before:
                unread = True
                await read_again()
                unread = False
        except (Mistake, OSError) as error:
            log.warning("the hub's certificates are not renewed yet: %s", error)
            unread = True
