"""FastStream's broker on a client that knows nkeys."""

from typing import Any

from faststream.nats import NatsBroker, NatsSecurity
from nats.aio.client import Client

from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import KeyClient


class KeyBroker(NatsBroker):
    """
    Args:
        url: of the server.
        access: how it lets us in.
        options: as of FastStream's own.

    Raises:
        Mistake: a file that ``access`` names cannot be used, or does not go with the URL.
    """

    def __init__(self, url: str, access: Access, **options: Any) -> None:
        shown = access.options(url)
        security = None
        if "tls" in shown:
            security = NatsSecurity(ssl_context=shown["tls"], tls_handshake_first=shown["tls_handshake_first"])
        super().__init__(url, security=security, inbox_prefix=access.inbox, **options)
        self._key = {"nkeys_seed": shown["nkeys_seed"]} if "nkeys_seed" in shown else {}

    async def _connect(self) -> Client:
        client = KeyClient()
        await client.connect(**self._connection_kwargs, **self._key)
        self.config.connect(client)
        return client
