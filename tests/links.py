"""Sites that are no more than their links: they join, hear, push and leave, and insist until they are heard."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

import grpc
import grpc.aio
import nats
import nats.errors
import nats.js.errors
import torch
from nats.aio.client import Client

from windfall.contracts.commands import StopFederation
from windfall.contracts.envelope import Letter, seal, unseal
from windfall.contracts.events import FederationFinished
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator.checks import described
from windfall.lowcomm.layout import layout_of_model
from windfall.lowcomm.rotation import Rotation
from windfall.lowcomm.rule import Rule
from windfall.servicekit.rpc import connect
from windfall.tasks.registry import load_task

T = TypeVar("T")

SETTINGS: Final = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}'
RULE: Final = Rule.parse("int4-block", "nesterov:lr=0.7,momentum=0.9")
LAYOUT: Final = layout_of_model(load_task("gpt-neox", SETTINGS).model(seed=11))
FRAGMENTS: Final = 2
"""Into which the model is cut where rounds synchronise one each."""
TOKENS: Final = {"site-a": 300, "site-b": 100}
ROUNDS: Final = 2
SECONDS: Final = 180.0
_FRAME: Final = 1024
_AGAIN_S: Final = 0.05
_PASSING: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}


def environ(name: str, nats_url: str, folder: Path, port: int) -> dict[str, str]:
    """Of a coordinator for these sites."""
    return {
        "WINDFALL_NATS_URL": nats_url,
        "WINDFALL_STATE_DIR": str(folder),
        "WINDFALL_LISTEN": f"127.0.0.1:{port}",
        "WINDFALL_FEDERATION": name,
        "WINDFALL_SITES": ",".join(TOKENS),
        "WINDFALL_TASK_SETTINGS": SETTINGS,
        "WINDFALL_SEED": "11",
        "WINDFALL_CODEC": RULE.settings[0],
        "WINDFALL_OUTER": RULE.settings[1],
        "WINDFALL_SILENCE": "600",
    }


def contribution(site: str, number: int, fragments: int = 1) -> bytes:
    seed, turns = 10 * number + sorted(TOKENS).index(site), Rotation(LAYOUT.split, fragments)
    gradient = torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))[turns.part(number)]
    split = turns.split(number)
    return RULE.encode(RULE.codec.init(split.trained), gradient, split, base=number, tokens=TOKENS[site], steps=1)[1]


@dataclass
class Links:
    """All sites of one federation.

    Args:
        target: of the coordinator, or of those that stand by for each other.
        nats_url: of the hub.
        alive: sees to it that a coordinator runs, and gives what is done when it ends.
        time_boxed: rounds end by time, and that is waited for.
        fragments: of the model, of which each round synchronises one.
    """

    name: str
    target: str
    nats_url: str
    alive: Callable[[], Awaitable["asyncio.Future[int]"]]
    time_boxed: bool = False
    fragments: int = 1
    rounds: int = ROUNDS
    attempts: dict[str, int] = field(default_factory=dict)

    async def insist(self, call: Callable[[Any], Awaitable[T]]) -> T:
        """Make a call until somebody answers it."""
        async with asyncio.timeout(SECONDS):
            while True:
                ended = await self.alive()
                channel = connect(self.target)
                ready = asyncio.ensure_future(channel.channel_ready())
                try:
                    both: set[asyncio.Future[Any]] = {ready, ended}
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    if ready.done():
                        return await call(cast(Any, TrainingStub)(channel))
                except grpc.aio.AioRpcError as error:
                    assert error.code() in _PASSING, error.details()
                    # It says UNAVAILABLE when it dies, and then it is dead in a moment.
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        await asyncio.wait({ended}, timeout=1.0)
                finally:
                    ready.cancel()
                    await channel.close()

    async def join(self, site: str) -> None:
        request = pb.JoinRequest(
            federation=self.name,
            site=site,
            window_id=str(uuid4()),
            lease_token=1,
            protocol=1,
            fragments=self.fragments > 1,
        )
        self.attempts[site] = (await self.insist(lambda stub: stub.Join(request))).attempt

    async def over(self, site: str, number: int) -> str:
        """Wait for a round, or for its end where time ends it, and give the digest of its base."""

        async def told(stub: Any) -> str:
            async def beats() -> AsyncIterator[pb.Beat]:
                yield pb.Beat(federation=self.name, site=site, attempt=self.attempts[site])
                await asyncio.Event().wait()

            digest, call = "", stub.Heartbeat(beats())
            try:
                while True:
                    said = await call.read()
                    if said is grpc.aio.EOF:
                        raise grpc.aio.AioRpcError(
                            await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details()
                        )
                    if said.round_opened.base_digest and said.round_opened.round == number:
                        digest = str(said.round_opened.base_digest)
                        if not self.time_boxed:
                            return digest
                    if said.HasField("finish_round") and said.finish_round.round == number and digest:
                        return digest
            finally:
                call.cancel()

        return await self.insist(told)

    async def push(self, site: str, number: int, base: str, end: int | None = None) -> None:
        """Deliver a contribution; where an end is given, no more than so many bytes of it, which is refused."""
        data = contribution(site, number, self.fragments)
        key = self.key(site, number)

        async def pushed(stub: Any) -> None:
            progress = await stub.Progress(key)
            if progress.accepted:
                return
            manifest = pb.Manifest(
                key=key,
                lease_token=1,
                base_digest=base,
                codec=RULE.codec.name,
                tokens=TOKENS[site],
                steps=1,
                loss=2.5,
                total_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                tensors=described(LAYOUT),
                offset=progress.received_bytes,
            )

            async def frames() -> AsyncIterator[pb.PushFrame]:
                yield pb.PushFrame(manifest=manifest)
                for start in range(progress.received_bytes, end or len(data), _FRAME):
                    yield pb.PushFrame(data=data[start : start + _FRAME])

            try:
                await stub.Push(frames())
            except grpc.aio.AioRpcError:
                if end is None:
                    raise

        await self.insist(pushed)

    async def received(self, site: str, number: int) -> int:
        """Bytes of a contribution that the coordinator has."""
        key = self.key(site, number)
        return int((await self.insist(lambda stub: stub.Progress(key))).received_bytes)

    def key(self, site: str, number: int) -> pb.ContributionKey:
        return pb.ContributionKey(federation=self.name, site=site, round=number, attempt=self.attempts[site])

    async def leave(self, site: str) -> None:
        request = pb.LeaveRequest(federation=self.name, site=site, attempt=self.attempts[site], reason="")
        await self.insist(lambda stub: stub.Leave(request))

    async def stop(self) -> None:
        """Order the end of the federation on the bus, once it has its streams."""
        order = seal(StopFederation(id=uuid4(), at=datetime.now(UTC), federation=self.name, reason="asked"), "/test")
        client = await nats.connect(self.nats_url)
        async with asyncio.timeout(SECONDS):
            while True:
                await self.alive()
                try:
                    await client.jetstream().publish(order.subject, order.body, headers=dict(order.headers))
                    break
                except nats.errors.Error:
                    await asyncio.sleep(_AGAIN_S)
        await client.close()

    async def whole(self) -> None:
        """From the first join to the last word."""
        for site in TOKENS:
            await self.join(site)
        for number in range(self.rounds):
            for site in TOKENS:
                await self.push(site, number, await self.over(site, number))
        await self.leave("site-b")
        await self.stop()
        await self.leave("site-a")

    async def history(self) -> list[Message]:
        """What the hub's stream holds of this federation, once it holds the last word."""
        said = await heard(self.nats_url, FederationFinished, self.alive, whom=self.name)
        return [one for one in said if getattr(one, "federation", "") == self.name]


async def heard(
    nats_url: str,
    until: type[Message],
    alive: Callable[[], Awaitable["asyncio.Future[int]"]],
    count: int = 1,
    whom: str = "",
) -> list[Message]:
    """What a domain's stream holds, once it holds so many sentences of this kind, about one whom if that is said."""
    client = await nats.connect(nats_url)
    said: list[Message] = []
    try:
        async with asyncio.timeout(SECONDS):
            listening = await _listening(client, alive)
            while len([one for one in said if isinstance(one, until) and whom in ("", one.whom)]) < count:
                await alive()
                with suppress(nats.errors.TimeoutError):
                    raw = await listening.next_msg(timeout=0.2)
                    said.append(unseal(Letter(raw.subject, raw.headers or {}, raw.data)))
        return said
    finally:
        await client.close()


async def _listening(client: Client, alive: Callable[[], Awaitable["asyncio.Future[int]"]]) -> Any:
    """A subscription to everything, once a service has declared its stream."""
    while True:
        await alive()
        try:
            return await client.jetstream().subscribe("windfall.v1.>", stream=EVENTS_STREAM, ordered_consumer=True)
        except nats.js.errors.NotFoundError:
            await asyncio.sleep(_AGAIN_S)
