"""A federation that is played to, without a clock, a disk or a network: what it is told, and what follows."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal
from uuid import UUID

from windfall.contracts.commands import FinishRound
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationPaused,
    FederationResumed,
    RoundCompleted,
    RoundDiscarded,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)
from windfall.contracts.message import Message
from windfall.federation_coordinator import membership, pausing, quality, rounds
from windfall.federation_coordinator.choosing import ForSite
from windfall.federation_coordinator.federation import Contribution, Decision, Federation, Phase, Policy, Progress
from windfall.federation_coordinator.pace import Pace

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


def refused(play: Play) -> bool:
    """Who brought what does not pass, or came while the round was finishing, sits until the next opening."""
    return play.state.phase is Phase.FINISHING or "refuse" in play.acts or "join" in play.acts


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
