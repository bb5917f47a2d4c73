"""How a contribution comes in: checked before its bytes, kept while they come, checked again, sealed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from windfall.contracts.attestation import Attestation
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal, Seen, check_manifest
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.incoming import Chunk, Incoming, fill
from windfall.federation_coordinator.row_leases import RowLeases
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Transient
from windfall.servicekit.offload import Offload, finished
from windfall.servicekit.telemetry import span

T = TypeVar("T")


class Standing(Protocol):
    """How the federation stands when it is asked."""

    @property
    def state(self) -> Federation: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def leases(self) -> RowLeases: ...

    def prove(self, manifest: pb.Manifest) -> Attestation | None:
        """What proves that a contribution is its site's, if anything must; refuses one that does not prove it."""

    def judge(self, manifest: pb.Manifest, seen: Seen) -> None:
        """Refuse a contribution that was looked at, or pass it."""


class Reception:
    """Takes contributions in, one stream at a time for each.

    Args:
        moves: is told of every run of bytes that arrives: site, attempt, round.
    """

    def __init__(
        self,
        standing: Standing,
        store: ModelStore,
        layout: Layout,
        offload: Offload,
        moves: Callable[[str, int, int], None],
    ) -> None:
        self._standing = standing
        self._store = store
        self._layout = layout
        self._offload = offload
        self._moves = moves
        self._pushing: set[tuple[int, str, int]] = set()
        self._doubted: dict[str, str] = {}
        """Of each site, the contribution that did not have its digest when it last came, by that digest."""

    async def take(self, manifest: pb.Manifest, chunks: AsyncIterator[Chunk]) -> Attestation | None:
        """Bring it to disk under its final name, whole and checked; gives what proves whose it is.

        Raises:
            Refusal: it does not pass, and would not if it came again.
            Transient: it may come again, from where ``Progress`` says.
        """
        key = manifest.key
        way = (key.round, key.site, key.attempt)
        self._check(manifest)
        if way in self._pushing:
            # A cut link is noticed at the site first: the stream that it broke is about to end here as well.
            raise Transient("this contribution is on its way already")
        self._pushing.add(way)
        reach("push.begun")
        try:
            return await self._keep(manifest, chunks)
        finally:
            self._pushing.discard(way)

    def _check(self, manifest: pb.Manifest) -> Attestation | None:
        check_manifest(manifest, self._standing.state, self._standing.policy, self._layout, self._store.rule)
        self._standing.leases.check(manifest)
        return self._standing.prove(manifest)

    async def _keep(self, manifest: pb.Manifest, chunks: AsyncIterator[Chunk]) -> Attestation | None:
        key = manifest.key
        async with self._incoming(key, manifest.total_bytes) as incoming:
            if manifest.offset != incoming.received:
                raise Transient(f"bytes from {manifest.offset} are offered, {incoming.received} are wanted")
            try:
                await fill(incoming, self._watched(key, chunks), self._offload)
                if incoming.received < manifest.total_bytes:
                    # A broken stream may look like one that has ended.
                    raise Transient(f"{incoming.received} of {manifest.total_bytes} bytes arrived")
                final = self._store.contribution_path(key.round, key.site, key.attempt)
                with span("check", attributes={"windfall.bytes": manifest.total_bytes}):
                    await self._finish(incoming.seal, manifest.sha256, final)
                    seen = await self._finish(self._store.look, key.round, key.site, key.attempt, manifest)
                    # The round may have been merged while the bytes came, and its base may be too old by now.
                    proof = self._check(manifest)
                    self._standing.judge(manifest, seen)
                return proof
            except Refusal as refusal:
                incoming.discard()
                if refusal.reason == "digest" and manifest.offset > 0:
                    # What lay here from before the cut was not the beginning of this.
                    raise Transient("the bytes before the cut are damaged; begin again") from refusal
                if refusal.reason == "digest" and self._doubted.get(key.site) != manifest.sha256:
                    # A link without TLS may spoil a byte (TCP's checksum has 16 bits); a site that errs does so again.
                    self._doubted[key.site] = manifest.sha256
                    raise Transient("the bytes were damaged on their way; begin again") from refusal
                raise

    async def _watched(self, key: pb.ContributionKey, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        async for chunk in chunks:
            self._moves(key.site, key.attempt, key.round)
            yield chunk

    @asynccontextmanager
    async def _incoming(self, key: pb.ContributionKey, nbytes: int) -> AsyncIterator[Incoming]:
        opening = asyncio.ensure_future(self._offload(self._store.incoming, key.round, key.site, key.attempt, nbytes))
        try:
            yield await finished(opening)
        finally:
            if not opening.cancelled() and opening.exception() is None:
                opening.result().pause()

    async def _finish(self, work: Callable[..., T], *arguments: object) -> T:
        return await finished(asyncio.ensure_future(self._offload(work, *arguments)))
