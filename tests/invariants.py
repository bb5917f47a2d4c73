"""What must hold of every run, whatever happened to it: read off the hub's events alone."""

from collections import Counter
from collections.abc import Mapping, Sequence

from windfall.contracts.events import (
    CheckpointDamaged,
    ContributionAccepted,
    EpochCompleted,
    NodeFailed,
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
from windfall.tasks.ranges import Ranges, union, within


def check_rounds(events: Sequence[Message]) -> None:
    """Rounds follow each other without gap or fork, and hold exactly what was accepted, once. What a damaged disk cost
    is what the coordinator said that it did."""
    accepted = [event for event in events if isinstance(event, ContributionAccepted)]
    damage = [event for event in events if isinstance(event, CheckpointDamaged)]
    keys = Counter((one.site, one.attempt, one.round - one.rounds_late) for one in accepted)
    assert not keys or max(keys.values()) == 1, "no contribution is counted twice"
    number, base, total, newest = 0, "", 0, 0
    for one in events:
        if isinstance(one, CheckpointDamaged) and one.remedy == "fell-back":
            assert one.round == number, "only the newest model is gone back from"
            number, base, total = one.round + 1, one.base_digest, total - newest * one.rounds_lost
        elif isinstance(one, RoundCompleted):
            assert one.round == number, f"round {one.round} is told where {number} is due: one is lost or told twice"
            assert base in ("", one.base_digest), f"round {one.round} forks"
            inside = _inside(one, accepted, damage)
            total += one.tokens
            assert one.tokens == sum(each.tokens for each in inside), "what was accepted is in the model"
            assert one.tokens_total == total
            assert sorted(one.contributors) == sorted(each.site for each in inside)
            number, base, newest = number + 1, one.model_digest, one.tokens


def _inside(
    one: RoundCompleted, accepted: Sequence[ContributionAccepted], damage: Sequence[CheckpointDamaged]
) -> list[ContributionAccepted]:
    """What a round must hold: all that was accepted for it, but what was left out and did not come again."""
    inside = [each for each in accepted if each.round == one.round]
    for gone in damage:
        if gone.remedy == "left-out" and gone.round == one.round:
            of_site = [each for each in inside if each.site == gone.contributor]
            if len(of_site) > one.contributors.count(str(gone.contributor)):
                inside.remove(next(each for each in of_site if each.tokens == gone.tokens_lost))
    return inside


def check_windows(events: Sequence[Message]) -> None:
    """Every window is closed once, and every node that it got is given back once."""
    opened = Counter(event.window_id for event in events if isinstance(event, WindowOpened))
    closed = Counter(event.window_id for event in events if isinstance(event, WindowClosed))
    assert opened == closed == dict.fromkeys(opened, 1)
    ready = Counter(event.lease_id for event in events if isinstance(event, NodeReady))
    released = Counter(event.lease_id for event in events if isinstance(event, NodeReleased))
    failed = {event.lease_id for event in events if isinstance(event, NodeFailed)}
    assert set(ready) <= set(released) | failed, "no node is kept"
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
    late = {(one.site, one.round) for one in events if isinstance(one, ContributionAccepted) and one.rounds_late}
    numbers: dict[str, set[int]] = {}
    for event in events:
        if isinstance(event, RoundStarted | RoundCompleted):
            numbers.setdefault(event.base_digest, set()).add(event.round)
    for one in rounds[-1:]:
        numbers.setdefault(one.model_digest, set()).add(one.round + 1)
    for site, digests in bases.items():
        assert not (strange := set(digests) - set(numbers)), f"{site} trained from {strange}, which nobody committed"
        # A base may be loaded anew, after a refusal or under a new membership, but never one from before; where the
        # coordinator itself went back, the same model stands under a later number too.
        reached = 0
        for each in digests:
            later = [number for number in numbers[each] if number >= reached]
            assert later, f"{site} went back to an earlier base"
            reached = min(later)
        for one in rounds:
            fresh = site in one.contributors and (site, one.round) not in late
            assert not fresh or one.base_digest in digests, f"{site} in round {one.round}"


def check_rows(events: Sequence[Message], rows: int, trained: Mapping[str, Sequence[Ranges]]) -> int:
    """No row counts twice in an epoch, an epoch is said once all its rows count, and what counts was trained.

    Args:
        rows: of the shared corpus.
        trained: rows of every step that each site made.

    Returns:
        How many epochs are complete.
    """
    accepted = [event for event in events if isinstance(event, ContributionAccepted)]
    counted = Counter[int]()
    by_site: dict[int, Counter[str]] = {}
    for one in accepted:
        assert one.rows, "a contribution names its rows"
        assert within(one.rows, union(*trained[one.site])), "what is named was trained"
        for begin, end in one.rows:
            counted.update(range(begin, end))
            for position in range(begin, end):
                by_site.setdefault(position // rows, Counter())[one.site] += 1
    assert not counted or max(counted.values()) == 1, "a row counts twice"
    whole = {epoch: dict(tally) for epoch, tally in by_site.items() if tally.total() == rows}
    said = [event for event in events if isinstance(event, EpochCompleted)]
    assert {one.epoch: one.rows_by_site for one in said} == whole
    assert len(said) == len(whole)
    return len(whole)


def undelivered(events: Sequence[Message]) -> list[SiteDrained]:
    """Sites that left with work that could not be delivered."""
    return [event for event in events if isinstance(event, SiteDrained) and not event.delivered]


def check(events: Sequence[Message]) -> None:
    """All of them."""
    check_rounds(events)
    check_windows(events)
    check_members(events)
