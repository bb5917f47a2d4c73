"""Another machine, as far as a network knows: a network namespace whose only link leads to this one.

Whatever runs there shares neither loopback nor ports with what runs here. It takes root, and ``ip`` of iproute2.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

_NET: Final = "198.18"
"""For tests of networks (RFC 2544): no real one has these addresses."""
_NAME: Final = "windfall"


class NoNamespace(Exception):
    """There is no such machine to be had here; why, in one line."""


@dataclass(frozen=True)
class Machine:
    """
    Args:
        namespace: of the network.
        device: this end of the link.
        here: our address on it.
    """

    namespace: str
    device: str
    here: str

    @property
    def command(self) -> tuple[str, ...]:
        """What goes before a command that is to run there."""
        return ("ip", "netns", "exec", self.namespace)

    async def cut(self) -> None:
        """Nothing passes any more, and nobody is told: what is sent is lost."""
        await _ip("-n", self.namespace, "link", "set", "there", "down")

    async def mend(self) -> None:
        """Everything passes again."""
        await _ip("-n", self.namespace, "link", "set", "there", "up")


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    """One, until the block ends.

    Raises:
        NoNamespace: the system or the user's rights do not allow it.
    """
    if shutil.which("ip") is None:
        raise NoNamespace("ip (iproute2) is not installed")
    number = os.getpid() % 2**14
    high, low = divmod(4 * number, 256)
    made = Machine(f"{_NAME}-{number}", f"wf{number}", f"{_NET}.{high}.{low + 1}")
    there = f"{_NET}.{high}.{low + 2}/30"
    await _ip("netns", "add", made.namespace)
    try:
        await _ip("link", "add", made.device, "type", "veth", "peer", "name", "there", "netns", made.namespace)
        await _ip("addr", "add", f"{made.here}/30", "dev", made.device)
        await _ip("link", "set", made.device, "up")
        await _ip("-n", made.namespace, "addr", "add", there, "dev", "there")
        await _ip("-n", made.namespace, "link", "set", "lo", "up")
        await made.mend()
        yield made
    finally:
        # Both ends of the link go with it.
        await _ip("netns", "del", made.namespace)


async def _ip(*words: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *words, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    if process.returncode:
        raise NoNamespace(f"ip {' '.join(words)}: {error.decode().strip()}")
