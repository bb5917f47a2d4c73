"""Tables over the life of a lease, and random lives of which some things are always true."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.contracts.events import NodeFailed, NodeHindered, NodeReady, NodeReleased
from windfall.provisioner import claims, deadlines, transitions
from windfall.provisioner import lease as life
from windfall.provisioner.holdings import (
    Action,
    Decision,
    Drain,
    Holdings,
    Kill,
    Lease,
    LeaseEvent,
    LeaseState,
    Policy,
    Start,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRACE = timedelta(minutes=10)
POLICY = Policy(grace=GRACE, attempts=2, backoff=timedelta(seconds=1))
WINDOWS = tuple(UUID(int=number) for number in range(1, 9))
FIRST, SECOND = WINDOWS[:2]


@dataclass
class Story:
    """Folds what happens over a site, and keeps what was said and ordered."""

    holdings: Holdings = field(default_factory=lambda: Holdings(site="site-a"))
    now: datetime = NOON
    said: list[LeaseEvent] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)

    def take(self, decision: Decision) -> None:
        self.holdings = Holdings.model_validate_json(decision.holdings.model_dump_json())
        assert self.holdings == decision.holdings
        self.said += decision.events
        self.done += decision.actions

    def opens(self, window: UUID = FIRST, minute: float = 0) -> None:
        opened_at = NOON + timedelta(minutes=minute)
        self.take(claims.open_(self.holdings, window, opened_at, None, self.now, POLICY))

    def expects(self, window: UUID = FIRST, minute: float = 0, ahead: float = 5) -> None:
        """Said at ``minute``, to open ``ahead`` minutes later."""
        said_at = NOON + timedelta(minutes=minute)
        opens_at = said_at + timedelta(minutes=ahead)
        self.take(claims.expect(self.holdings, window, said_at, opens_at, None, self.now, POLICY))

    def withdraws(self, window: UUID = FIRST) -> None:
        self.take(claims.withdraw(self.holdings, window, self.now, POLICY))

    def asked_for(self, window: UUID = FIRST, minute: float = 0) -> None:
        asked_at = NOON + timedelta(minutes=minute)
        self.take(claims.request(self.holdings, window, asked_at, None, self.now, POLICY))

    def closes(self, window: UUID = FIRST) -> None:
        self.take(claims.close(self.holdings, window, self.now, POLICY))

    def asked(self, window: UUID | None = None) -> None:
        self.take(claims.release(self.holdings, window, self.now, POLICY))

    def drained(self, token: int = 1, window: UUID = FIRST) -> None:
        self.take(claims.drained(self.holdings, window, token, self.now, POLICY))

    def started(self, token: int = 1) -> None:
        self.take(life.started(self.holdings, self.lease_id(token), self.now, POLICY))

    def ready(self, token: int = 1) -> None:
        self.take(life.ready(self.holdings, self.lease_id(token), "process", self.now, POLICY))

    def late(self, token: int = 1) -> None:
        held = self.holdings.of_id(self.lease_id(token))
        if held and held.ready_deadline:
            self.now = max(self.now, held.ready_deadline)
            self.passes()

    def unseen(self, token: int = 1) -> None:
        """Killed, and nobody sees it end."""
        held = self.holdings.of_id(self.lease_id(token))
        if held and held.end_deadline:
            self.now = max(self.now, held.end_deadline)
            self.passes()

    def unheard(self, token: int = 1) -> None:
        self.take(life.unheard(self.holdings, self.lease_id(token), "no server", self.now, POLICY))

    def hindered(self, token: int = 1, why: str = "Unschedulable: 0/3 nodes") -> None:
        self.take(life.hindered(self.holdings, self.lease_id(token), why, self.now, POLICY))

    def died(self, code: int | None = 1, token: int = 1) -> None:
        self.take(life.died(self.holdings, self.lease_id(token), code, self.now, POLICY))

    def refused(self, retry: bool = True, token: int = 1) -> None:
        self.take(life.refused(self.holdings, self.lease_id(token), "no room", retry, self.now, POLICY))

    def absent(self, token: int = 1) -> None:
        self.take(life.absent(self.holdings, self.lease_id(token), self.now, POLICY))

    def passes(self, **duration: float) -> None:
        self.now += timedelta(**duration)
        self.take(deadlines.tick(self.holdings, self.now, POLICY))

    def cordons(self) -> None:
        self.take(claims.cordon(self.holdings, "the cooling is repaired", self.now, POLICY))

    def uncordons(self) -> None:
        self.take(claims.uncordon(self.holdings, self.now, POLICY))

    def leaves(self) -> None:
        self.take(claims.leave(self.holdings, self.now, POLICY))

    def comes(self) -> None:
        self.take(claims.come(self.holdings, self.now, POLICY))

    def lease_id(self, token: int) -> UUID:
        return next((held.lease_id for held in self.holdings.leases if held.token == token), UUID(int=0))

    def runs(self, window: UUID = FIRST, token: int = 1, minute: float = 0) -> None:
        self.opens(window, minute)
        self.started(token)
        self.ready(token)

    def is_warm(self) -> None:
        self.expects()
        self.started()
        self.ready()

    def words(self) -> str:
        """What was said and ordered, as ``ready1 released1:drained | start1 drain1``."""
        return " ".join(map(_word, self.said)) + " | " + " ".join(map(_order, self.done))


def _word(event: LeaseEvent) -> str:
    match event:
        case NodeReady():
            return f"ready{event.lease_token}"
        case NodeReleased():
            return f"released{event.lease_token}:{event.reason}"
        case NodeFailed():
            return f"failed{event.lease_token}"
        case NodeHindered():
            return f"hindered{event.lease_token}"


def _order(action: Action) -> str:
    return f"{type(action).__name__.lower()}{action.lease.token}"


def steps(*told: Callable[[Story], None]) -> tuple[Callable[[Story], None], ...]:
    return told


RUNS = Story.runs
WARM = Story.is_warm


@pytest.mark.parametrize(
    ("told", "words"),
    [
        pytest.param(steps(Story.opens), " | start1", id="a window opens"),
        pytest.param(steps(Story.opens, Story.opens, Story.opens), " | start1", id="it opens three times"),
        pytest.param(steps(RUNS, Story.ready, Story.started), "ready1 | start1", id="ready twice"),
        pytest.param(
            steps(RUNS, Story.closes, Story.drained, lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            id="a whole life",
        ),
        pytest.param(
            steps(RUNS, Story.closes, Story.closes, Story.drained, Story.drained, lambda s: s.died(0), Story.died),
            "ready1 released1:drained | start1 drain1",
            id="a whole life in doubles",
        ),
        pytest.param(
            steps(RUNS, Story.closes, Story.drained, lambda s: s.died(None)),
            "ready1 released1:drained | start1 drain1",
            id="drained, and nobody knows the exit code",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.died(0), Story.drained, Story.closes),
            "ready1 released1:drained | start1",
            id="the trainer hears first and is gone before we hear",
        ),
        pytest.param(
            steps(RUNS, Story.drained, lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            id="drained with the window open",
        ),
        pytest.param(steps(Story.closes, Story.opens), " | ", id="closed before opened"),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.died(0), Story.opens),
            "ready1 released1:drained | start1 drain1",
            id="opened again after its end",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.drained(token=7)),
            "ready1 | start1",
            id="drained under another token",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.drained(window=SECOND)),
            "ready1 | start1",
            id="drained in another window",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.passes(minutes=9)),
            "ready1 | start1 drain1",
            id="within the grace",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.passes(minutes=10), lambda s: s.passes(minutes=1)),
            "ready1 released1:grace | start1 drain1 kill1",
            id="the grace runs out once",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.passes(minutes=10), lambda s: s.died(-9)),
            "ready1 released1:grace | start1 drain1 kill1",
            id="killed for the grace",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.died(1)),
            "ready1 released1:died | start1 drain1",
            id="died while draining",
        ),
        pytest.param(
            steps(Story.opens, Story.closes, Story.started, lambda s: s.died(-15)),
            " released1:released | start1 drain1 drain1",
            id="closed while starting",
        ),
        pytest.param(
            steps(Story.opens, Story.closes, Story.refused),
            " released1:released | start1 drain1 kill1",
            id="closed while starting and no node came",
        ),
        pytest.param(
            steps(Story.opens, Story.closes, lambda s: s.passes(minutes=10), Story.started),
            " | start1 drain1 kill1 kill1",
            id="started after the grace",
        ),
        pytest.param(steps(RUNS, Story.died), "ready1 | start1", id="died and waits"),
        pytest.param(
            steps(RUNS, Story.died, lambda s: s.passes(seconds=1), Story.started, Story.ready),
            "ready1 | start1 start1",
            id="the second attempt is the same lease",
        ),
        pytest.param(
            steps(RUNS, Story.died, lambda s: s.passes(seconds=1), Story.started, Story.died, Story.died),
            "ready1 failed1 | start1 start1",
            id="the attempts are used up",
        ),
        pytest.param(
            steps(RUNS, Story.died, Story.closes),
            "ready1 released1:released | start1 kill1",
            id="closed between attempts",
        ),
        pytest.param(
            steps(Story.opens, Story.refused, lambda s: s.passes(seconds=1), Story.refused),
            " failed1 | start1 start1 kill1",
            id="no room twice",
        ),
        pytest.param(
            steps(Story.opens, lambda s: s.refused(retry=False)),
            " failed1 | start1 kill1",
            id="a mistake is not repeated",
        ),
        pytest.param(
            steps(Story.opens, Story.started, Story.late, lambda s: s.died(-9)),
            " | start1 kill1",
            id="not ready in time",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.runs(SECOND, 2, minute=30)),
            "ready1 ready2 | start1 drain1 start2",
            id="a new window replaces the old",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.opens(SECOND, 30), lambda s: s.died(None)),
            "ready1 released1:replaced | start1 drain1 start2",
            id="replaced and gone",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.runs(SECOND, 2, minute=30), lambda s: s.died(0)),
            "ready1 ready2 released1:drained | start1 drain1 start2",
            id="an old lease that drains blocks nobody",
        ),
        pytest.param(
            steps(lambda s: s.runs(SECOND, 1, minute=30), lambda s: s.opens(FIRST, 0), lambda s: s.opens(FIRST, 0)),
            "ready1 | start1",
            id="an older window heard late gets nothing",
        ),
        pytest.param(
            steps(RUNS, Story.asked, Story.asked, lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            id="asked back",
        ),
        pytest.param(steps(Story.asked, lambda s: s.asked(FIRST)), " | ", id="nothing to give back"),
        pytest.param(steps(Story.opens, Story.absent), " | start1 start1", id="restarted before the start"),
        pytest.param(steps(RUNS, Story.absent), "ready1 | start1", id="restarted and the node is gone"),
        pytest.param(
            steps(RUNS, Story.closes, Story.absent),
            "ready1 released1:released | start1 drain1",
            id="restarted and the draining node is gone",
        ),
        pytest.param(steps(RUNS, Story.died, Story.absent), "ready1 | start1", id="restarted between attempts"),
        pytest.param(
            steps(RUNS, Story.closes, Story.started), "ready1 | start1 drain1 drain1", id="adopted while draining"
        ),
        pytest.param(
            steps(Story.opens, Story.late, Story.late), " | start1 kill1", id="nothing comes of a start and it rests"
        ),
        pytest.param(
            steps(Story.opens, Story.late, lambda s: s.passes(seconds=1), Story.late),
            " failed1 | start1 kill1 start1 kill1",
            id="nothing comes of any start",
        ),
        pytest.param(
            steps(Story.opens, Story.started, Story.late, Story.unseen, lambda s: s.passes(seconds=1), Story.started),
            " | start1 kill1 start1",
            id="not ready in time and nobody sees it end",
        ),
        pytest.param(
            steps(Story.opens, Story.started, Story.late, Story.ready), " | start1 kill1", id="ready while it is killed"
        ),
        pytest.param(
            steps(Story.opens, Story.started, Story.late, Story.started),
            " | start1 kill1 kill1",
            id="adopted while it is killed",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.passes(minutes=10), Story.unseen, lambda s: s.died(-9)),
            "ready1 released1:grace | start1 drain1 kill1",
            id="nobody sees a killed node end",
        ),
        pytest.param(
            steps(Story.opens, *[Story.unheard, lambda s: s.passes(minutes=6)] * 5, Story.started, Story.ready),
            "ready1 | start1 start1 start1 start1 start1 start1",
            id="an outage takes no attempts",
        ),
        pytest.param(
            steps(Story.opens, Story.closes, Story.unheard),
            " released1:released | start1 drain1 kill1",
            id="closed during an outage",
        ),
        pytest.param(
            steps(Story.cordons, Story.opens, lambda s: s.expects(SECOND, 30)),
            " | ",
            id="a cordoned site gives nothing",
        ),
        pytest.param(
            steps(RUNS, Story.cordons, Story.closes, lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            id="a cordoned site keeps what it has",
        ),
        pytest.param(
            steps(Story.cordons, Story.opens, lambda s: s.opens(SECOND, 30), Story.uncordons, Story.uncordons),
            " | start1",
            id="uncordoned it serves the window that opened",
        ),
        pytest.param(
            steps(Story.cordons, Story.opens, Story.closes, Story.uncordons), " | ", id="uncordoned after it closed"
        ),
        pytest.param(
            steps(RUNS, Story.leaves, lambda s: s.died(0), Story.comes, Story.comes),
            "ready1 released1:drained | start1 drain1 start2",
            id="the next provisioner serves the window that is open",
        ),
        pytest.param(
            steps(RUNS, Story.leaves, lambda s: s.died(0), Story.closes, Story.comes),
            "ready1 released1:drained | start1 drain1",
            id="closed before the next provisioner comes",
        ),
        pytest.param(
            steps(RUNS, Story.closes, Story.leaves, lambda s: s.died(0), Story.comes),
            "ready1 released1:drained | start1 drain1",
            id="closed before the provisioner left",
        ),
        pytest.param(
            steps(RUNS, Story.leaves, lambda s: s.died(0), lambda s: s.opens(SECOND, 30), Story.comes),
            "ready1 released1:drained | start1 drain1 start2",
            id="a younger window than the one that was left",
        ),
        pytest.param(
            steps(RUNS, Story.leaves, lambda s: s.died(0), Story.cordons, Story.comes, Story.uncordons),
            "ready1 released1:drained | start1 drain1 start2",
            id="left, and cordoned before the next provisioner comes",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.died(0), Story.started),
            "ready1 released1:drained | start1 kill1",
            id="a node that comes after the end",
        ),
    ],
)
def test_life(told: tuple[Callable[[Story], None], ...], words: str) -> None:
    story = Story()
    for step in told:
        step(story)
    assert story.words().strip() == words.strip()


@pytest.mark.parametrize(
    ("told", "words", "expected"),
    [
        pytest.param(steps(WARM), "ready1 | start1", {1}, id="a window is near"),
        pytest.param(steps(WARM, Story.expects, Story.expects), "ready1 | start1", {1}, id="said three times"),
        pytest.param(steps(WARM, lambda s: s.opens(minute=5)), "ready1 | start1", set(), id="it opens"),
        pytest.param(
            steps(Story.expects, lambda s: s.opens(minute=5), Story.started, Story.ready),
            "ready1 | start1",
            set(),
            id="it opens before the node is there",
        ),
        pytest.param(
            steps(WARM, lambda s: s.opens(minute=5), Story.expects),
            "ready1 | start1",
            set(),
            id="expected after it opened",
        ),
        pytest.param(steps(Story.opens, Story.expects), " | start1", set(), id="expected, heard after it opened"),
        pytest.param(
            steps(WARM, lambda s: s.opens(minute=5), Story.withdraws),
            "ready1 | start1",
            set(),
            id="withdrawn after it opened",
        ),
        pytest.param(
            steps(WARM, Story.withdraws, lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            set(),
            id="withdrawn",
        ),
        pytest.param(
            steps(WARM, Story.drained, lambda s: s.died(0), Story.withdraws),
            "ready1 released1:drained | start1 drain1",
            set(),
            id="withdrawn, and the trainer hears first",
        ),
        pytest.param(steps(Story.withdraws, Story.expects, Story.opens), " | ", set(), id="withdrawn before expected"),
        pytest.param(
            steps(WARM, Story.closes, lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            set(),
            id="closed before it opened",
        ),
        pytest.param(
            steps(WARM, lambda s: s.passes(minutes=19.9)), "ready1 | start1", {1}, id="overdue, within the patience"
        ),
        pytest.param(
            steps(WARM, lambda s: s.passes(minutes=20), lambda s: s.passes(minutes=1), lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1",
            set(),
            id="overdue and given up",
        ),
        pytest.param(
            steps(Story.expects, Story.refused, lambda s: s.passes(minutes=20)),
            " released1:released | start1 kill1",
            set(),
            id="given up between attempts",
        ),
        pytest.param(
            steps(Story.expects, lambda s: s.refused(retry=False), lambda s: s.opens(minute=5)),
            "failed1 | start1 kill1 start2",
            set(),
            id="there was no node ahead of it, and it opens",
        ),
        pytest.param(
            steps(Story.expects, lambda s: s.refused(retry=False), Story.closes, lambda s: s.opens(minute=5)),
            "failed1 | start1 kill1",
            set(),
            id="there was no node ahead of it, and it is over",
        ),
        pytest.param(
            steps(WARM, lambda s: s.expects(minute=4, ahead=11), lambda s: s.passes(minutes=29)),
            "ready1 | start1",
            {1},
            id="it comes later than was thought",
        ),
        pytest.param(
            steps(lambda s: s.passes(minutes=20), Story.expects), " | ", set(), id="heard when it is long overdue"
        ),
        pytest.param(
            steps(WARM, lambda s: s.passes(minutes=20), lambda s: s.died(0), lambda s: s.opens(minute=30)),
            "ready1 released1:drained | start1 drain1 start2",
            set(),
            id="given up, and it opens after all",
        ),
        pytest.param(
            steps(WARM, lambda s: s.passes(minutes=20), lambda s: s.opens(minute=20), lambda s: s.died(0)),
            "ready1 released1:drained | start1 drain1 start2",
            set(),
            id="given up, and it opens while the node drains",
        ),
        pytest.param(
            steps(WARM, lambda s: s.passes(minutes=20), lambda s: s.died(0), Story.withdraws, Story.opens),
            "ready1 released1:drained | start1 drain1",
            set(),
            id="given up, withdrawn, and nothing opens it",
        ),
        pytest.param(
            steps(WARM, Story.died, lambda s: s.passes(seconds=1), Story.started, Story.ready),
            "ready1 | start1 start1",
            {1},
            id="died warm and is started again",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.expects(SECOND, 30)),
            "ready1 | start1",
            set(),
            id="an open window keeps its node",
        ),
        pytest.param(
            steps(RUNS, lambda s: s.expects(SECOND, 30), Story.closes, lambda s: s.opens(SECOND, 35)),
            "ready1 | start1 drain1 start2",
            set(),
            id="and the next one gets its own when it opens",
        ),
        pytest.param(
            steps(RUNS, Story.closes, lambda s: s.expects(SECOND, 30)),
            "ready1 | start1 drain1 start2",
            {2},
            id="an old lease that drains blocks nobody",
        ),
        pytest.param(
            steps(WARM, lambda s: s.expects(SECOND, 30)),
            "ready1 | start1 drain1 start2",
            {2},
            id="another window is expected instead",
        ),
        pytest.param(
            steps(lambda s: s.expects(SECOND, 30), Story.expects),
            " | start1",
            {1},
            id="an older word heard late gets nothing",
        ),
        pytest.param(
            steps(lambda s: s.expects(SECOND, 30), lambda s: s.opens(FIRST, 29)),
            " | start1 drain1 start2",
            set(),
            id="what opens goes before what is expected",
        ),
        pytest.param(steps(WARM, Story.asked_for), "ready1 | start1", {1}, id="a person's word makes no power clean"),
    ],
)
def test_life_ahead_of_a_window(told: tuple[Callable[[Story], None], ...], words: str, expected: set[int]) -> None:
    story = Story()
    for step in told:
        step(story)
    assert story.words().strip() == words.strip()
    awaiting = {held.token for held in story.holdings.live if held.state is not LeaseState.DRAINING and held.opens_at}
    assert awaiting == expected


def test_a_node_is_told_whether_its_window_is_open() -> None:
    story = Story()
    story.expects()
    story.opens(minute=5)
    story.died()
    story.passes(seconds=1)
    told = [action.lease.environment["WINDFALL_WINDOW_OPENS_AT"] for action in story.done]
    assert told == [(NOON + timedelta(minutes=5)).isoformat(), ""]


def test_a_lease_drains_until_its_deadline() -> None:
    story = Story()
    story.runs()
    assert deadlines.next_deadline(story.holdings) is None
    story.closes()
    held = story.holdings.leases[0]
    assert (held.state, held.drain_deadline) == (LeaseState.DRAINING, NOON + GRACE)
    assert deadlines.next_deadline(story.holdings) == NOON + GRACE
    story.passes(minutes=10)
    assert deadlines.next_deadline(story.holdings) == story.now + POLICY.end_within
    story.unseen()
    assert deadlines.next_deadline(story.holdings) is None


def test_attempts_back_off_twice_as_long() -> None:
    story = Story()
    policy = Policy(grace=GRACE, attempts=5, backoff=timedelta(seconds=3))
    story.opens()
    pauses = []
    for _ in range(4):
        story.take(life.died(story.holdings, story.lease_id(1), 1, story.now, policy))
        due = deadlines.next_deadline(story.holdings)
        assert due is not None
        pauses.append((due - story.now).total_seconds())
        story.take(deadlines.tick(story.holdings, due, policy))
        story.now = due
    for pause, longest in zip(pauses, (3, 6, 12, 24), strict=True):
        assert longest / 2 <= pause <= longest
    assert len({pause / longest for pause, longest in zip(pauses, (3, 6, 12, 24), strict=True)}) == 4
    held = story.holdings.leases[0]
    assert transitions.rest(held, 2, policy) == timedelta(seconds=pauses[1]), "the same try rests as long in every life"
    assert transitions.rest(held, 99, policy) <= policy.backoff_limit
    assert [action.lease.attempts for action in story.done] == [1, 2, 3, 4, 5]


def test_deaths_before_a_node_that_worked_for_long_are_forgotten() -> None:
    story = Story()
    story.runs()
    for _ in range(5):
        story.passes(minutes=POLICY.steady / timedelta(minutes=1))
        story.died()
        due = deadlines.next_deadline(story.holdings)
        assert due is not None and due - story.now <= POLICY.backoff, "it rests as after a first death"
        story.passes(seconds=1)
        story.started()
        story.ready()
    assert not [event for event in story.said if isinstance(event, NodeFailed)]
    assert [action.lease.attempts for action in story.done] == [1, 2, 3, 4, 5, 6], "no attempt has another's number"
    story.died()
    (failed,) = [event for event in story.said if isinstance(event, NodeFailed)]
    assert failed.reason == "the node died with exit code 1 (attempt 2 of 2)", "deaths in a row are counted as ever"


def test_a_lease_says_what_keeps_its_node() -> None:
    story = Story()
    story.opens()
    story.started()
    story.hindered()
    assert story.holdings.leases[0].why == "Unschedulable: 0/3 nodes"
    story.late()
    story.died(-9)
    assert story.holdings.leases[0].why == "the node did not become ready in time: Unschedulable: 0/3 nodes"
    story.passes(seconds=1)
    story.started()
    story.hindered(why="ErrImagePull: no such image")
    story.hindered(why="")
    story.ready()
    assert story.holdings.leases[0].why == ""


def test_a_node_may_take_as_long_to_go_as_the_last_ones_did() -> None:
    story = Story()
    for number, minutes in enumerate((1, 4, 0.1), start=1):
        story.runs(WINDOWS[number], number, minute=number * 30)
        story.closes(WINDOWS[number])
        story.now += timedelta(minutes=minutes)
        story.died(0, number)
    story.opens(FIRST, 200)
    expected = [None, timedelta(seconds=90), timedelta(minutes=6), timedelta(minutes=6)]
    assert [held.drain_time for held in story.holdings.leases] == expected
    story.closes()
    story.passes(minutes=10)
    story.died(-9, 4)
    assert transitions.drain_time(story.holdings, POLICY) == GRACE, "one that was killed needed all of it"


def test_a_failure_says_why() -> None:
    story = Story()
    story.opens()
    story.refused()
    story.passes(seconds=1)
    story.refused()
    (failed,) = story.said
    assert isinstance(failed, NodeFailed)
    assert failed.reason == "no room (attempt 2 of 2)"


def test_memory_is_bounded_and_tokens_are_not_forgotten() -> None:
    story = Story()
    count = transitions.WINDOWS_KEPT + 50
    for number in range(1, count + 1):
        window = UUID(int=number)
        story.runs(window, number, minute=number)
        story.closes(window)
        story.died(0, number)
    assert len(story.holdings.leases) == transitions.ENDED_KEPT
    assert len(story.holdings.over) == transitions.WINDOWS_KEPT
    assert story.holdings.next_token == count + 1
    story.opens(UUID(int=count - transitions.ENDED_KEPT - 5), minute=count + 1)
    assert story.holdings.next_token == count + 1, "a window whose lease is forgotten is still over"


@pytest.mark.parametrize("site", ["a", "a" * 48, "a" * 45 + "-bc"], ids=["short", "longest", "dash-at-the-cut"])
def test_node_names_fit_any_site(site: str) -> None:
    decision = claims.request(Holdings(site=site, next_token=123456), FIRST, NOON, None, NOON, POLICY)
    (start,) = decision.actions
    assert Lease.model_validate(start.lease.model_dump()).node.endswith("-123456")


HAPPENINGS = (
    "expects",
    "withdraws",
    "opens",
    "closes",
    "asked",
    "drained",
    "started",
    "ready",
    "late",
    "unseen",
    "unheard",
    "hindered",
    "cordons",
    "uncordons",
    "leaves",
    "comes",
    "died",
    "refused",
    "absent",
    "passes",
)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 120))
def test_whatever_happens(seed: int, length: int) -> None:
    """Any order of any happenings: tokens grow, one start an attempt, one end a lease, and all of them end."""
    chance = random.Random(seed)
    story = Story()
    forgiven: Counter[tuple[int, int]] = Counter()
    for _ in range(length):
        token = chance.randint(1, 8)
        window = chance.choice(WINDOWS)
        match chance.choice(HAPPENINGS):
            case "opens":
                story.opens(window, chance.randint(0, 60))
            case "expects":
                story.expects(window, chance.randint(0, 60), chance.randint(0, 30))
            case "withdraws":
                story.withdraws(window)
            case "closes":
                story.closes(window)
            case "asked":
                story.asked(chance.choice([None, window]))
            case "drained":
                story.drained(token, window)
            case "died":
                story.died(chance.choice([0, 1, -9, None]), token)
            case "refused":
                story.refused(chance.random() < 0.7, token)
            case "absent":
                before = len(story.done)
                story.absent(token)
                # Ordered again by a provisioner in its next life: the order of the last life came to nothing.
                del story.done[before:]
            case "passes":
                story.passes(seconds=chance.choice([0.5, 1, 60, 600]))
            case "cordons" | "uncordons" | "leaves" | "comes" as word:
                getattr(story, word)()
            case "unheard":
                held = story.holdings.of_id(story.lease_id(token))
                if held and held.state is LeaseState.REQUESTED and not held.waiting:
                    forgiven[held.token, held.attempts] += 1
                story.unheard(token)
            case other:
                getattr(story, other)(token)
    story.asked()
    for held in story.holdings.live:
        story.died(-9, held.token)
    assert not story.holdings.live
    assert deadlines.next_deadline(story.holdings) is None

    starts = [action.lease for action in story.done if isinstance(action, Start)]
    begun_as = Counter((begun.token, begun.attempts) for begun in starts)
    assert all(count <= 1 + forgiven[which] for which, count in begun_as.items())
    assert all(begun.attempts - begun.forgiven <= POLICY.attempts for begun in starts)
    granted = list(dict.fromkeys(begun.token for begun in starts if begun.attempts == 1))
    assert granted == sorted(set(granted)) == list(range(1, story.holdings.next_token))
    taken = Counter({begun.token: begun.window_id for begun in starts}.values())
    given_up = Counter(held.window_id for held in story.holdings.leases if held.given_up)
    assert all(count <= 1 + given_up[window] for window, count in taken.items())
    assert len({begun.lease_id for begun in starts}) == len(granted)

    ends = Counter(event.lease_token for event in story.said if not isinstance(event, NodeReady))
    assert ends == Counter(granted)
    assert (
        max(Counter(event.lease_token for event in story.said if isinstance(event, NodeReady)).values(), default=1) == 1
    )
    assert len({event.id for event in story.said}) == len(story.said)
    ordered = [action.lease.token for action in story.done if isinstance(action, Drain | Kill)]
    assert set(ordered) <= set(granted)


@dataclass(frozen=True)
class _Told:
    """One sentence, as often and wherever it is heard."""

    verb: str
    window: UUID
    minute: int

    def __call__(self, story: Story) -> None:
        match self.verb:
            case "expects":
                story.expects(self.window, self.minute)
            case "opens":
                story.opens(self.window, self.minute)
            case "asks":
                story.asked_for(self.window, self.minute)
            case "closes":
                story.closes(self.window)
            case "withdraws":
                story.withdraws(self.window)


def history(chance: random.Random) -> list[_Told]:
    """A site's windows as a watcher says them: each one is over before the next one opens; the last may stay open."""
    told: list[_Told] = []
    windows = WINDOWS[: chance.randint(1, len(WINDOWS))]
    for number, window in enumerate(windows):
        minute = number * 60
        if chance.random() < 0.5:
            told.append(_Told("expects", window, minute))
            if chance.random() < 0.3:
                told.append(_Told("withdraws", window, minute + 5))
                continue
        told.append(_Told("opens", window, minute + 10))
        if chance.random() < 0.2:
            told.append(_Told("asks", window, minute + 10))
        if window != windows[-1] or chance.random() < 0.5:
            told.append(_Told("closes", window, minute + 40))
    return told


def lived(told: Sequence[_Told], seed: int) -> Story:
    """A site that hears this, with nodes that do as they are told, and time in between."""
    chance = random.Random(seed)
    story = Story()
    answered = 0
    for sentence in told:
        sentence(story)
        while answered < len(story.done):
            order = story.done[answered]
            answered += 1
            if isinstance(order, Start):
                story.started(order.lease.token)
                story.ready(order.lease.token)
            else:
                story.died(chance.choice([0, -9]), order.lease.token)
    return story


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_in_whatever_order_and_however_often_a_history_is_heard(seed: int) -> None:
    """It ends with the same window served: once, under the youngest token, and every other lease given back once."""
    chance = random.Random(seed)
    straight = history(chance)
    twice = [sentence for sentence in straight for _ in range(chance.randint(1, 3))]
    as_told = lived(straight, seed)
    assert lived(twice, seed).holdings.leases == as_told.holdings.leases, "said twice at once, it is heard once"

    shuffled = [*straight, *chance.choices(straight, k=chance.randint(0, 20))]
    chance.shuffle(shuffled)
    story = lived(shuffled, seed)
    serves = [held.window_id for held in as_told.holdings.live]
    assert [held.window_id for held in story.holdings.live] == serves
    tokens = [begun.lease.token for begun in story.done if isinstance(begun, Start)]
    assert tokens == list(range(1, story.holdings.next_token))
    assert all(held.token == max(tokens) for held in story.holdings.live)
    ends = Counter(event.lease_token for event in story.said if isinstance(event, NodeReleased))
    assert ends == Counter(set(tokens) - {held.token for held in story.holdings.live})
