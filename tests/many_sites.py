"""A fleet of any size that was never run: sentences as its services would say them, the same from the same seed."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from windfall.cli.recording import Said
from windfall.contracts.events import (
    ContributionAccepted,
    EnergyRecorded,
    LinkMeasured,
    NodeReady,
    RoundCompleted,
    RoundStarted,
    SignalStale,
    SiteJoined,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowJudged,
    WindowOpened,
)
from windfall.contracts.message import Message

DIGEST: Final = "0" * 64
MINUTE: Final = timedelta(minutes=1)
FEDERATION: Final = "many"


class ManySites:
    """Says what such a fleet says, up to ``now`` and then on and on."""

    def __init__(self, count: int, now: datetime, seed: int = 1) -> None:
        self.sites = [f"site-{number:04}" for number in range(count)]
        self._now = now
        self._chance = random.Random(seed)
        self._round = 0

    def history(self) -> Iterator[Said]:
        """Half a day: two windows of each site that are over, and one that is open at half of them."""
        for number, site in enumerate(self.sites):
            shift = (number * 37) % 300 * MINUTE
            for back in (720, 360):
                opened = self._now - back * MINUTE + shift / 2
                yield from self._window(site, opened, opened + 120 * MINUTE)
            yield from self._present(number, site)
        for number in range(20):
            yield from self._whole_round(self._now - (200 - 10 * number) * MINUTE)

    def on(self) -> Iterator[Said]:
        """What comes next, without end: sites are judged, measured and contribute."""
        while True:
            site = self._chance.choice(self.sites)
            kind = self._chance.randrange(3)
            if kind == 0:
                state = self._chance.choice(["on", "off"])
                yield self._said(WindowJudged, self._now, site=site, state=state, because="so", would_change="more")
            elif kind == 1:
                yield self._link(site)
            else:
                yield self._contribution(site, self._now, self._round)

    def _present(self, number: int, site: str) -> Iterator[Said]:
        window_id = self._id()
        about = {"site": site, "window_id": window_id, "confidence": 0.8}
        if number % 2:
            opens = self._now + 30 * MINUTE
            yield self._said(
                WindowExpected, self._now, **about, opens_at=opens, expected_close_at=opens + 90 * MINUTE, because="sun"
            )
            if number % 50 == 1:
                yield self._said(SignalStale, self._now, site=site, last_point_time=None, limit_s=900)
            return
        opened = self._now - 40 * MINUTE
        yield self._said(
            WindowOpened, opened, **about, intensity_g_per_kwh=40.0, expected_close_at=self._now + 50 * MINUTE
        )
        yield from self._training(site, window_id, opened + 4 * MINUTE)
        yield self._link(site)

    def _window(self, site: str, opened: datetime, closed: datetime) -> Iterator[Said]:
        about = {"site": site, "window_id": self._id()}
        yield self._said(WindowOpened, opened, **about, intensity_g_per_kwh=50.0, expected_close_at=closed)
        yield self._said(WindowClosed, closed, **about, reason="dirty", crossed_at=closed)
        yield self._said(
            EnergyRecorded,
            closed,
            **about,
            sequence=1,
            state="training",
            start=opened,
            end=closed,
            energy_kwh=4.0,
            emissions_kg=0.2,
            clean_energy_kwh=3.9,
            method="modelled",
            entry_hash=DIGEST,
        )

    def _training(self, site: str, window_id: UUID, at: datetime) -> Iterator[Said]:
        lease = {"site": site, "window_id": window_id, "lease_token": 3}
        yield self._said(NodeReady, at, **lease, lease_id=self._id(), node=f"{site}-3", backend="process")
        yield self._said(SiteJoined, at, **lease, federation=FEDERATION, attempt=3, round=0)
        yield self._said(TrainingStarted, at, **lease, federation=FEDERATION, round=0)

    def _whole_round(self, at: datetime) -> Iterator[Said]:
        number, members = self._round, tuple(self._chance.sample(self.sites, min(8, len(self.sites))))
        about: dict[str, Any] = {"federation": FEDERATION, "round": number, "base_digest": DIGEST}
        yield self._said(RoundStarted, at, **about, members=members, ends_at=at + 8 * MINUTE)
        for place, site in enumerate(members):
            yield self._contribution(site, at + (5 + place / 4) * MINUTE, number)
        yield self._said(
            RoundCompleted,
            at + 8 * MINUTE,
            **about,
            model_digest=DIGEST,
            contributors=members,
            tokens=80_000,
            tokens_total=80_000 * (number + 1),
            steps=80,
            loss_nats=5.0 - 0.1 * number,
            bytes_up=800_000,
            bytes_down=800_000,
        )
        self._round += 1

    def _contribution(self, site: str, at: datetime, number: int) -> Said:
        return self._said(
            ContributionAccepted,
            at,
            site=site,
            federation=FEDERATION,
            round=number,
            attempt=3,
            tokens=10_000,
            steps=10,
            loss_nats=3.2,
            bytes_up=100_000,
            partial=False,
        )

    def _link(self, site: str) -> Said:
        rtt_ms = self._chance.uniform(5, 90)
        about = {"site": site, "target": "hub", "moved_bytes": 1_000_000}
        return self._said(LinkMeasured, self._now, **about, rtt_ms=rtt_ms, up_mb_per_s=50.0, down_mb_per_s=80.0)

    def _said(self, kind: type[Message], at: datetime, **fields: object) -> Said:
        trace = f"00-{self._chance.getrandbits(128):032x}-{self._chance.getrandbits(64):016x}-01"
        return Said(kind(id=self._id(), at=at, **fields), "/windfall/many", {"traceparent": trace})

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)
