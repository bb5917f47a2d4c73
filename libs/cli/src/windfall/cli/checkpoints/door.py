"""The coordinator's gRPC door as a person's command meets it: where it is, with which keys, and what it may refuse."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from windfall.contracts.v1.checkpoints_pb2_grpc import CheckpointsStub
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.rpc import Refused, connect, translated
from windfall.servicekit.settings import NatsSettings, TlsSettings, load
from windfall.servicekit.tls import Tls, is_loopback

if TYPE_CHECKING:
    from windfall.contracts.v1.checkpoints_pb2_grpc import CheckpointsAsyncStub

NONE: Final = "Give it with --coordinator HOST:PORT, WINDFALL_COORDINATOR or `windfall context set NAME --coordinator`"
_KEYS: Final = "Give --tls-authority, --tls-certificate and --tls-key to `windfall context set`, or WINDFALL_TLS_…"
_AGAIN: Final = f"See that it runs, and that this is its address and these its keys. {NONE}"


class HandsOutNone(Mistake):
    """The coordinator is there, and is one that has no models to hand out."""


@asynccontextmanager
async def opened(target: str) -> "AsyncIterator[tuple[grpc.aio.Channel, CheckpointsAsyncStub]]":
    """A channel to ``host:port``, or several with commas between, and the service on it.

    Raises:
        Mistake: there is no address, or it lies beyond loopback and nothing says with which keys.
    """
    if not target:
        raise Mistake("nobody said where the coordinator is", NONE)
    addresses = [part.strip() for part in target.split(",") if part.strip()]
    if wrong := [one for one in addresses if not one.rpartition(":")[0] or not one.rpartition(":")[2].isdigit()]:
        raise Mistake(f"{wrong[0]!r} is no address of a coordinator", "Write HOST:PORT")
    tls = keys(os.environ)
    if tls is None and not all(map(is_loopback, addresses)):
        raise Mistake(f"{target} is not on this machine, and a model does not travel without TLS", _KEYS)
    channel = connect(target, tls)
    try:
        yield channel, CheckpointsStub(channel)
    finally:
        await channel.close()


def keys(environ: Mapping[str, str]) -> Tls | None:
    """Those for gRPC, or else those for NATS, which one authority of a fleet may have signed as well; none where there
    is no whole set.

    Raises:
        Mistake: a part of them is missing.
    """
    told = load(TlsSettings, environ).tls
    if told is not None:
        return told
    nats = load(NatsSettings, environ)
    if nats.nats_authority is None or nats.nats_certificate is None or nats.nats_key is None:
        return None
    return Tls(Path(nats.nats_certificate), Path(nats.nats_key), Path(nats.nats_authority))


@contextmanager
def explained(target: str) -> Iterator[None]:
    """Turn what the coordinator refuses into what a person can mend.

    Raises:
        Transient: it is away.
        Mistake: it says no.
    """
    try:
        with translated(f"the coordinator at {target}"):
            yield
    except Refused as refused:
        kind = HandsOutNone if refused.code is grpc.StatusCode.UNIMPLEMENTED else Mistake
        raise kind(*_refusal(refused), ExitCode.SERVER) from refused


def away(target: str, passing: Transient) -> Mistake:
    """It cannot be reached."""
    detail = str(passing).removeprefix(f"the coordinator at {target}: ")
    return Mistake(f"no coordinator answers at {target} ({detail})", _AGAIN, ExitCode.SERVER)


def _refusal(refused: Refused) -> tuple[str, str]:
    match refused.code:
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                f"{refused}: it hands out no models",
                "Run a coordinator of this version; one of a Flower app has none",
            )
        case grpc.StatusCode.NOT_FOUND:
            return str(refused), "See what there is with `windfall checkpoint list`"
        case _:
            return str(refused), "Show it a certificate of an operator, or of a site that trains there"
