"""What a federation decides, as scripts and what follows from them, and as promises over any sequence of inputs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import exp, nan
from typing import Literal, get_args
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.contracts.commands import FinishRound
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    EnergyRecorded,
    FederationPaused,
    FederationResumed,
    NodeProfiled,
    RoundCompleted,
    RoundDiscarded,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)
from windfall.contracts.message import Message
from windfall.federation_coordinator import ending, membership, pausing, quality, rounds
from windfall.federation_coordinator.choosing import ForSite, settings_of
from windfall.federation_coordinator.federation import (
    Best,
    Contribution,
    Decision,
    Ends,
    Federation,
    Fenced,
    NotMember,
    Phase,
    Policy,
    Progress,
    Word,
)
from windfall.federation_coordinator.pace import Pace
from windfall.federation_coordinator.taking_part import AGAIN

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = UUID(int=1)
BY_TIME = Policy(timedelta(minutes=20), None, timedelta(minutes=5), None)
BY_STEPS = Policy(None, 100, timedelta(minutes=5), None)
BY_TOKENS = replace(BY_STEPS, steps=None, tokens=50, straggler_limit=timedelta(minutes=30))
LONE = replace(BY_STEPS, alone=timedelta(hours=1), alone_codec="int8-block")
PAIRS = replace(BY_TIME, minimum=2)
ONCE = replace(BY_TIME, once=True)
TURNS = replace(BY_TIME, maximum=2)
SPARED = replace(BY_TIME, left_out={"b": "it costs more than it brings"})
WITHOUT = replace(PAIRS, sites={"c": ForSite(takes_part=False)})
CUT = replace(BY_STEPS, steps=None, pace=Pace({"a": 1, "b": 1, "c": 2}, 1, "told"), cuts=True)
POLICIES = [
    SPARED,
    WITHOUT,
    CUT,
    BY_TIME,
    BY_STEPS,
    BY_TOKENS,
    LONE,
    PAIRS,
    TURNS,
    replace(PAIRS, maximum=2),
    ONCE,
    replace(PAIRS, once=True),
    replace(LONE, maximum=1),
]


@dataclass
class Play:
    """A federation that is played to, and what it said, told and had merged."""

    policy: Policy = BY_TIME
    now: datetime = NOON
    state: Federation = field(default_factory=lambda: Federation(name="demo", base_digest="0" * 64))
    said: list[Message] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    merges: int = 0
    progresses: dict[str, Progress] = field(default_factory=dict)
    acts: set[str] = field(default_factory=set)

    def take(self, taken: tuple[Federation, Decision]) -> None:
        self.state, decision = taken
        self.said += decision.say
        self.merges += decision.merge
        self.lines += [line for message in decision.say if (line := told_of(message))]
        self.lines += ["merge"] * decision.merge

    def join(self, site: str, token: int = 1) -> None:
        self.take(membership.join(self.state, site, WINDOW, token, self.now, self.policy, self.progresses))

    def push(self, site: str, tokens: int = 10, attempt: int | None = None) -> None:
        attempt = attempt or self.state.attempts[site]
        self.take(
            rounds.accept(self.state, contribution(site, attempt, tokens, self.state.round), self.now, self.policy)
        )

    def late(self, site: str, rounds_late: int, tokens: int) -> None:
        base_round = self.late_from(rounds_late)
        said = contribution(site, self.state.attempts[site], tokens, base_round)
        self.take(rounds.accept(self.state, said, self.now, self.policy))

    def late_from(self, rounds_late: int) -> int:
        """The round that is so many turns of its fragment behind the one that runs."""
        soonest = self.state.round + (self.state.phase is Phase.MERGING)
        return soonest - rounds_late * self.state.fragments

    def trains(self, site: str, tokens: int) -> None:
        """It gets on, and says so."""
        known = self.progresses.get(site)
        key = (self.state.round, self.state.attempts[site])
        total = tokens + (known.tokens if known and (known.round, known.attempt) == key else 0)
        self.progresses[site] = Progress(*key, total, self.now)
        self.tick()

    def tick(self) -> None:
        self.take(rounds.tick(self.state, self.now, self.policy, self.progresses))

    def refuse(self, site: str, number: int | None = None) -> None:
        number = self.state.round if number is None else number
        self.take(membership.refuse(self.state, site, self.state.attempts[site], number, self.now, self.policy))

    def leave(self, site: str, reason: Literal["drained", "silent"] = "drained", attempt: int | None = None) -> None:
        attempt = attempt or self.state.attempts.get(site, 1)
        self.take(membership.leave(self.state, site, attempt, reason, self.now, self.policy))

    def wait(self, minutes: int) -> None:
        """Time passes as the coordinator lets it: it ticks when there is something to do."""
        end = self.now + timedelta(minutes=minutes)
        while (at := rounds.next_instant(self.state, self.policy, self.progresses)) is not None and at <= end:
            self.now = max(self.now, at)
            self.tick()
        self.now = end

    def merged(self) -> None:
        digest = f"{self.state.round + 1:064x}"
        self.take(rounds.merged(self.state, digest, 7, self.now, self.policy))

    def discarded(self) -> None:
        digest = f"{self.state.round + 1:063x}d"
        self.take(quality.discarded(self.state, digest, "it is worse", self.now, self.policy))

    def stop(self) -> None:
        self.take(rounds.stop(self.state, self.now, self.policy))

    def pause(self) -> None:
        self.take(pausing.pause(self.state, self.now, self.policy, "new disks"))

    def resume(self) -> None:
        self.take(pausing.resume(self.state, self.now, self.policy, "asked"))

    def perform(self, script: str) -> None:
        for act in script.split(";"):
            word, *rest = act.split()
            match word:
                case "join":
                    site, _, token = rest[0].partition("/")
                    self.join(site, int(token or 1))
                case "push":
                    self.push(rest[0], int(rest[1]) if len(rest) > 1 else 10)
                case "refuse" | "silent" | "leave":
                    site, _, attempt = rest[0].partition("@")
                    if word == "refuse":
                        self.refuse(site)
                    else:
                        self.leave(site, "silent" if word == "silent" else "drained", int(attempt or 0) or None)
                case "wait":
                    self.wait(int(rest[0]))
                case "merged":
                    self.merged()
                case "discarded":
                    self.discarded()
                case "late":
                    self.late(rest[0], int(rest[1]), int(rest[2]))
                case "trains":
                    self.trains(rest[0], int(rest[1]))
                case "stop":
                    self.stop()
                case "pause":
                    self.pause()
                case "resume":
                    self.resume()
                case _:
                    raise ValueError(act)


def contribution(site: str, attempt: int, tokens: int = 10, base_round: int = 0) -> Contribution:
    return Contribution(
        site=site,
        attempt=attempt,
        base_round=base_round,
        tokens=tokens,
        steps=1,
        loss_nats=2.5,
        bytes_up=100,
        partial=False,
        sha256="ab" * 32,
        codec="fp32",
    )


def told_of(message: Message) -> str:
    match message:
        case SiteJoined():
            return f"{message.site}{message.attempt} joins {message.round}"
        case RoundStarted():
            return f"{message.round} starts with {','.join(message.members)}"
        case ContributionAccepted():
            return f"{message.site}{message.attempt} counts"
        case RoundCompleted():
            return f"{message.round} completed by {','.join(message.contributors)}: {message.tokens}"
        case RoundDiscarded():
            return f"{message.round} discarded"
        case SiteLeft():
            return f"{message.site}{message.attempt} {message.reason}"
        case FinishRound():
            return f"finish {message.site}"
        case FederationPaused():
            return f"paused before {message.round}"
        case FederationResumed():
            return f"resumed before {message.round}"
    return ""


SCRIPTS: dict[str, tuple[Policy, str, str, Phase]] = {
    "one site, boxed by time": (
        BY_TIME,
        "join a; wait 19; wait 1; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "one site, boxed by steps": (
        BY_STEPS,
        "join a; wait 600; push a; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "many: the last contribution ends the round before its time": (
        BY_TIME,
        "join a; join b; join c; push b 1; push a 2; push c 3; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 0|b1 counts|a1 counts|c1 counts|merge"
        "|0 completed by a,b,c: 6|1 starts with a,b,c",
        Phase.RUNNING,
    ),
    "a site that joins in mid-round is waited for": (
        BY_TIME,
        "join a; wait 10; join b; wait 10; push a; push b",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "a site that joins while finishing is not waited for": (
        BY_TIME,
        "join a; wait 20; join b; push a; merged",
        "a1 joins 0|0 starts with a|finish a|b1 joins 1|a1 counts|merge|0 completed by a: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "but what it brings in time counts": (
        BY_TIME,
        "join a; wait 20; join b; push b 5; push a; merged",
        "a1 joins 0|0 starts with a|finish a|b1 joins 1|b1 counts|a1 counts|merge|0 completed by a,b: 15"
        "|1 starts with a,b",
        Phase.RUNNING,
    ),
    "a site that joins while merging opens the next round with the others": (
        BY_TIME,
        "join a; push a; join b; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|b1 joins 1|0 completed by a: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "all leave and nothing was brought: dark, and the same round again": (
        BY_TIME,
        "join a; join b; leave a; silent b; wait 60; join a",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 drained|b1 silent|a2 joins 0|0 starts with a",
        Phase.RUNNING,
    ),
    "all leave, but one contributed: merged without them": (
        BY_TIME,
        "join a; join b; push a; leave a; silent b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|a1 drained|b1 silent|merge|0 completed by a: 10",
        Phase.DARK,
    ),
    "a round that ended with nothing opens and ends again": (
        BY_TIME,
        "join a; wait 20; leave a; join a; wait 20; push a",
        "a1 joins 0|0 starts with a|finish a|a1 drained|a2 joins 0|0 starts with a|finish a|a2 counts|merge",
        Phase.MERGING,
    ),
    "a straggler is waited for until the deadline": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 4",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts",
        Phase.FINISHING,
    ),
    "and not longer": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|0 completed by a: 10"
        "|1 starts with a,b",
        Phase.RUNNING,
    ),
    "without any contribution the deadline waits for the first": (
        BY_TIME,
        "join a; join b; wait 60; push b; wait 0",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|b1 counts|merge",
        Phase.MERGING,
    ),
    "the same contribution again changes nothing": (
        BY_TIME,
        "join a; join b; push a 3; push a 3; push b 4; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge|0 completed by a,b: 7|1 starts with a,b",
        Phase.RUNNING,
    ),
    "a restarted trainer replaces its attempt": (
        BY_TIME,
        "join a; join a; push a; merged",
        "a1 joins 0|0 starts with a|a1 replaced|a2 joins 0|a2 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "what the replaced attempt had contributed counts beside the new one's": (
        BY_TIME,
        "join a; join b; push a 1; join a; push a 2; push b 4; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|a1 replaced|a2 joins 0|a2 counts|b1 counts|merge"
        "|0 completed by a,a,b: 7|1 starts with a,b",
        Phase.RUNNING,
    ),
    "replaced while it alone was waited for: the round opens again": (
        BY_TIME,
        "join a; wait 20; join a",
        "a1 joins 0|0 starts with a|finish a|a1 replaced|a2 joins 1|0 starts with a",
        Phase.RUNNING,
    ),
    "replaced while it was the last one that was waited for: merged": (
        BY_TIME,
        "join a; join b; wait 20; push b; join a; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|b1 counts|a1 replaced|a2 joins 1|merge"
        "|0 completed by b: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "an older attempt cannot end the newer one's membership": (
        BY_TIME,
        "join a; join a; leave a@1; silent a@1",
        "a1 joins 0|0 starts with a|a1 replaced|a2 joins 0",
        Phase.RUNNING,
    ),
    "leaving twice is leaving once": (
        BY_TIME,
        "join a; leave a; leave a; silent a",
        "a1 joins 0|0 starts with a|a1 drained",
        Phase.DARK,
    ),
    "what is refused is not waited for": (
        BY_STEPS,
        "join a; join b; push b; refuse a; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|b1 counts|merge|0 completed by b: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "all is refused: the round opens again": (
        BY_STEPS,
        "join a; join b; refuse a; refuse b",
        "a1 joins 0|0 starts with a|b1 joins 0|0 starts with a,b",
        Phase.RUNNING,
    ),
    "refused at first, it brings a better one in time": (
        BY_TIME,
        "join a; join b; refuse a; push a 4; push b 3; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge|0 completed by a,b: 7|1 starts with a,b",
        Phase.RUNNING,
    ),
    "a refusal after the contribution was accepted changes nothing": (
        BY_TIME,
        "join a; join b; push a; refuse a",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts",
        Phase.RUNNING,
    ),
    "a site that is alone trains on": (
        LONE,
        "join a; wait 59",
        "a1 joins 0|0 starts with a",
        Phase.RUNNING,
    ),
    "alone, it hands its model in now and then": (
        LONE,
        "join a; wait 60; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "company that comes before it has trained takes part at once": (
        LONE,
        "join a; join b; push a; push b",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "company that comes later begins with what it learnt": (
        LONE,
        "join a; trains a 40; join b; push a; merged; push b; push a",
        "a1 joins 0|0 starts with a|b1 joins 1|finish a|a1 counts|merge|0 completed by a: 10|1 starts with a,b"
        "|b1 counts|a1 counts|merge",
        Phase.MERGING,
    ),
    "alone again when the other has left": (
        LONE,
        "join a; join b; push a; push b; leave b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge|b1 drained|0 completed by a,b: 20"
        "|1 starts with a",
        Phase.RUNNING,
    ),
    "a box of tokens is full": (
        BY_TOKENS,
        "join a; join b; trains a 30; trains b 19; trains a 1",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b",
        Phase.FINISHING,
    ),
    "what has been contributed fills it as well": (
        BY_TOKENS,
        "join a; join b; push a 45; trains b 5",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|finish b",
        Phase.FINISHING,
    ),
    "a straggler that gets on is waited for": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 4; trains b 1; wait 4; trains b 1; wait 4; push b",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "but not for ever": (
        BY_TOKENS,
        "join a; join b; push a 50; trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4; "
        "trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|finish b|merge",
        Phase.MERGING,
    ),
    "who costs more than it brings is left out": (
        SPARED,
        "join a; join b; push a; merged; push a",
        "a1 joins 0|0 starts with a|b1 joins 1|a1 counts|merge|0 completed by a: 10|1 starts with a|a1 counts|merge",
        Phase.MERGING,
    ),
    "but not where nobody else is": (SPARED, "join b", "b1 joins 0|0 starts with b", Phase.RUNNING),
    "who is wanted in no round counts for nothing": (
        WITHOUT,
        "join a; join c; join b; push a; push b",
        "a1 joins 0|c1 joins 0|b1 joins 0|0 starts with a,b|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "once half have taken their steps the others bring what they have": (
        CUT,
        "join a; join b; join c; push a; push b; push c",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 0|a1 counts|b1 counts|finish c|c1 counts|merge",
        Phase.MERGING,
    ),
    "too late for its round, it goes into the next": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; merged; late b 1 7; push a; push b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|0 completed by a: 10|1 starts with a,b"
        "|b1 counts|a1 counts|b1 counts|merge|1 completed by a,b,b: 27|2 starts with a,b",
        Phase.RUNNING,
    ),
    "while its round is merged it is late already": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; late b 1 7; merged; push a; push b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|b1 counts|0 completed by a: 10"
        "|1 starts with a,b|a1 counts|b1 counts|merge|1 completed by a,b,b: 27|2 starts with a,b",
        Phase.RUNNING,
    ),
    "what came late counts even when nobody trains any more": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; merged; late b 1 7; leave a; leave b; stop; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|0 completed by a: 10|1 starts with a,b"
        "|b1 counts|a1 drained|b1 drained|merge|1 completed by b: 7",
        Phase.FINISHED,
    ),
    "a quorum is waited for": (
        PAIRS,
        "join a; join b; push b",
        "a1 joins 0|b1 joins 0|0 starts with a,b|b1 counts",
        Phase.RUNNING,
    ),
    "and when it is lost, the next who comes makes it up": (
        PAIRS,
        "join a; join b; push a; leave b; join c; push c",
        "a1 joins 0|b1 joins 0|0 starts with a,b|a1 counts|b1 drained|c1 joins 0|c1 counts|merge",
        Phase.MERGING,
    ),
    "a round has as many sites as may, and they take turns": (
        TURNS,
        "join a; join b; join c; push a; push b; merged; push c; push a; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 1|a1 counts|b1 counts|merge|0 completed by a,b: 20"
        "|1 starts with a,c|c1 counts|a1 counts|merge|1 completed by a,c: 20|2 starts with a,b",
        Phase.RUNNING,
    ),
    "who is in reserve takes the place of one who leaves": (
        TURNS,
        "join a; join b; join c; leave a; push b; push c",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 1|a1 drained|b1 counts|c1 counts|merge",
        Phase.MERGING,
    ),
    "a model that is discarded spends its number": (
        BY_TIME,
        "join a; push a; discarded; push a; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 discarded|1 starts with a|a1 counts|merge|1 completed by a: 10"
        "|2 starts with a",
        Phase.RUNNING,
    ),
    "told to stop in the dark": (BY_TIME, "stop", "", Phase.FINISHED),
    "told to stop while running: the round is finished first": (
        BY_TIME,
        "join a; stop; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10",
        Phase.FINISHED,
    ),
    "told to stop while running, and all leave with nothing": (
        BY_TIME,
        "join a; stop; leave a",
        "a1 joins 0|0 starts with a|finish a|a1 drained",
        Phase.FINISHED,
    ),
    "told to stop while finishing": (
        BY_TIME,
        "join a; wait 20; stop; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10",
        Phase.FINISHED,
    ),
    "told to stop while merging": (
        BY_TIME,
        "join a; push a; stop; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 completed by a: 10",
        Phase.FINISHED,
    ),
    "paused while running: what was trained counts, and it goes on from there": (
        BY_TIME,
        "join a; wait 5; pause; push a; merged; wait 60; resume",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10|paused before 1|resumed before 1"
        "|1 starts with a",
        Phase.RUNNING,
    ),
    "paused, and all leave with nothing: the round opens again under its number": (
        BY_TIME,
        "join a; pause; leave a; join b; resume",
        "a1 joins 0|0 starts with a|finish a|a1 drained|paused before 0|b1 joins 0|resumed before 0|0 starts with b",
        Phase.RUNNING,
    ),
    "paused with too few contributions: they wait for more under the same number": (
        PAIRS,
        "join a; join b; push a; pause; leave b; join c; resume; push c",
        "a1 joins 0|b1 joins 0|0 starts with a,b|a1 counts|finish b|b1 drained|paused before 0|c1 joins 0"
        "|resumed before 0|0 starts with c|c1 counts|merge",
        Phase.MERGING,
    ),
    "paused while merging, and the model is discarded": (
        BY_TIME,
        "join a; push a; pause; discarded",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 discarded|paused before 1",
        Phase.DARK,
    ),
    "resumed before the running round is over: no pause": (
        BY_TIME,
        "join a; pause; resume; push a; merged",
        "a1 joins 0|0 starts with a|finish a|resumed before 0|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "paused and resumed twice": (
        BY_TIME,
        "pause; pause; join a; resume; resume; leave a; pause",
        "paused before 0|a1 joins 0|resumed before 0|0 starts with a|a1 drained|paused before 0",
        Phase.DARK,
    ),
    "to stop is stronger than to pause": (BY_TIME, "pause; stop; pause; resume", "paused before 0", Phase.FINISHED),
    "told to stop twice": (BY_TIME, "stop; stop; join a", "a1 joins 1", Phase.FINISHED),
}


@pytest.mark.parametrize(("policy", "script", "transcript", "phase"), SCRIPTS.values(), ids=SCRIPTS)
def test_script(policy: Policy, script: str, transcript: str, phase: Phase) -> None:
    play = Play(policy)
    play.perform(script)
    assert "|".join(play.lines) == transcript
    assert play.state.phase is phase
    check_story(play)


def test_a_lease_that_was_overtaken_is_fenced_and_changes_nothing() -> None:
    play = Play()
    play.perform("join a/3; leave a")
    with pytest.raises(Fenced, match="3 is newer"):
        play.join("a", token=2)
    play.join("a", token=3)
    assert play.state.members["a"].lease_token == 3


@pytest.mark.parametrize(
    ("script", "site", "attempt", "words"),
    [
        ("join a", "a", 1, ["opened"]),
        ("join a; push a; join a; join b", "b", 1, []),
        ("join a; wait 20", "a", 1, ["opened", "finish"]),
        ("join a; join b; push a", "a", 1, []),
        ("join a; join b; wait 20; push a", "a", 1, []),
        ("join a; join b; refuse a", "a", 1, []),
        ("join a; wait 20; join b", "b", 1, []),
        ("join a; push a", "a", 1, []),
        ("stop", "a", 1, ["stop"]),
        ("join a; stop; push a; merged", "a", 1, ["stop"]),
    ],
    ids=[
        "running",
        "merging, as a newcomer",
        "finishing",
        "contributed while running",
        "contributed while finishing",
        "refused",
        "joined while finishing",
        "merging",
        "finished, as a stranger",
        "finished",
    ],
)
def test_a_stream_that_opens_hears_where_the_federation_stands(
    script: str, site: str, attempt: int, words: list[str]
) -> None:
    play = Play()
    play.perform(script)
    assert [word.kind for word in membership.resume(play.state, site, attempt).tell] == words


@pytest.mark.parametrize("script", ["join b", "join a; leave a", "join a; join a"], ids=["never", "left", "replaced"])
def test_a_stream_of_an_ended_membership_is_told_to_join_again(script: str) -> None:
    play = Play()
    play.perform(script)
    with pytest.raises(NotMember):
        membership.resume(play.state, "a", 1)


def test_a_receipt_outlives_its_round() -> None:
    play = Play()
    play.perform("join a; join b; push a; push b; merged; push b; leave a; merged; join b; push b; merged")
    assert play.state.round == 3
    assert [rounds.accepted(play.state, number, "a", 1) for number in range(4)] == [True, False, False, False]
    assert rounds.accepted(play.state, 2, "b", 2)
    assert not rounds.accepted(play.state, 0, "a", 2)
    assert not rounds.accepted(play.state, 0, "c", 1)


def test_the_round_completed_weighs_the_loss_by_tokens() -> None:
    play = Play()
    play.perform("join a; join b")
    for site, tokens, loss in (("a", 30, 1.0), ("b", 10, 3.0)):
        brought = contribution(site, 1, tokens).model_copy(update={"loss_nats": loss})
        play.take(rounds.accept(play.state, brought, play.now, play.policy))
    play.merged()
    completed = next(message for message in play.said if isinstance(message, RoundCompleted))
    assert (completed.loss_nats, completed.bytes_up, completed.bytes_down) == (1.5, 200, 7)
    assert completed.model_digest == play.state.base_digest


def test_who_is_left_out_takes_part_now_and_then_and_it_is_said_why() -> None:
    play = Play(SPARED)
    play.perform("join a; join b")
    for _ in range(2 * AGAIN + 3):
        for site in ("a", "b"):
            if rounds.waited_for(play.state, play.state.members[site]):
                play.push(site)
        play.merged()
    started = [message for message in play.said if isinstance(message, RoundStarted)][1:]
    took_part = [one.round for one in started if "b" in one.members]
    assert [after - before for before, after in pairwise(took_part)] == [AGAIN + 1]
    assert all(("b" in one.members) != (one.left_out == SPARED.left_out) for one in started)


def test_a_profile_decides_the_micro_batch() -> None:
    event = NodeProfiled.model_validate(
        {
            "id": UUID(int=2),
            "at": NOON,
            "site": "a",
            "window_id": WINDOW,
            "lease_token": 1,
            "node": "n",
            "measured": {"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1},
            "recommendation": {"micro_batch": 16, "local_steps": 1, "because": "it fits"},
        }
    )
    state = membership.profiled(Play().state, event)
    assert state.recommended["a"].micro_batch == 16
    assert settings_of("a", Policy(None, None, timedelta(), None).for_all, state.recommended["a"]).samples == 16


# --- promises over any sequence ---------------------------------------------------------------------------------------

Act = Literal[
    "join",
    "push",
    "duplicate",
    "refuse",
    "leave",
    "silent",
    "an old word",
    "late",
    "trains",
    "tick",
    "merged",
    "discarded",
    "pause",
    "resume",
    "stop",
]
ACTS = st.tuples(
    st.sampled_from(
        [*(act for act in get_args(Act) if act != "stop"), "push", "push", "join", "merged", "tick", "resume"]
    ),
    st.sampled_from("abc"),
    st.integers(1, 1000),
)


def act(play: Play, kind: Act, site: str, amount: int) -> None:
    """One input, if the service would let it through to the decisions at all."""
    open_now = play.state.phase in (Phase.RUNNING, Phase.FINISHING)
    member = site in play.state.members
    if member and play.policy.once and kind == "push" and rounds.has_spoken(play.state, site, play.state.round):
        return
    match kind:
        case "join":
            play.join(site, token=play.state.lease_tokens.get(site, 0) + amount % 2 or 1)
        case "push" if member and open_now:
            play.push(site, amount)
        case "duplicate" if play.state.contributions:
            again = play.state.contributions[amount % len(play.state.contributions)]
            before = play.state
            said = contribution(again.site, again.attempt, amount, again.base_round)
            play.take(rounds.accept(play.state, said, play.now, play.policy))
            assert play.state is before
        case "refuse" if member:
            play.refuse(site, play.state.round - amount % 2)
        case "leave" | "silent":
            play.leave(site, "drained" if kind == "leave" else "silent")
        case "late" if (
            member
            and rounds.standing(play.state, late_from := play.late_from(1 + amount % 4), play.policy) == "late"
            and late_from >= 0
        ):
            play.late(site, 1 + amount % 4, amount)
        case "trains" if member:
            play.trains(site, amount % 20)
        case "an old word" if play.state.attempts.get(site, 0) > 1:
            before = play.state
            play.leave(site, "silent", play.state.attempts[site] - 1)
            assert play.state is before
        case "tick":
            play.wait(amount % 30)
        case "merged" if play.state.phase is Phase.MERGING:
            play.merged()
        case "discarded" if play.state.phase is Phase.MERGING:
            play.discarded()
        case "pause":
            play.pause()
        case "resume":
            base = play.state.base_digest
            play.resume()
            assert play.state.base_digest == base, "it goes on from the model at which it was paused"
        case "stop":
            play.stop()


def waited_for(state: Federation) -> list[str]:
    """Whom a round that is open waits for, told by whether a stream that opens now would be put to work."""
    found = []
    for member in state.members.values():
        words = [word.kind for word in membership.resume(state, member.site, member.attempt).tell]
        found += [member.site] if "opened" in words else []
    return found


def check_promises(play: Play, before: Federation) -> None:
    state, policy = play.state, play.policy
    assert state.round - before.round in (0, 1)
    keys = [one.key for one in (*state.contributions, *state.late)]
    assert len(set(keys)) == len(keys)
    quorum = len({one.site for one in state.contributions}) >= policy.minimum
    if state.phase in (Phase.RUNNING, Phase.FINISHING):
        assert waited_for(state) or not quorum, "the round waits for nobody: it is stuck"
        training = [one for one in state.members.values() if one.since <= state.round]
        assert policy.maximum is None or len(training) <= policy.maximum
        assert policy.maximum is None or len(training) == min(policy.maximum, len(state.members)) or refused(play)
    if state.phase is Phase.MERGING:
        assert state.contributions
        assert all(0 <= one.rounds_late <= 4 for one in state.contributions)
        assert {one.base_round % state.fragments for one in state.contributions} == {state.round % state.fragments}
    if state.phase is Phase.DARK:
        assert len(state.members) < policy.minimum or state.paused
        assert state.resting == state.paused, "who is paused and rests has said so"
    assert not (state.paused and state.phase is Phase.RUNNING), "no round runs while it is paused"
    if state.lone and state.phase is Phase.RUNNING:
        assert len(waited_for(state)) <= 1
        assert all(membership.steps_of(state, site, policy) == 0 for site in state.members)
    if policy.length is not None and state.phase is Phase.RUNNING and waited_for(state):
        assert state.ends_at is not None
        assert rounds.next_instant(state, policy) == state.ends_at
    if state.phase is Phase.FINISHING and quorum:
        assert rounds.next_instant(state, policy, play.progresses) is not None


def refused(play: Play) -> bool:
    """Who brought what does not pass, or came while the round was finishing, sits until the next opening."""
    return play.state.phase is Phase.FINISHING or "refuse" in play.acts or "join" in play.acts


def of(said: Iterable[Message], kind: type[Message]) -> list[Message]:
    return [message for message in said if isinstance(message, kind)]


def check_story(play: Play) -> None:
    """What was said, as a whole."""
    said = play.said
    assert len({message.id for message in said}) == len(said), "two sentences under one id: the bus would keep one"
    completed = [message for message in said if isinstance(message, RoundCompleted)]
    discarded = [message.round for message in said if isinstance(message, RoundDiscarded)]
    assert sorted([one.round for one in completed] + discarded) == list(range(play.state.round))
    assert all(later.base_digest == earlier.model_digest for earlier, later in pairwise(completed))
    assert play.state.tokens_total == sum(one.tokens for one in completed)
    assert play.merges == play.state.round + (play.state.phase is Phase.MERGING)
    accepted = [message for message in said if isinstance(message, ContributionAccepted)]
    counted = Counter((one.round - one.rounds_late, one.site, one.attempt) for one in accepted)
    assert not counted or max(counted.values()) == 1
    refused_after = {(one.round, one.site, one.attempt) for one in said if isinstance(one, ContributionRefused)}
    lost = [one for one in accepted if (one.round - one.rounds_late, one.site, one.attempt) in refused_after]
    in_hand = sum(one.tokens for one in (*play.state.contributions, *play.state.late))
    assert sum(one.tokens for one in accepted) == play.state.tokens_total + in_hand + sum(one.tokens for one in lost)
    joined = [(one.site, one.attempt) for one in said if isinstance(one, SiteJoined)]
    left = [(one.site, one.attempt) for one in said if isinstance(one, SiteLeft)]
    assert len(set(joined)) == len(joined)
    assert len(set(left)) == len(left)
    members = {(one.site, one.attempt) for one in play.state.members.values()}
    assert set(joined) - set(left) == members


def run_out(play: Play) -> None:
    """Everybody who is waited for contributes or leaves: the round must move on."""
    while play.state.phase in (Phase.RUNNING, Phase.FINISHING) and waited_for(play.state):
        before, waiting = play.state, waited_for(play.state)
        for number, site in enumerate(waiting):
            if number % 2:
                play.leave(site, "silent")
            else:
                play.push(site)
        moved = (play.state.phase, play.state.round, play.state.openings)
        # Who was in reserve may have taken the place of one who left.
        still = set(waited_for(play.state)) & set(waiting)
        assert moved != (before.phase, before.round, before.openings) or not still
        if play.state.phase is Phase.RUNNING:
            break


@settings(deadline=None)
@given(st.sampled_from(POLICIES), st.lists(ACTS, max_size=60), st.booleans(), st.sampled_from([1, 1, 2, 3]))
def test_whatever_comes(policy: Policy, acts: list[tuple[Act, str, int]], stops: bool, fragments: int) -> None:
    play = Play(policy, state=Federation(name="demo", base_digest="0" * 64, fragments=fragments))
    for number, (kind, site, amount) in enumerate(acts):
        before = play.state
        play.acts.add(kind)
        act(play, "stop" if stops and number == len(acts) // 2 else kind, site, amount)
        check_promises(play, before)
        # What is journaled comes back as it was.
        assert Federation.model_validate_json(play.state.model_dump_json()) == play.state
    run_out(play)
    check_story(play)


def test_what_is_late_waits_for_the_turn_of_its_fragment() -> None:
    play = Play(state=Federation(name="demo", base_digest="0" * 64, fragments=3))
    for site in "ab":
        play.join(site)
    for _ in range(2):
        play.push("a")
        play.push("b")
        play.merged()
    assert (play.state.round, play.state.phase) == (2, Phase.RUNNING)
    late = contribution("b", 7, 100, 0)
    play.take(rounds.accept(play.state, late, play.now, play.policy))
    (said,) = [one for one in of(play.said, ContributionAccepted) if one.attempt == 7]  # type: ignore[attr-defined]
    # It counts in round 3, the next of fragment 0, as one outer step late.
    assert (said.round, said.rounds_late) == (3, 3)  # type: ignore[attr-defined]
    play.push("a")
    play.push("b")
    assert play.state.late == (late,)
    play.merged()
    play.push("a")
    play.push("b")
    assert not play.state.late
    assert [one.rounds_late for one in play.state.contributions] == [0, 0, 1]
    play.merged()
    # Four outer steps of its fragment are the most, however many rounds that is.
    oldest = play.state.round - 1
    for number in range(oldest, -1, -1):
        assert rounds.standing(play.state, number, play.policy) == "late"
    while play.state.round < 14:
        play.push("a")
        play.push("b")
        play.merged()
    assert [rounds.standing(play.state, number, play.policy) for number in (0, 1, 2, 3)] == [None, None, "late", "late"]


def test_what_is_late_when_the_federation_ends_and_is_of_another_fragment_is_refused_and_said() -> None:
    play = Play(state=Federation(name="demo", base_digest="0" * 64, fragments=3))
    for site in "ab":
        play.join(site)
    for _ in range(2):
        play.push("a")
        play.push("b")
        play.merged()
    for number in (0, 1):
        play.take(rounds.accept(play.state, contribution("b", 7, 100, number), play.now, play.policy))
    play.push("a")
    play.push("b")
    play.stop()
    play.merged()
    # Round 3 merges what is late for fragment 0, and round 4 what is late for fragment 1.
    assert play.state.phase is Phase.MERGING
    play.merged()
    play.merged()
    assert play.state.phase is Phase.FINISHED and not of(play.said, ContributionRefused)

    play = Play(state=Federation(name="demo", base_digest="0" * 64, fragments=3))
    play.join("a")
    for _ in range(2):
        play.push("a")
        play.merged()
    play.take(rounds.accept(play.state, contribution("b", 7, 100, 1), play.now, play.policy))
    play.push("a")
    play.stop()
    play.merged()
    assert play.state.phase is Phase.FINISHED and not play.state.late
    (refused,) = of(play.said, ContributionRefused)
    assert (refused.round, refused.reason) == (1, "round")  # type: ignore[attr-defined]


@settings(deadline=None)
@given(st.permutations("abcd"))
def test_the_order_of_arrival_changes_no_fact_of_the_round(order: list[str]) -> None:
    play = Play()
    for site in "abcd":
        play.join(site)
    for site in order:
        play.push(site, tokens=ord(site))
    play.merged()
    completed = next(message for message in play.said if isinstance(message, RoundCompleted))
    assert (completed.contributors, completed.tokens) == (("a", "b", "c", "d"), sum(map(ord, "abcd")))


def test_words_are_for_members() -> None:
    play = Play()
    play.perform("join a; wait 20; join b; push a")
    _, decision = rounds.merged(play.state, "1" * 64, 0, play.now, play.policy)
    assert decision.tell == (Word("a", "opened"), Word("b", "opened"))


# --- the rule that everybody follows ----------------------------------------------------------------------------------


def test_another_rule_ends_every_membership_and_what_was_accepted_counts() -> None:
    play = Play()
    play.take(membership.ruled(play.state, "topk-ef", play.now, play.policy))
    play.join("site-a")
    play.join("site-b")
    play.push("site-a")
    play.take(membership.ruled(play.state, "topk-ef", play.now, play.policy))
    assert sorted(play.state.members) == ["site-a", "site-b"]
    play.take(membership.ruled(play.state, "int4-block", play.now, play.policy))
    assert not play.state.members
    assert [left.reason for left in play.said if isinstance(left, SiteLeft)] == ["replaced", "replaced"]
    assert (play.state.phase, play.merges) == (Phase.MERGING, 1)
    play.join("site-b")
    assert play.state.attempts["site-b"] == 2


# --- ends, the best model, and going back to it -----------------------------------------------------------------------


def test_where_each_is_a_vote_a_site_that_joins_again_has_no_second_one() -> None:
    play = Play(ONCE)
    for site in "abc":
        play.join(site)
    play.push("a", 10)
    play.join("a")
    # It is not waited for, and trains from the next round on.
    assert sorted(waited_for(play.state)) == ["b", "c"]
    play.push("b", 10)
    play.push("c", 10)
    assert play.state.phase is Phase.MERGING
    assert [one.site for one in play.state.contributions] == ["a", "b", "c"]
    play.merged()
    assert sorted(waited_for(play.state)) == ["a", "b", "c"]
    weighed = Play(BY_TIME)
    weighed.join("a")
    weighed.join("b")
    weighed.push("a", 10)
    weighed.join("a")
    assert sorted(waited_for(weighed.state)) == ["a", "b"]


def test_late_it_weighs_less_by_every_outer_step() -> None:
    play = Play()
    play.perform("join a; join b; wait 20; push a; wait 5; merged; late b 1 100; push a; push b; merged")
    weights = {one.rounds_late: one.weight for one in (contribution("b", 1, 100, 0),)}
    assert weights == {0: 100}
    assert contribution("b", 1, 100).model_copy(update={"rounds_late": 2}).weight == pytest.approx(100 * exp(-1))


@pytest.mark.parametrize(
    ("ends", "script", "because"),
    [
        (Ends(tokens=20), "join a; push a 10; merged; push a 10; merged", "20 tokens are trained"),
        (Ends(at=NOON + timedelta(minutes=30)), "join a; wait 20; push a; merged; wait 10; push a; merged", "deadline"),
        (Ends(at=NOON + timedelta(minutes=30)), "wait 30", "deadline"),
    ],
    ids=["tokens", "deadline while it runs", "deadline in the dark"],
)
def test_a_federation_has_enough(ends: Ends, script: str, because: str) -> None:
    play = Play(replace(BY_TIME, ends=ends))
    play.perform(script)
    assert play.state.phase is Phase.FINISHED
    assert because in play.state.stopped_because


def score(play: Play, loss: float) -> None:
    model = Best(round=play.state.round, digest=play.state.base_digest, loss_nats=loss)
    best = quality.is_best(play.state, loss)
    play.take(quality.evaluated(play.state, model, best, play.now, play.policy))


def test_a_federation_has_enough_when_the_model_is_good_or_the_budget_spent() -> None:
    play = Play(replace(BY_TIME, ends=Ends(loss=1.5)))
    play.perform("join a; push a; merged")
    score(play, 1.6)
    assert play.state.phase is Phase.RUNNING
    play.perform("push a; merged")
    score(play, 1.5)
    assert play.state.phase is Phase.FINISHING
    play.perform("push a; merged")
    assert play.state.phase is Phase.FINISHED

    play = Play(replace(BY_TIME, ends=Ends(emissions_kg=2.0)))
    play.perform("join a; push a; merged")
    for _ in range(2):
        play.take((ending.emitted(play.state, emitted(1.0)), Decision()))
    play.tick()
    assert play.state.phase is Phase.FINISHING
    assert "2.000 kg" in play.state.stopped_because


def test_the_best_model_is_remembered_and_gone_back_to() -> None:
    play = Play()
    play.perform("join a; push a; merged")
    score(play, 1.5)
    best = play.state.base_digest
    play.perform("push a; merged")
    score(play, 1.7)
    assert play.state.best == Best(round=1, digest=best, loss_nats=1.5)
    play.perform("join b; push a 33")
    play.take(quality.rolled_back(play.state, play.now, play.policy))
    assert (play.state.round, play.state.base_digest, play.state.phase) == (3, best, Phase.RUNNING)
    assert play.lines[-2:] == ["2 discarded", "3 starts with a,b"]
    # What was trained from the models that are gone does not count: their bases are forgotten.
    assert rounds.standing(play.state, 2, play.policy) is None
    refused = [one for one in play.said if isinstance(one, ContributionRefused)]
    assert [(one.site, one.round, one.reason) for one in refused] == [("a", 2, "canary")]


@pytest.mark.parametrize(
    ("before", "loss", "kept"),
    [
        (None, 9.0, True),
        (2.0, 2.2, True),
        (2.0, 2.21, False),
        (2.0, nan, False),
        (-2.0, -1.8, True),
        (-2.0, -1.7, False),
    ],
)
def test_the_canary_gate(before: float | None, loss: float, kept: bool) -> None:
    state = Federation(name="demo", base_digest="0" * 64, loss_nats=before)
    assert (quality.worsens(state, loss, replace(BY_TIME, canary=0.1)) == "") is kept
    assert quality.worsens(state, loss, BY_TIME) == ""


def emitted(kg: float) -> EnergyRecorded:
    return EnergyRecorded(
        id=UUID(int=1),
        at=NOON,
        site="a",
        sequence=1,
        window_id=None,
        state="training",
        start=NOON,
        end=NOON + timedelta(hours=1),
        energy_kwh=1,
        emissions_kg=kg,
        clean_energy_kwh=1,
        method="modelled",
        entry_hash="0" * 64,
    )
