"""What must hold of every run, whatever happened to it: read off the hub's events alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from windfall.contracts.events import (
    ContributionAccepted,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    RoundStarted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    WindowClosed,
    WindowOpened,
)
from windfall.contracts.message import Message


def check_rounds(events: Sequence[Message]) -> None:
    """Rounds follow each other without gap or fork, and hold exactly what was accepted, once."""
    rounds = [event for event in events if isinstance(event, RoundCompleted)]
    accepted = [event for event in events if isinstance(event, ContributionAccepted)]
    assert [one.round for one in rounds] == list(range(len(rounds))), "no round is lost or told twice"
    assert all(after.base_digest == before.model_digest for before, after in pairwise(rounds)), "no fork"
    keys = Counter((one.site, one.attempt, one.round - one.rounds_late) for one in accepted)
    assert not keys or max(keys.values()) == 1, "no contribution is counted twice"
    total = 0
    for one in rounds:
        of_round = [each for each in accepted if each.round == one.round]
        total += one.tokens
        assert one.tokens == sum(each.tokens for each in of_round), "what was accepted is in the model"
        assert one.tokens_total == total
        assert sorted(one.contributors) == sorted(each.site for each in of_round)


def check_windows(events: Sequence[Message]) -> None:
    """Every window is closed once, and every node that it got is given back once."""
    opened = Counter(event.window_id for event in events if isinstance(event, WindowOpened))
    closed = Counter(event.window_id for event in events if isinstance(event, WindowClosed))
    assert opened == closed == dict.fromkeys(opened, 1)
    ready = Counter(event.lease_id for event in events if isinstance(event, NodeReady))
    released = Counter(event.lease_id for event in events if isinstance(event, NodeReleased))
    assert set(ready) <= set(released), "no node is kept"
    assert max([*ready.values(), *released.values()], default=1) == 1, "no node is given back twice"


def check_members(events: Sequence[Message]) -> None:
    """Every membership begins once and ends at most once."""
    joined = Counter((event.site, event.attempt) for event in events if isinstance(event, SiteJoined))
    left = Counter((event.site, event.attempt) for event in events if isinstance(event, SiteLeft))
    assert max([*joined.values(), *left.values()], default=1) == 1
    assert set(left) <= set(joined)


def check_replicas(events: Sequence[Message], bases: Mapping[str, Sequence[str]]) -> None:
    """Whatever a site's engine trained from was the coordinator's base, to the bit, though most were never downloaded.

    Args:
        bases: digests of what each site's engines were given, oldest first, computed from the vectors themselves.
    """
    rounds = [event for event in events if isinstance(event, RoundCompleted)]
    number = {event.base_digest: event.round for event in events if isinstance(event, RoundStarted)}
    number |= {one.base_digest: one.round for one in rounds} | {one.model_digest: one.round + 1 for one in rounds[-1:]}
    for site, digests in bases.items():
        assert not (strange := set(digests) - set(number)), f"{site} trained from {strange}, which nobody committed"
        # A base may be loaded anew, after a refusal or under a new membership, but never one from before.
        assert all(number[a] <= number[b] for a, b in pairwise(digests)), f"{site} went back to an earlier base"
        for one in rounds:
            assert site not in one.contributors or one.base_digest in digests, f"{site} in round {one.round}"


def undelivered(events: Sequence[Message]) -> list[SiteDrained]:
    """Sites that left with work that could not be delivered."""
    return [event for event in events if isinstance(event, SiteDrained) and not event.delivered]


def check(events: Sequence[Message]) -> None:
    """All of them."""
    check_rounds(events)
    check_windows(events)
    check_members(events)
