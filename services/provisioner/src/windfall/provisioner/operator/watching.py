"""kopf watches; whatever it sees goes into the store, and whom that concerns into the queue.

Nothing but ``on.event`` is used: it is level-triggered and writes nothing on anybody's objects. What kopf would keep in
annotations the status says, and its finalizer is the operator's own.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import kopf

from windfall.provisioner.operator.marks import FEDERATION, SELECTOR, SITE
from windfall.servicekit.kube import Connection, Kind, Object
from windfall.servicekit.kube.connection import Access

Seen = Callable[[Kind, Object, bool], None]
"""Told the kind, the object and whether it is gone."""
Listed = Callable[[], None]
"""Told that kopf lists anew what there is, and not what has gone since it was last told."""

_BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0, 3.0)


class _ForEver(Iterable[float]):
    """An API server that is away comes back; nobody is helped by an operator that ends before."""

    def __iter__(self) -> Iterator[float]:
        yield from _BACK_OFF_S
        while True:
            yield _BACK_OFF_S[-1]


def registry(kinds: Iterable[Kind], connection: Connection, seen: Seen, listed: Listed) -> kopf.OperatorRegistry:
    """The handlers: one for each kind, and one that logs in."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made, errors=kopf.ErrorsMode.TEMPORARY, backoff=1)  # type: ignore[arg-type,untyped-decorator,unused-ignore]
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await credentials(connection)

    for kind in kinds:
        _hear(made, kind, seen, listed)
    return made


def _hear(made: kopf.OperatorRegistry, kind: Kind, seen: Seen, listed: Listed) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=made, id=f"saw-{kind.plural}")  # type: ignore[arg-type,untyped-decorator,unused-ignore]
    async def saw(event: Any, **_: Any) -> None:
        found = {"apiVersion": kind.api_version, "kind": kind.kind, **event["object"]}
        seen(kind, found, event["type"] == "DELETED")
        if event["type"] is None:
            listed()


def settings(kinds: Iterable[Kind]) -> kopf.OperatorSettings:
    made = kopf.OperatorSettings()
    made.scanning.disabled = True
    made.posting.enabled = False
    made.networking.error_backoffs = _ForEver()
    made.networking.request_timeout = 30
    made.networking.enforce_retry_after = True
    made.watching.server_timeout = 300
    made.watching.connect_timeout = 10
    made.watching.chunk_size = 500
    made.queueing.idle_timeout = 0.2
    made.process.ultimate_exiting_timeout = None
    for kind in kinds:
        if kind not in (SITE, FEDERATION):
            # The server sends what the operator made and nothing else of the namespace.
            made.watching.label_selectors[kind.group, kind.version, kind.plural] = SELECTOR
    return made


class _Ends(logging.Handler):
    """A watch that is refused (403, a server that answers in a way that kopf does not know) ends for good, with one
    line in the log of whoever began it; kopf itself goes on without it and would never hear of that kind again."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told(record.getMessage())


@contextmanager
def hearing_of_ends(told: Callable[[str], None]) -> Iterator[None]:
    """Within the block, be told of each watch that kopf has given up."""
    said, ends = logging.getLogger("kopf._core.reactor.orchestration"), _Ends(told)
    said.addHandler(ends)
    try:
        yield
    finally:
        said.removeHandler(ends)


async def credentials(connection: Connection) -> kopf.ConnectionInfo:
    """As the rest of the operator is known to the server; read anew each time that kopf asks."""
    access = Access(connection)
    try:
        configuration = (await access.client()).configuration
        auth: dict[str, dict[str, str]] = await configuration.auth_settings()
        said = next((one["value"] for one in auth.values()), "")
        scheme, _, token = said.partition(" ")
    finally:
        await access.close()
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        trust_env=False,
    )
