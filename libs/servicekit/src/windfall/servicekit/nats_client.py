"""A client of NATS that knows nkeys."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from windfall.servicekit.nats_access import Access


class KeyClient(Client):
    """It signs with cryptography. nats-py alone would take the package nkeys for it, which is no wheel and brings a
    second library of ciphers."""

    def _setup_nkeys_seed_connect(self) -> None:
        # Imported here: without a key nobody needs it.
        from windfall.servicekit import nkey

        # Read again for each nonce: a seed that was replaced counts from the next connection on.
        seed = Path(str(self._nkeys_seed))
        self._public_nkey = nkey.read(seed).public
        self._signature_cb = lambda nonce: b64encode(nkey.read(seed).sign(nonce.encode()))


async def connected(url: str, access: Access, **options: Any) -> Client:
    """A client that has connected, with ``nats.connect``'s options.

    Raises:
        Mistake: a file that ``access`` names cannot be used, or does not go with the URL.
        nats.errors.Error: nobody lets us in.
    """
    client = KeyClient()
    await client.connect(url, **options, **access.options(url))
    return client
