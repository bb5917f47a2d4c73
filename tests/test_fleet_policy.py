"""A day of a fleet whose sites have policies: what they forbid does not happen, and everybody else trains on."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests import invariants
from tests.fleet import FEDERATION, Fleet, standing
from tests.wiring import MemoryWiring
from windfall.contracts.events import (
    ContributionAccepted,
    RoundCompleted,
    SiteDrained,
    SiteEvent,
    SiteJoined,
    SiteLeft,
    SiteRefused,
    SiteWithheld,
    TrainingStarted,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.energy.shipped import synthetic_trace
from windfall.federation_coordinator.jurisdiction import Law
from windfall.lowcomm.accounting import epsilon_of, mu_squared
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer.policy import Privacy, SitePolicy

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")
QUEBEC = Law(own="CA-QC", allowed=("CA", "SE"))


def day(folder: Path, law: Law = Law(), **policies: SitePolicy) -> list[Message]:
    """14 hours under the shipped trace. ``site_b`` is the policy of site-b, and so on."""
    trace = folder / "trace.csv"
    trace.write_text("\n".join(synthetic_trace()) + "\n")

    async def live() -> list[Message]:
        fleet = Fleet(folder, trace, SITES, LoopClock(MIDNIGHT), MemoryWiring(), seed=3, law=law)
        fleet.policies = {site.replace("_", "-"): policy for site, policy in policies.items()}
        async with standing(fleet):
            await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=14))
            return await fleet.events()

    events = run_virtual(live())
    invariants.check_rounds(events)
    invariants.check_members(events)
    assert len(said(events, RoundCompleted)) > 5
    return events


def said(events: list[Message], kind: type[Message], site: str = "") -> list[Message]:
    return [
        event
        for event in events
        if isinstance(event, kind) and (not site or (isinstance(event, SiteEvent) and event.site == site))
    ]


def withheld(events: list[Message], site: str) -> Counter[tuple[str, str]]:
    """What was not done, and by which line of the policy."""
    return Counter(
        (event.before, event.because.partition(":")[0])
        for event in said(events, SiteWithheld, site)
        if isinstance(event, SiteWithheld)
    )


def test_a_federation_that_is_not_on_the_list_is_never_asked(tmp_path: Path) -> None:
    events = day(tmp_path, site_b=SitePolicy(federations=("another",)), site_c=SitePolicy(federations=(FEDERATION,)))
    assert withheld(events, "site-b").keys() == {("join", "federations")}
    assert not said(events, SiteJoined, "site-b")
    assert said(events, ContributionAccepted, "site-c")
    # The window is not held up: the node is given back.
    windows = len(said(events, WindowOpened, "site-b"))
    assert windows and len(said(events, SiteDrained, "site-b")) == windows


def test_a_task_or_a_codec_that_is_not_on_the_list_is_not_trained(tmp_path: Path) -> None:
    events = day(tmp_path, site_b=SitePolicy(tasks=("gpt-neox",)), site_c=SitePolicy(codecs=("fp32",)))
    for site, line in (("site-b", "tasks"), ("site-c", "codecs")):
        assert withheld(events, site).keys() == {("train", line)}
        assert not said(events, TrainingStarted, site)
        assert len(said(events, SiteLeft, site)) == len(said(events, SiteJoined, site)) > 0


def test_jurisdictions_hold_on_both_sides(tmp_path: Path) -> None:
    events = day(
        tmp_path,
        QUEBEC,
        site_a=SitePolicy(jurisdiction="CA-QC", jurisdictions=("CA", "SE")),
        site_b=SitePolicy(jurisdiction="US-TX"),
        site_c=SitePolicy(jurisdiction="SE", jurisdictions=("SE", "NO")),
    )
    assert said(events, ContributionAccepted, "site-a")
    (refused,) = said(events, SiteRefused)
    assert isinstance(refused, SiteRefused)
    assert (refused.site, refused.reason, refused.detail) == (
        "site-b",
        "jurisdiction",
        "US-TX is not within CA, SE",
    )
    assert not said(events, SiteJoined, "site-b")
    assert withheld(events, "site-c").keys() == {("train", "jurisdictions")}


def test_a_budget_of_a_day_ends_training_until_the_next(tmp_path: Path) -> None:
    events = day(
        tmp_path,
        site_b=SitePolicy(most_contributions_per_day=2),
        site_c=SitePolicy(most_bytes_per_day=300),
    )
    assert len(said(events, ContributionAccepted, "site-b")) == 2
    assert ("join", "most_contributions_per_day") in withheld(events, "site-b")
    sent = [
        event.bytes_up
        for event in said(events, ContributionAccepted, "site-c")
        if isinstance(event, ContributionAccepted)
    ]
    assert 0 < sum(sent) <= 300
    assert {line for _, line in withheld(events, "site-c")} == {"most_bytes_per_day"}


def test_a_site_that_has_told_as_much_as_its_privacy_allows_tells_no_more(tmp_path: Path) -> None:
    # Of the toy's 1000 parameters, whose contributions are about 20 long; three of them fit into the budget.
    private = Privacy(norm=20.0, noise=0.05, most_epsilon=epsilon_of(3 * mu_squared(0.05), 1e-5))
    events = day(tmp_path, site_b=SitePolicy(privacy=private))
    accepted = said(events, ContributionAccepted, "site-b")
    assert len(accepted) == 3
    # What would tell of the data without noise is not told.
    assert {one.loss_nats for one in accepted if isinstance(one, ContributionAccepted)} == {0.0}
    assert withheld(events, "site-b").keys() <= {("join", "privacy"), ("push", "privacy")}
    assert ("join", "privacy") in withheld(events, "site-b")
    assert len(said(events, ContributionAccepted, "site-c")) > 5
    windows = len(said(events, WindowOpened, "site-b"))
    assert windows and len(said(events, SiteDrained, "site-b")) == windows


def test_nothing_leaves_that_follows_from_few_samples(tmp_path: Path) -> None:
    events = day(tmp_path, site_b=SitePolicy(least_tokens=8 * 64 * 15), site_c=SitePolicy(loss_bucket=0.5))
    tokens = [
        event.tokens
        for event in said(events, ContributionAccepted, "site-b")
        if isinstance(event, ContributionAccepted)
    ]
    assert tokens and min(tokens) >= 8 * 64 * 15
    assert withheld(events, "site-b").keys() == {("push", "least_tokens")}
    # How many they were does not leave either.
    why = {event.because for event in said(events, SiteWithheld, "site-b") if isinstance(event, SiteWithheld)}
    assert why == {f"least_tokens: there are fewer than {8 * 64 * 15}"}
    told = [
        event.loss_nats
        for event in said(events, ContributionAccepted, "site-c")
        if isinstance(event, ContributionAccepted)
    ]
    assert told and all((2 * loss).is_integer() for loss in told)


def test_quiet_hours_begin_with_what_was_trained_delivered(tmp_path: Path) -> None:
    open_ = day(tmp_path)
    noon = SitePolicy.model_validate({"quiet": ["10:30-13:00"]})
    events = day(tmp_path, site_a=noon, site_b=noon, site_c=noon)
    begin, end = (MIDNIGHT + timedelta(hours=hours) for hours in (10.5, 13))
    assert [one for one in said(open_, ContributionAccepted) if begin < one.at < end]
    for kind in (ContributionAccepted, SiteJoined):
        assert not [one for one in said(events, kind) if begin < one.at < end]
    drained = [
        one
        for one in said(events, SiteDrained)
        if isinstance(one, SiteDrained) and begin - timedelta(minutes=6) < one.at < begin
    ]
    assert drained and all(one.delivered for one in drained)
    assert {line for site in SITES for _, line in withheld(events, site)} == {"quiet"}
