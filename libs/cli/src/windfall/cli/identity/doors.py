"""The hub's doors go by the register: its NATS server lets the leaves of enrolled sites in, its coordinator no
certificate that was revoked."""

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

from windfall.cli.identity import tenants
from windfall.cli.identity.authority import put
from windfall.cli.identity.folders import ENROLMENT, NATS, HubFile, HubFolder
from windfall.cli.identity.register import Register
from windfall.contracts.subjects import HUB
from windfall.contracts.tenancy import DEFAULT
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.keyed_server import KeyedServer, LeafDoor, configuration
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.nats_rules import WARDEN_INBOX

log = logging.getLogger(__name__)

_ANSWER_S: Final = 5.0


def nats_server(folder: HubFolder, hub: HubFile, keys: Mapping[str, str], register: Register) -> KeyedServer:
    """The hub's NATS server.

    Args:
        keys: public nkeys of enrolment, the hub's services and people.
        register: whose sites and which tenants there are.
    """
    users = {name: key for name, key in keys.items() if name != ENROLMENT}
    guests = [tenants.tenant_of(register, name) for name in sorted(register.tenants)]
    loans = list(tenants.loans_of(register))
    leaves = tenants.leaves_of(register, DEFAULT)
    door = LeafDoor(f"{hub.listen}:{hub.leaf_port}", leaves, keys[ENROLMENT], guests, loans)
    return KeyedServer(HUB, hub.nats_port, folder.nats, users, folder.tls(NATS), door)


class Doors:
    """
    Args:
        folder: the hub's.
        hub: where its doors are.
        keys: public nkeys of enrolment, the hub's services and people.
        told: the process that is signalled when a site came or went.
    """

    def __init__(self, folder: HubFolder, hub: HubFile, keys: Mapping[str, str], told: int) -> None:
        self._folder, self._hub, self._keys, self._told = folder, hub, keys, told

    async def apply(self, register: Register) -> None:
        """Write what the doors go by, and have it read. Who is refused is refused first.

        Raises:
            Mistake: the NATS server does not take its configuration.
        """
        _replaced(self._folder.revoked, "".join(f"{serial}\n" for serial in sorted(register.revoked)), 0o644)
        server = nats_server(self._folder, self._hub, self._keys, register)
        before = _keys_in(server.config.read_text(encoding="utf-8")) if server.config.exists() else set()
        wanted = configuration(server)
        if _replaced(server.config, wanted, 0o600):
            await self._told_to_read(server, kick=bool(before - _keys_in(wanted)))
        sites = "".join(f"{site}\n" for site in tenants.leaves_of(register, DEFAULT))
        lends = "".join(f"{one}\n" for one in tenants.lends(register, DEFAULT))
        owners = json.dumps(tenants.owners_of(register, DEFAULT))
        told = {self._folder.sites: sites, self._folder.lends: lends, self._folder.owners: owners}
        if any([_replaced(path, text, 0o644) for path, text in told.items()]):
            os.kill(self._told, signal.SIGUSR1)

    async def read_again(self) -> None:
        """Have the NATS server read its files: whoever connects next is shown the certificate that lies there.

        Raises:
            Mistake: it does not.
        """
        await self._told_to_read(nats_server(self._folder, self._hub, self._keys, Register()), kick=False)

    async def _told_to_read(self, server: KeyedServer, *, kick: bool) -> None:
        """A server that does not run yet begins with what was written. One that does knows a leaf by its key when it
        connects, and not again: where one may not any more, to kick is to hang up on all of them, and those that still
        may are back within a second."""
        access = Access(nkey=self._folder.nkeys / f"{ENROLMENT}.nk", inbox=WARDEN_INBOX)
        try:
            # The client itself would knock for long.
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.close()
        except OSError:
            log.info("the NATS server does not run yet")
            return
        warden = await connected(
            server.url, access, max_reconnect_attempts=1, connect_timeout=_ANSWER_S, error_cb=_troubled
        )
        try:
            seen = await _asked(warden, "$SYS.REQ.SERVER.PING.LEAFZ")
            this = f"$SYS.REQ.SERVER.{seen['server']['id']}"
            await _asked(warden, f"{this}.RELOAD")
            if kick:
                for leaf in (await _asked(warden, "$SYS.REQ.SERVER.PING.LEAFZ"))["data"].get("leafs") or ():
                    await _asked(warden, f"{this}.KICK", {"cid": leaf["id"]})
        except (TimeoutError, nats.errors.Error) as error:
            raise Mistake(
                f"the NATS server does not read its configuration again ({type(error).__name__})",
                "See its log; what was decided holds, and counts once it was started again",
                ExitCode.SERVER,
            ) from error
        finally:
            await warden.close()


async def _asked(warden: Client, subject: str, about: Mapping[str, Any] | None = None) -> Any:
    answer = json.loads((await warden.request(subject, json.dumps(about or {}).encode(), timeout=_ANSWER_S)).data)
    if error := answer.get("error"):
        raise nats.errors.Error(str(error.get("description", error)))
    return answer


async def _troubled(error: Exception) -> None:
    log.debug("%s: %s", type(error).__name__, error)


def _keys_in(configuration: str) -> set[str]:
    return set(re.findall(r'"nkey": "(U\w+)"', configuration))


def _replaced(path: Path, text: str, mode: int) -> bool:
    """Write a file if it does not hold that; whether it did not."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    put(path, text.encode(), mode)
    return True
