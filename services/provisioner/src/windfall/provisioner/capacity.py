"""The Capacity API over gRPC: the same decisions as the bus, for an outside scheduler."""

from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn
from uuid import UUID

import grpc

from windfall.contracts.v1 import capacity_pb2 as wire
from windfall.contracts.v1.capacity_pb2_grpc import CapacityServicer
from windfall.provisioner.app import Provisioner
from windfall.provisioner.holdings import MOST_ACCELERATORS, MOST_WORKERS, Lease, Need
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.rpc import serving

_ANY_WINDOW: Final = UUID(int=0)
"""Stands for the window in a plan that names none."""


class Capacity(CapacityServicer):
    """Serves one site's provisioner. Another site is NOT_FOUND, a window that is over FAILED_PRECONDITION."""

    def __init__(self, provisioner: Provisioner) -> None:
        self._provisioner = provisioner

    async def Plan(self, request: wire.PlanRequest, context: Any) -> wire.PlanReply:  # noqa: N802 - gRPC's name
        await self._check(request.site, context)
        window_id = await _window(request.window_id, context) if request.window_id else _ANY_WINDOW
        need = await _need(request.need, context)
        backend, holdings = self._provisioner.backend, self._provisioner.holdings
        reply = wire.PlanReply(backend=backend.name, description=backend.describe())
        if holdings.holder:
            reply.held.CopyFrom(_written(holdings.holder))
        if holdings.cordon is not None:
            reply.hindrance = f"the site is cordoned: {holdings.cordon}"
        try:
            reply.objects.extend(await self._provisioner.plan(window_id, need))
        except (Transient, Mistake) as error:
            reply.hindrance = reply.hindrance or str(error)
        return reply

    async def Acquire(self, request: wire.AcquireRequest, context: Any) -> wire.Lease:  # noqa: N802
        await self._check(request.site, context)
        window_id = await _window(request.window_id, context)
        need = await _need(request.need, context)
        with serving(context, "windfall.contracts.v1.Capacity/Acquire"):
            try:
                lease = self._provisioner.acquire(window_id, need)
            except Transient as error:
                await _refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        if lease is None:
            cordon = self._provisioner.holdings.cordon
            why = f"window {window_id} is over" if cordon is None else f"the site is cordoned: {cordon}"
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, why)
        return _written(lease)

    async def Release(self, request: wire.ReleaseRequest, context: Any) -> wire.Lease:  # noqa: N802
        await self._check(request.site, context)
        window_id = await _window(request.window_id, context)
        with serving(context, "windfall.contracts.v1.Capacity/Release"):
            self._provisioner.give_back(window_id)
        lease = self._provisioner.holdings.of_window(window_id)
        if lease is None:
            state = wire.LEASE_STATE_RELEASED
            return wire.Lease(site=request.site, window_id=request.window_id, state=state, reason="there was no lease")
        return _written(lease)

    async def List(self, request: wire.ListRequest, context: Any) -> wire.ListReply:  # noqa: N802
        await self._check(request.site, context)
        return wire.ListReply(
            leases=map(_written, self._provisioner.holdings.leases), cordon=self._provisioner.holdings.cordon
        )

    async def Watch(self, request: wire.WatchRequest, context: Any) -> AsyncIterator[wire.Lease]:  # noqa: N802
        await self._check(request.site, context)
        sent: dict[UUID, Lease] = {}
        while True:
            change = self._provisioner.change
            leases = {lease.lease_id: lease for lease in self._provisioner.holdings.leases}
            for lease_id, lease in leases.items():
                if sent.get(lease_id) != lease:
                    yield _written(lease)
            sent = leases
            # Waited for as it was before the writes: what changed during them is seen at once.
            await change.wait()

    async def Cordon(self, request: wire.CordonRequest, context: Any) -> wire.CordonReply:  # noqa: N802
        await self._check(request.site, context)
        self._provisioner.close_off(request.reason or "asked")
        return wire.CordonReply(cordon=self._provisioner.holdings.cordon)

    async def Uncordon(self, request: wire.UncordonRequest, context: Any) -> wire.CordonReply:  # noqa: N802
        await self._check(request.site, context)
        self._provisioner.open_up()
        return wire.CordonReply(cordon=self._provisioner.holdings.cordon)

    async def _check(self, site: str, context: Any) -> None:
        ours = self._provisioner.site
        if site != ours:
            await _refuse(context, grpc.StatusCode.NOT_FOUND, f"this provisioner serves {ours!r}, not {site!r}")


async def _need(asked: wire.Need, context: Any) -> Need:
    for what, number, most in (
        ("workers", asked.workers, MOST_WORKERS),
        ("accelerators for each worker", asked.accelerators, MOST_ACCELERATORS),
    ):
        if number > most:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{number} {what} are more than {most}")
    accelerators = asked.accelerators if asked.HasField("accelerators") else None
    return Need(workers=asked.workers or None, accelerators=accelerators)


async def _window(text: str, context: Any) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"window_id {text!r} is not a UUID")


async def _refuse(context: Any, code: grpc.StatusCode, why: str) -> NoReturn:
    await context.abort(code, why)
    raise AssertionError("abort does not return")


def _written(lease: Lease) -> wire.Lease:
    return wire.Lease(
        lease_id=str(lease.lease_id),
        site=lease.site,
        window_id=str(lease.window_id),
        token=lease.token,
        state=f"LEASE_STATE_{lease.state.name}",
        node=lease.node,
        reason=lease.why,
        changed_at=lease.changed_at,
        need=wire.Need(workers=lease.workers or 0, accelerators=lease.accelerators),
        attempts=lease.attempts,
    )
