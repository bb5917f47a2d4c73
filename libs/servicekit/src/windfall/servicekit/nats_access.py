"""How a NATS server lets a client in: over TLS, by an nkey that says which service speaks, and with answers that come
where no other domain listens. No client of NATS is imported here: settings are read by whoever speaks to none.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windfall.servicekit.nats_tls import NatsTls


@dataclass(frozen=True)
class Access:
    """What one client shows to a server."""

    tls: NatsTls = field(default_factory=NatsTls)
    handshake_first: bool = False
    """TLS from the first byte, so that nobody on the way can talk the client out of it."""
    nkey: Path | None = None
    """File that holds the seed."""
    inbox: str = "_INBOX"
    """Prefix of the subjects on which answers come."""

    def of(self, service: str) -> "Access":
        """The same with answers that come where this service alone may listen."""
        return replace(self, inbox=f"{self.inbox}.{service}")

    def options(self, url: str) -> dict[str, Any]:
        """As :class:`~windfall.servicekit.nats_client.KeyClient` takes it.

        Raises:
            Mistake: a file cannot be used, or does not go with the URL.
        """
        made: dict[str, Any] = {"inbox_prefix": self.inbox}
        context = self.tls.context(url)
        if context is not None:
            made |= {"tls": context, "tls_handshake_first": self.handshake_first}
        if self.nkey is not None:
            # Imported here: without a key nobody needs it.
            from windfall.servicekit import nkey

            nkey.read(self.nkey)
            made["nkeys_seed"] = str(self.nkey)
        return made
