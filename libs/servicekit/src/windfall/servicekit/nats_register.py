"""The lease's register in a JetStream key-value bucket of the hub.

The bucket is the stream ``KV_WINDFALL_LEASES``; a key is its last message, and its revision that message's sequence. A
write carries the revision that it expects, which the server compares. A watch is not used: after a server's restart it
may stay silent for long; the entry is read instead.
"""

import json
import logging
from datetime import timedelta
from typing import Final, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.kv import KeyValue

from windfall.contracts.subjects import LEASES_BUCKET
from windfall.servicekit.errors import Transient
from windfall.servicekit.leadership import Conflict, Entry, Lease
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected

log = logging.getLogger(__name__)

_TIMEOUT: Final = timedelta(seconds=1)
"""Of one request: a lease of three seconds leaves time for another one."""
_BUCKET_BYTES: Final = 1024 * 1024
_RECONNECT: Final = timedelta(milliseconds=250)


class NatsRegister:
    """See :class:`windfall.servicekit.leadership.Register`. It has a connection of its own."""

    def __init__(self, client: Client, key: str, replicas: int = 1) -> None:
        self._replicas = replicas
        self._client = client
        self._key = key
        self._jetstream: JetStreamContext = client.jetstream(timeout=_TIMEOUT.total_seconds())
        self._bucket: KeyValue | None = None

    @classmethod
    async def connected(cls, url: str, key: str, access: Access = Access(), replicas: int = 1) -> Self:
        """Return when the server has answered, however long that takes.

        Args:
            key: whose lease it is: dots, letters, digits and dashes.
            access: how the server lets us in.
            replicas: servers that keep a copy of the bucket.

        Raises:
            Mistake: a file that ``access`` names cannot be used.
        """
        client = await connected(
            url,
            access,
            name=f"lease of {key}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT.total_seconds(),
            connect_timeout=1,
            ping_interval=2,
            max_outstanding_pings=2,
            error_cb=_troubled,
        )
        return cls(client, key, replicas)

    async def read(self) -> Entry | None:
        try:
            found = await (await self._open()).get(self._key)
        except nats.js.errors.KeyNotFoundError:
            return None
        except (TimeoutError, nats.errors.Error) as error:
            raise self._passing(error) from error
        document = json.loads(found.value or b"{}")
        return Entry(Lease(str(document.get("holder", "")), int(document.get("token", 0))), int(found.revision or 0))

    async def write(self, lease: Lease, over: int | None) -> int:
        value = json.dumps({"holder": lease.holder, "token": lease.token}).encode()
        try:
            bucket = await self._open()
            if over is None:
                return int(await bucket.create(self._key, value))
            return int(await bucket.update(self._key, value, last=over))
        except nats.js.errors.KeyWrongLastSequenceError as error:
            raise Conflict(str(error)) from error
        except (TimeoutError, nats.errors.Error) as error:
            raise self._passing(error) from error

    async def close(self) -> None:
        await self._client.close()

    async def _open(self) -> KeyValue:
        if not self._client.is_connected:
            raise nats.errors.ConnectionReconnectingError
        if self._bucket is None:
            try:
                self._bucket = await self._jetstream.key_value(LEASES_BUCKET)
            except nats.js.errors.BucketNotFoundError:
                config = KeyValueConfig(
                    LEASES_BUCKET,
                    history=1,
                    max_bytes=_BUCKET_BYTES,
                    storage=StorageType.FILE,
                    replicas=self._replicas,
                )
                self._bucket = await self._jetstream.create_key_value(config)
        return self._bucket

    def _passing(self, error: Exception) -> Transient:
        # The bucket may be gone: look for it before the next attempt.
        self._bucket = None
        return Transient(f"{type(error).__name__} {error}".strip())


async def _troubled(error: Exception) -> None:
    log.debug("%s: %s", type(error).__name__, error)
