"""A contribution, from being written until it is known whether it counts."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc
from pydantic import BaseModel, ConfigDict

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span
from windfall.site_trainer import overlapping
from windfall.site_trainer import session as sessions
from windfall.site_trainer.bases import Bases
from windfall.site_trainer.coordinator import CoordinatorLink, Membership
from windfall.site_trainer.course import Course, now_s
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.supply import Supply
from windfall.site_trainer.terms import Terms
from windfall.tasks.ranges import NONE, Ranges

if TYPE_CHECKING:
    from windfall.site_trainer.parcel import Parcel, Unsent

log = logging.getLogger(__name__)

_LAST: Final = "last-membership"


class LastMembership(BaseModel):
    """The membership under which work was last sent, so that a checkpoint's work is never counted twice."""

    model_config = ConfigDict(frozen=True)

    federation: str
    attempt: int
    round: int


class Delivery:
    """At most one contribution is under way.

    Args:
        train: runs what blocks where the engine runs.
    """

    def __init__(
        self,
        stand: Stand,
        terms: Terms,
        link: CoordinatorLink,
        bases: Bases,
        course: Course,
        train: Callable[..., Awaitable["Parcel"]],
    ) -> None:
        self.parcel: Parcel | None = None
        """Written, and not known to count or not to."""
        self.time = terms.drain_time
        """What it takes, at most, as far as is known: who drains begins that much earlier."""
        self._stand = stand
        self._terms = terms
        self._link = link
        self._bases = bases
        self._course = course
        self._train = train
        self._unsent: Unsent = {}
        self._membership: Membership | None = None
        self._supply: Supply | None = None

    def under(self, membership: Membership, supply: Supply | None) -> None:
        """Another membership. What an earlier one left unsaid belongs to a model that has moved on."""
        self._membership, self._supply, self._unsent = membership, supply, {}

    @property
    def away(self) -> Ranges:
        """Rows of the shared corpus that are on their way."""
        return NONE if self.parcel is None else self.parcel.rows

    async def write(self, engine: Engine) -> pb.Manifest | None:
        """Write what was trained; none when the coordinator wants nothing more of this round.

        Raises:
            ValueError: what was trained is not finite.
        """
        from windfall.site_trainer.parcel import written

        terms, membership, session = self._terms, self._standing(), self._course.session
        key = pb.ContributionKey(
            federation=terms.federation, site=terms.site, round=session.round or 0, attempt=membership.attempt
        )
        try:
            noise = await self._link.telling()
            parcel = await self._train(
                written, engine, session, membership, self._unsent, key, terms.lease_token, noise
            )
        except Refused as refused:
            log.warning("nothing more is told: %s", refused)
            self._course.become(overlapping.refused(self._course.session, session.round or 0, late=True))
            return None
        reach("pack.done")
        self.parcel = parcel
        return parcel.manifest

    async def deliver(self) -> None:
        """Send it, from where an earlier attempt was cut."""
        course, membership = self._course, self._standing()
        began, parcel = now_s(), self.parcel
        assert parcel is not None
        manifest = parcel.manifest
        manifest.partial = sessions.draining(course.session, self._stand.clock.now())
        with span(
            "contribution",
            attributes={
                "windfall.site": self._terms.site,
                "windfall.round": manifest.key.round,
                "windfall.tokens": manifest.tokens,
                "windfall.steps": manifest.steps,
                "windfall.drain": manifest.partial,
            },
        ):
            try:
                if manifest.key.attempt != membership.attempt and await self.arrived():
                    self._settled(parcel)
                    course.become(overlapping.arrived(course.session, manifest.key.round, manifest.key.attempt))
                    return
                await self._send(parcel, membership.attempt)
            except Refused as refused:
                self._not_taken(parcel, refused)
                return
        reach("push.answered")
        self._settled(parcel)
        course.become(overlapping.pushed(course.session, manifest.key.round, manifest.key.attempt))
        self.time = max(self.time, timedelta(seconds=2 * (now_s() - began)))

    async def arrived(self) -> bool:
        """Whether it counts under the membership that it was last sent under, though the receipt never came."""
        assert self.parcel is not None
        key = self.parcel.manifest.key
        return await self._link.accepted(key.round, key.attempt)

    async def counted(self, number: int) -> bool:
        """Whether what was last sent in this round, by this trainer or one before it, was accepted."""
        last = self._stand.journal.load(_LAST, LastMembership)
        if last is None or (last.federation, last.round) != (self._terms.federation, number):
            return False
        return await self._link.accepted(number, last.attempt)

    def _standing(self) -> Membership:
        assert self._membership is not None
        return self._membership

    def _settled(self, parcel: "Parcel") -> None:
        """It counts: what it did not get to say waits for the next one, unless the membership has ended meanwhile."""
        self.parcel = None
        if self._supply is not None:
            self._supply.counted(parcel.rows)
        self._bases.said(parcel)
        standing = self._membership is not None and self._membership.attempt == parcel.attempt
        self._unsent = parcel.unsent if standing else {}

    async def _send(self, parcel: "Parcel", attempt: int) -> None:
        key = parcel.manifest.key
        key.attempt = attempt
        sent = LastMembership(federation=key.federation, attempt=attempt, round=key.round)
        # On disk before the first byte goes out: who restarts from a checkpoint asks first whether this was accepted.
        self._stand.journal.commit(state={_LAST: sent})
        reach("push.journaled")
        await self._link.push(parcel.manifest, memoryview(parcel.data))

    def _not_taken(self, parcel: "Parcel", refused: Refused) -> None:
        course = self._course
        if refused.code is grpc.StatusCode.NOT_FOUND:
            log.info("no longer a member: %s", refused)
            course.become(sessions.membership_ended(course.session))
            return
        log.warning("contribution refused: %s", refused)
        late = refused.code is grpc.StatusCode.FAILED_PRECONDITION
        # Of what will be told again, the codec has said nothing.
        self._unsent = self._unsent if late and course.session.told is not None else {}
        self.parcel = None
        if self._supply is not None:
            self._supply.forget()
        course.become(overlapping.refused(course.session, parcel.manifest.key.round, late=late))
