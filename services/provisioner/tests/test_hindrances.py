"""What is said of a lease whose node does not come."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from windfall.contracts.events import NodeHindered
from windfall.provisioner import claims, deadlines
from windfall.provisioner import lease as life
from windfall.provisioner.hindrances import hindrances
from windfall.provisioner.holdings import Decision, Holdings, Policy

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POLICY = Policy(grace=timedelta(minutes=10))


class Told:
    """Folds what happens over a site, as the app does, and keeps why no node came."""

    def __init__(self) -> None:
        self.holdings = Holdings(site="site-a")
        self.now = NOON
        self.said: list[NodeHindered] = []
        self.take(claims.open_(self.holdings, UUID(int=1), NOON, None, NOON, POLICY))
        self.lease_id = self.holdings.leases[0].lease_id

    def take(self, decision: Decision) -> None:
        told = hindrances(self.holdings, decision, self.now)
        self.said += [event for event in told.events if isinstance(event, NodeHindered)]
        self.holdings = told.holdings

    def unheard(self, why: str) -> None:
        self.take(life.unheard(self.holdings, self.lease_id, why, self.now, POLICY))

    def next_attempt(self) -> None:
        self.now = self.holdings.leases[0].retry_at or self.now
        self.take(deadlines.tick(self.holdings, self.now, POLICY))

    @property
    def because(self) -> list[str]:
        return [event.because for event in self.said]


def test_a_reason_is_said_once_however_often_it_is_met() -> None:
    told = Told()
    for why in ("no room", "no room", "little room", "no room"):
        told.unheard(why)
        told.next_attempt()
    assert told.because == ["no room", "little room", "no room"]
    assert len({event.id for event in told.said}) == 3, "the same reason again is another sentence"
    assert told.holdings.leases[0].attempts == 1, "nothing was tried"


def test_that_nothing_keeps_it_any_more_is_said() -> None:
    told = Told()
    told.unheard("no room")
    told.next_attempt()
    told.take(life.started(told.holdings, told.lease_id, told.now, POLICY))
    told.take(life.hindered(told.holdings, told.lease_id, "Unschedulable: 0/3 nodes", told.now, POLICY))
    told.take(life.ready(told.holdings, told.lease_id, "kubernetes", told.now, POLICY))
    assert told.because == ["no room", "", "Unschedulable: 0/3 nodes"], "that it is ready says the rest"


def test_a_lease_that_is_given_back_says_nothing_more() -> None:
    told = Told()
    told.unheard("no room")
    told.take(claims.close(told.holdings, UUID(int=1), told.now, POLICY))
    assert told.because == ["no room"] and not told.holdings.live
