"""The way to the coordinator, with the site's policy in it: whatever a trainer sends passes here, or stays.

A coordinator sees a site that the policy holds back as one that leaves: no word of what is said here can be overruled
from there. What was withheld, and by which line of the policy, is said on the site's own bus.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

import grpc
from google.protobuf.json_format import Parse

from windfall.contracts.events import SiteWithheld
from windfall.contracts.message import derived_id
from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.errors import Transient
from windfall.servicekit.instruments import EPSILON
from windfall.servicekit.metrics import record
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.site_trainer.claims import MOST_SAMPLES
from windfall.site_trainer.coordinator import CoordinatorLink, Download, Membership, Noise
from windfall.site_trainer.policy import (
    Offer,
    Sent,
    SitePolicy,
    Told,
    admitted,
    before_join,
    before_pack,
    before_push,
    before_train,
    bucketed,
    counted,
    epsilon,
    on_day,
    on_the_way,
    telling,
    until_quiet,
)
from windfall.tasks.ranges import Ranges

if TYPE_CHECKING:
    from windfall.servicekit.signing import Signer

log = logging.getLogger(__name__)

_SENT: Final = "sent-today"
_TOLD: Final = "told"
Before = Literal["join", "train", "push"]


class GuardedLink(CoordinatorLink):
    """See the module.

    Args:
        lead: wall time that finishing a step and delivering takes: so long before quiet hours the site drains.
        signer: as without a policy.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        offer: Offer,
        site: str,
        stand: Stand,
        policy: SitePolicy,
        lead: timedelta,
        signer: "Signer | None" = None,
    ) -> None:
        super().__init__(channel, offer.federation, site, policy.jurisdiction or "", signer)
        self._offer = offer
        self._stand = stand
        self._policy = policy
        self._lead = lead
        self._lease: tuple[UUID, int] | None = None
        self._attempt = 0
        self.drain: Callable[[str], None] = lambda reason: None
        """Tells the trainer to finish and leave; set by whoever makes it."""
        self._closed = ""
        """Why nothing more is trained for this coordinator: it changed what it had said."""

    async def join(self, window_id: UUID, lease_token: int) -> Membership:
        if self._lease is None:
            self._stand.spawn(self._keep_quiet(), "quiet hours")
        self._lease = window_id, lease_token
        now = self._stand.clock.now()
        if why := self._closed or before_join(self._policy, self._offer, self._sent(), now, self._told()):
            raise self._withheld("join", why)
        membership = await super().join(window_id, lease_token)
        self._attempt = membership.attempt
        reply = Parse(membership.reply_json, pb.JoinReply())
        if why := before_train(self._policy, reply, membership.codec):
            await self._go(why)
            raise self._withheld("train", why)
        return membership

    async def directives(
        self, beat: Callable[[], pb.Beat | None], every_s: float
    ) -> AsyncGenerator[pb.Directive, None]:
        """As without a policy, but that heartbeats end with quiet hours and count no few samples, and that nothing is
        trained with others than the policy allows."""

        def beating() -> pb.Beat | None:
            said = None if self._quiet else beat()
            return said and on_the_way(self._policy, said)

        async with aclosing(super().directives(beating, every_s)) as said:
            async for directive in said:
                opened = directive.HasField("round_opened")
                if opened and (why := admitted(self._policy, tuple(directive.round_opened.jurisdictions))):
                    self._closed = why
                    await self._go(why)
                    raise self._withheld("train", why)
                if opened:
                    word = directive.round_opened
                    word.micro_batch = min(word.micro_batch, MOST_SAMPLES)
                yield directive

    async def pull(
        self, attempt: int, digest: str, model_bytes: int, total_bytes: int, *, held: str = "", own: str = ""
    ) -> Download:
        if self._quiet:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "the site's policy: quiet hours")
        return await super().pull(attempt, digest, model_bytes, total_bytes, held=held, own=own)

    async def accepted(self, round_number: int, attempt: int) -> bool:
        # In quiet hours nobody is asked; what is not known to count is said to be lost.
        return not self._quiet and await super().accepted(round_number, attempt)

    async def rows(self, attempt: int, lease_token: int, hold: int) -> Ranges:
        if self._quiet:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "the site's policy: quiet hours")
        return await super().rows(attempt, lease_token, hold)

    async def telling(self) -> Noise | None:
        if why := before_pack(self._policy, told := self._told()):
            await self._go(why)
            raise self._withheld("push", why)
        privacy = self._policy.privacy
        if privacy is None:
            return None
        # On disk before the noise is drawn: what may be told counts.
        self._stand.journal.commit(state={_TOLD: (told := telling(self._policy, told))})
        record(EPSILON, epsilon(self._policy, told), {"windfall.site": self._site})
        return Noise(privacy.norm, privacy.noise)

    async def push(self, manifest: pb.Manifest, data: memoryview) -> bool:
        now = self._stand.clock.now()
        manifest.loss = bucketed(self._policy, manifest.loss)
        if why := before_push(self._policy, manifest, self._sent(), now):
            # Nobody waits for what does not come.
            await self._go(why)
            raise self._withheld("push", why)
        # On disk before the first byte goes out: what may have left counts.
        self._stand.journal.commit(state={_SENT: counted(self._policy, manifest, self._sent(), now)})
        return await super().push(manifest, data)

    async def leave(self, attempt: int, reason: str) -> None:
        if not self._quiet:
            # In quiet hours the coordinator notices by itself that we are gone.
            await super().leave(attempt, reason)

    @property
    def _quiet(self) -> bool:
        return until_quiet(self._policy, self._stand.clock.now()) == timedelta(0)

    async def _keep_quiet(self) -> None:
        """Drain before quiet hours begin, so that what was trained has left by then."""
        if (ahead := until_quiet(self._policy, self._stand.clock.now())) is not None:
            left = self._stand.clock.wall(ahead) - self._lead
            await asyncio.sleep(max(0.0, left.total_seconds()))
            self.drain("the site's policy: its quiet hours begin")

    async def _go(self, why: str) -> None:
        with suppress(Transient, Refused):
            await self.leave(self._attempt, f"the site's policy: {why.partition(':')[0]}")

    def _sent(self) -> Sent:
        return on_day(self._policy, self._stand.journal.load(_SENT, Sent), self._stand.clock.now())

    def _told(self) -> Told:
        return self._stand.journal.load(_TOLD, Told) or Told()

    def _withheld(self, before: Before, why: str) -> Refused:
        """Say it on the site's bus; the refusal that the trainer is to act upon."""
        log.warning("withheld before %s by the site's policy: %s", before, why)
        window_id, lease_token = self._lease or (UUID(int=0), 1)
        said = SiteWithheld(
            id=derived_id(f"{window_id}/{lease_token}/{before}/{why}", SiteWithheld.topic, self._site),
            at=self._stand.clock.now(),
            site=self._site,
            federation=self._offer.federation,
            window_id=window_id,
            lease_token=lease_token,
            before=before,
            because=why,
        )
        self._stand.journal.commit(say=(said,))
        self._stand.outbox.wake()
        return Refused(grpc.StatusCode.FAILED_PRECONDITION, f"the site's policy: {why}")
