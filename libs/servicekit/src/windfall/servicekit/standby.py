"""One process at a time in a service's folder: the others stand by for it, or are told so and end.

Without a lease a lock on the folder keeps a second process out. With one, any number of processes may be pointed at the
same folder; each waits with everything imported and nothing open until it leads.
"""

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.leadership import Leadership
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_register import NatsRegister

log = logging.getLogger(__name__)


class StandbySettings(BaseModel):
    """A service of which a second process may stand by."""

    standby: bool = False
    """Work only while holding the lease, and stand by while another process does. Say so to every process of this
    service, and give all of them the same ``WINDFALL_STATE_DIR``."""
    lease: timedelta = Field(default=timedelta(seconds=3), ge=timedelta(milliseconds=500))
    """Wall time after which a leader that is not heard of is taken over from."""


@asynccontextmanager
async def turn(
    settings: StandbySettings,
    url: str,
    folder: Path,
    key: str,
    standing_by: Callable[[str], None],
    access: Access = Access(),
    replicas: int = 1,
) -> AsyncIterator[Leadership | None]:
    """Enter when it is this process's turn to work in the folder: with a lease that must be kept, or none that need be.

    Args:
        url: NATS server of the domain that keeps the lease.
        key: whose lease it is.
        standing_by: told who leads while it is another's turn.
        access: how that server lets us in.
        replicas: servers of the domain that keep a copy of the lease.

    Raises:
        Mistake: the folder is another process's, which knows no lease.
    """
    with _locked(folder, shared=settings.standby):
        if not settings.standby:
            yield None
            return
        register = await NatsRegister.connected(url, key, access, replicas)
        holder = f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"
        try:
            leadership = Leadership(register, holder, settings.lease)
            token = await leadership.lead(standing_by)
            log.info("leads under token %d", token)
            try:
                yield leadership
            finally:
                await leadership.release()
        finally:
            await register.close()


@contextmanager
def _locked(folder: Path, shared: bool) -> Iterator[None]:
    """Hold the folder: for this process alone, or beside others that go by the same lease."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise Mistake(
            f"cannot write the folder {folder} ({error.strerror})",
            "Set WINDFALL_STATE_DIR to a folder that this user may write",
            ExitCode.RESOURCE,
        ) from error
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            raise Mistake(
                f"another process works in {folder}",
                "Stop it, or set WINDFALL_STANDBY=true for both of them",
                ExitCode.RESOURCE,
            ) from error
        yield
    finally:
        os.close(descriptor)


async def before(awaited: asyncio.Task[Any], stopping: asyncio.Event) -> bool:
    """Wait for a task, but not past the end of the service; whether it is done."""
    stopped = asyncio.get_running_loop().create_task(stopping.wait())
    await asyncio.wait([awaited, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not awaited.done():
        awaited.cancel()
        await asyncio.wait([awaited])
        return False
    return True
