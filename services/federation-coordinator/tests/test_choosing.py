"""What sites train with, by whose word, and what is said of it: values in, values out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from windfall.contracts.events import AdviceGiven, Chooser, LinkMeasured, NodeProfiled, Recommendation
from windfall.contracts.subjects import HUB
from windfall.federation_coordinator import membership
from windfall.federation_coordinator.advising import Known, Told, followed, given, news
from windfall.federation_coordinator.beginning import PROVISIONAL, Wanted, chosen, measured, pending, too_late
from windfall.federation_coordinator.choosing import ForAll, ForSite, Settings, choices, settings_of
from windfall.federation_coordinator.federation import Federation, Member, Policy
from windfall.federation_coordinator.pace import Seen

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADVISED = Recommendation(
    micro_batch=16, gradient_accumulation=4, precision="bf16", local_steps=50, because="It was measured."
)
OWNERS = ADVISED.model_copy(update={"told": ("precision", "local_steps")})
FAST = Seen(rtt_ms=1, up_mb_per_s=100, down_mb_per_s=100, step_s=0.1)
THIN = FAST.model_copy(update={"up_mb_per_s": 0.01, "down_mb_per_s": 0.01, "rtt_ms": 300})
BLIND = FAST.model_copy(update={"up_mb_per_s": None})
FOLLOWS = Policy(timedelta(minutes=10), None, timedelta(minutes=5), None)
TOLD = Told("int8-block", 1, 10_000_000)
MODEL = 10_000_000


@pytest.mark.parametrize(
    ("told", "advised", "expected"),
    [
        (ForAll(), None, Settings()),
        (ForAll(), ADVISED, Settings(64, 4, "bf16")),
        (ForAll(step_samples=40), ADVISED, Settings(40, 3, "bf16")),
        (ForAll(step_samples=40), None, Settings(40, 0)),
        (ForAll(step_samples=40, gradient_accumulation=8), ADVISED, Settings(40, 8, "bf16")),
        (ForAll(gradient_accumulation=2, precision="fp32"), ADVISED, Settings(32, 2, "fp32")),
        (ForAll(gradient_accumulation=2), None, Settings(0, 2)),
        (ForAll(step_samples=40, sites={"a": ForSite(micro_batch=8)}), ADVISED, Settings(32, 4, "bf16")),
        (ForAll(sites={"a": ForSite(gradient_accumulation=1, precision="fp32")}), ADVISED, Settings(16, 1, "fp32")),
        (ForAll(sites={"b": ForSite(micro_batch=1)}), ADVISED, Settings(64, 4, "bf16")),
    ],
)
def test_the_operators_word_goes_before_a_profile_and_of_one_site_before_that_of_all(
    told: ForAll, advised: Recommendation | None, expected: Settings
) -> None:
    assert settings_of("a", told, advised) == expected


@pytest.mark.parametrize(
    ("told", "advised", "by"),
    [
        (ForAll(), None, ("default", "default", "default")),
        (ForAll(), ADVISED, ("advice", "advice", "advice")),
        (ForAll(), OWNERS, ("advice", "advice", "owner")),
        (ForAll(precision="fp32"), OWNERS, ("advice", "advice", "operator")),
        (ForAll(step_samples=8), ADVISED, ("operator", "operator", "advice")),
        (ForAll(sites={"a": ForSite(micro_batch=8)}), ADVISED, ("operator", "advice", "advice")),
    ],
)
def test_it_is_said_whose_word_a_value_is(
    told: ForAll, advised: Recommendation | None, by: tuple[Chooser, Chooser, Chooser]
) -> None:
    found = choices("a", told, advised)
    assert tuple(found[name].by for name in ("micro_batch", "gradient_accumulation", "precision")) == by


def known(**members: Seen | None) -> Known:
    return Known(members, {}, {})


def test_who_costs_more_than_it_brings_is_left_out_and_the_others_are_paced_without_it() -> None:
    policy = replace(FOLLOWS, average_steps=30)
    found = followed(policy, TOLD, MODEL, known(a=FAST, b=FAST, far=THIN), waits=True)
    assert found.left_out.keys() == {"far"}
    assert "not worth its synchronisation" in found.left_out["far"]
    assert found.pace.steps == {"a": 30, "b": 30, "far": 30}
    assert found.cuts


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (FOLLOWS, False),
        (replace(FOLLOWS, weighs=False), True),
        (replace(FOLLOWS, minimum=3), True),
        (replace(FOLLOWS, sites={"far": ForSite(takes_part=True)}), True),
    ],
)
def test_and_stays_where_nobody_waits_for_it_or_it_is_wanted(policy: Policy, waits: bool) -> None:
    fleet = known(a=FAST, b=FAST, far=THIN)
    assert not followed(replace(policy, average_steps=30), TOLD, MODEL, fleet, waits=waits).left_out


def test_whose_link_is_not_known_is_not_judged() -> None:
    policy = replace(FOLLOWS, average_steps=30)
    assert not followed(policy, TOLD, MODEL, known(a=BLIND, b=None), waits=True).left_out


def test_local_steps_that_somebody_chose_are_taken_in_full() -> None:
    owned = replace(known(a=FAST, b=FAST), recommended={"a": OWNERS})
    found = followed(replace(FOLLOWS, average_steps=30), TOLD, MODEL, owned, waits=True)
    assert (found.pace.steps["a"], found.cuts) == (50, False)
    told = replace(FOLLOWS, average_steps=30, sites={"a": ForSite(local_steps=7)})
    assert followed(told, TOLD, MODEL, owned, waits=True).pace.steps["a"] == 7


def federation(*sites: str, **changed: object) -> Federation:
    members = {site: Member(site=site, attempt=1, lease_token=1, window_id=UUID(int=1), since=0) for site in sites}
    return Federation(name="demo", base_digest="0" * 64, members=members).model_copy(update=changed)


def test_advice_says_what_is_advised_what_is_used_and_whose_word_that_is() -> None:
    fleet = replace(known(a=FAST, far=THIN), recommended={"a": OWNERS})
    told = replace(FOLLOWS, average_steps=30, precision="fp32", minimum=2)
    policy = followed(told, TOLD, MODEL, fleet, waits=True)
    said = given(federation("a", "far", left_out={"far": 1}), policy, TOLD, MODEL, fleet, NOON)
    assert (said.codec.advised, said.codec.used, said.codec.by) == ("topk-ef", "int8-block", "default")
    assert (said.average_steps.used, said.average_steps.by) == ("30", "operator")
    near, far = said.sites
    assert (near.site, near.takes_part, far.takes_part) == ("a", True, False)
    assert (near.values["precision"].advised, near.values["precision"].used) == ("bf16", "fp32")
    assert (near.values["local_steps"].used, near.values["local_steps"].by) == ("50", "owner")
    assert far.gain is not None and far.gain < 0 and "not worth" in far.because
    assert "It was measured." in near.because


def test_it_is_said_again_when_a_value_changes_and_not_for_chance() -> None:
    def said(steps: int, seen: Seen = FAST) -> AdviceGiven:
        fleet = known(a=seen, b=FAST)
        policy = followed(replace(FOLLOWS, average_steps=steps), TOLD, MODEL, fleet, waits=True)
        state = federation("a", "b", left_out=dict.fromkeys(policy.left_out, 1))
        return given(state, policy, TOLD, MODEL, fleet, NOON)

    first = said(30)
    assert news(None, first) and not news(first, said(30))
    assert not news(first, said(40))
    assert news(first, said(90))
    assert news(first, said(30, THIN))


def link(at: datetime, up: float | None, target: str = HUB) -> LinkMeasured:
    return LinkMeasured(
        id=UUID(int=3), at=at, site="a", target=target, rtt_ms=7, up_mb_per_s=up, down_mb_per_s=None, moved_bytes=0
    )


def profile(at: datetime) -> NodeProfiled:
    measured = {"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1, "link_up_mb_per_s": 50}
    return NodeProfiled.model_validate(
        {
            **{"id": UUID(int=2), "at": at, "site": "a", "window_id": UUID(int=1), "lease_token": 1, "node": "n"},
            "measured": {**measured, "link_down_mb_per_s": 60, "link_rtt_ms": 5, "step_s_by_micro_batch": {"16": 0.2}},
            "recommendation": ADVISED.model_dump(),
        }
    )


def test_what_was_measured_last_of_a_link_counts() -> None:
    later = NOON + timedelta(minutes=1)
    state = membership.linked(membership.profiled(federation("a"), profile(NOON)), link(later, 2.5))
    found = state.profiles["a"]
    assert (found.up_mb_per_s, found.down_mb_per_s, found.rtt_ms, found.step_s) == (2.5, 60, 7, 0.8)
    # What is older, cannot be measured or leads elsewhere changes nothing.
    assert membership.linked(state, link(NOON, 9)) == state
    assert membership.linked(state, link(later, None)).profiles["a"].up_mb_per_s == 2.5
    assert membership.linked(state, link(later, 9, "site-b")) is state
    late = membership.profiled(state, profile(NOON)).profiles["a"]
    assert (late.up_mb_per_s, late.step_s) == (2.5, 0.8)
    assert membership.profiled(state, profile(later)).profiles["a"].up_mb_per_s == 50


def test_a_link_counts_before_there_is_a_profile() -> None:
    assert membership.linked(federation("a"), link(NOON, 2.5)).profiles["a"] == Seen(
        rtt_ms=7, up_mb_per_s=2.5, link_at=NOON
    )


def test_terms_are_chosen_while_nothing_was_trained_and_once() -> None:
    wanted, begun = Wanted(None, None), federation("a", "b")
    assert pending(begun, wanted) and not pending(begun, Wanted("fp32", 2))
    assert not pending(begun.model_copy(update={"round": 1}), wanted)
    assert measured(begun, FOLLOWS, known(a=FAST, b=FAST))
    assert not measured(begun, FOLLOWS, known(a=FAST, b=BLIND))
    assert not measured(begun, replace(FOLLOWS, minimum=3), known(a=FAST, b=FAST))
    terms = chosen(wanted, FOLLOWS, MODEL, 8, known(a=FAST, b=THIN))
    assert (terms.codec, terms.measured) == ("topk-ef", True)
    assert not pending(begun.model_copy(update={"terms": terms}), wanted)
    blind = chosen(wanted, FOLLOWS, MODEL, 8, known(a=None))
    assert (blind.codec, blind.fragments, blind.measured) == (PROVISIONAL, 1, False)


def test_a_federation_that_has_trained_keeps_its_codec() -> None:
    trained = federation("a", round=3, rule='["bf16", "", false, "mean"] rows')
    assert too_late(trained, Wanted(None, None)) == "bf16"
    assert not too_late(trained, Wanted("fp32"))
    assert not too_late(trained.model_copy(update={"round": 0}), Wanted(None, None))
    assert not too_late(federation("a", round=3, rule='["topk-ef", "", false, "mean"]'), Wanted(None, None))


def test_fragments_are_as_many_as_a_thin_link_needs_and_one_where_a_site_has_several_gpus() -> None:
    wanted, policy = Wanted("fp32", None), replace(FOLLOWS, average_steps=30)
    found = chosen(wanted, policy, 100_000_000, 8, known(a=FAST, b=THIN))
    assert (found.codec, found.fragments) == ("fp32", 8)
    assert chosen(wanted, policy, 100_000_000, 4, known(a=FAST, b=THIN)).fragments == 4
    several = THIN.model_copy(update={"accelerators": 2})
    assert chosen(wanted, policy, 100_000_000, 8, known(a=FAST, b=several)).fragments == 1


def test_a_journal_that_knew_samples_of_a_step_alone_is_read() -> None:
    old = Federation.model_validate({"name": "demo", "base_digest": "0" * 64, "micro_batches": {"a": 32}})
    assert settings_of("a", ForAll(), old.recommended["a"]).samples == 32
