"""One liar among many is seen and shut out, and a model that learns faster locks nobody out."""

from datetime import UTC, datetime
from functools import reduce
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import ContributionAccepted
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import firewall
from windfall.federation_coordinator.checks import Reason, Refusal
from windfall.federation_coordinator.firewall import Firewall, Limits
from windfall.federation_coordinator.guard import Guard
from windfall.servicekit.journal import Journal

LIMITS = Limits(norm_factor=10.0, norm_history=6, refusals=3, within_rounds=10, shut_out_rounds=20)
SITES = ("site-a", "site-b", "site-c")


def grown(norms: list[float], steps: int = 30, state: Firewall | None = None) -> Firewall:
    """After contributions of these norms, of three sites in turn."""
    state = state or Firewall()
    for number, norm in enumerate(norms):
        state = firewall.accepted(state, SITES[number % 3], norm, steps, f"{len(state.said):064x}")
    return state


def passes(state: Firewall, norm: float, steps: int = 30) -> bool:
    return not firewall.too_long(state, norm, steps, LIMITS)


# --- norms ------------------------------------------------------------------------------------------------------------


def test_a_young_model_judges_no_norm() -> None:
    assert passes(grown([1.0] * 5), 1e9)
    assert not passes(grown([1.0] * 6), 1e9)


def test_too_long_says_what_was_expected() -> None:
    because = firewall.too_long(grown([2.0] * 8), 25.0, 30, LIMITS)
    assert because == "its norm is 25; the median of the last 8 is 2, at most 20 passes"
    assert not firewall.too_long(grown([2.0] * 8), 20.0, 30, LIMITS)


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=80), st.integers(1, 30), st.floats(0, 1))
def test_shorter_than_the_median_always_passes_however_few_its_steps(
    norms: list[float], steps: int, share: float
) -> None:
    state = grown(norms)
    assert passes(state, share * sorted(one.norm for one in state.lengths)[len(state.lengths) // 2 - 1], steps)


def test_more_steps_may_go_further_but_not_as_far_as_a_site_says() -> None:
    state = grown([1.0] * 8, steps=30)
    assert passes(state, 40.0, steps=120) and not passes(state, 40.0, steps=60)
    assert not passes(state, 101.0, steps=10**9)


def test_norms_are_not_judged_where_nobody_asks_for_it() -> None:
    assert not firewall.too_long(grown([1.0] * 20), 1e30, 1, Limits(norm_factor=None))


@given(st.lists(st.floats(0.1, 10), min_size=12, max_size=60), st.lists(st.floats(1e4, 1e30), min_size=1, max_size=40))
def test_one_liar_of_three_moves_no_limit(norms: list[float], lies: list[float]) -> None:
    """It is refused however often it comes, and the others' limit stays where it was."""
    state = grown(norms)
    before = state.lengths
    for norm in lies:
        assert not passes(state, norm)
        state = firewall.doubted(state, "site-a", norm)
    assert state.lengths == before and all(passes(state, norm) for norm in norms if norm <= 10 * 0.1)


def test_when_most_sites_are_too_long_it_is_the_median_that_is_old() -> None:
    state = grown([1.0] * 9)
    state = firewall.refused(firewall.doubted(state, "site-a", 50.0), "site-a", "norm", 4, LIMITS)
    assert not passes(state, 50.0)
    state = firewall.doubted(state, "site-b", 60.0)
    assert passes(state, 60.0) and not state.doubted
    # And what was held against them because of it is forgotten.
    assert not state.refusals["site-a"]


def test_who_passes_is_no_longer_doubted() -> None:
    state = firewall.doubted(grown([1.0] * 9), "site-a", 50.0)
    state = grown([1.0], state=state)
    assert not passes(firewall.doubted(state, "site-b", 50.0), 50.0)


def test_one_site_alone_is_its_own_majority() -> None:
    state = reduce(lambda state, _: firewall.accepted(state, "site-a", 1.0, 30, "0" * 64), range(20), Firewall())
    assert not passes(state, 50.0)
    assert passes(firewall.doubted(state, "site-a", 50.0), 50.0)


# --- replays ----------------------------------------------------------------------------------------------------------


def test_bytes_that_counted_before_do_not_count_again() -> None:
    state = firewall.accepted(Firewall(), "site-a", 1.0, 30, "ab" * 32)
    assert not firewall.replayed(state, "site-b", "cd" * 32, 1.0)
    assert firewall.replayed(state, "site-b", "ab" * 32, 1.0) == "these values were accepted before, from site-a"
    # A receipt that was lost, or a disk that was damaged, is no lie.
    assert not firewall.replayed(state, "site-a", "ab" * 32, 1.0)
    # Two that learnt nothing say the same.
    assert not firewall.replayed(state, "site-b", "ab" * 32, 0.0)


def test_what_a_site_says_in_anothers_words_is_refused_and_what_it_learnt_again_is_not() -> None:
    guard = Guard(Journal(None, "/test"), LIMITS)

    def manifest(site: str, attempt: int, number: int = 0) -> pb.Manifest:
        key = pb.ContributionKey(federation="demo", site=site, round=number, attempt=attempt)
        return pb.Manifest(key=key, sha256="ab" * 32, steps=30)

    guard.judge(manifest("site-a", 1), 1.0, "ab" * 32)
    one = said("site-a")
    assert set(guard.overhear((one,))) == {"firewall"} and not guard.overhear((one,))
    with pytest.raises(Refusal, match="accepted before, from site-a") as replay:
        guard.judge(manifest("site-b", 1), 1.0, "ab" * 32)
    assert replay.value.reason == "replay"
    guard.judge(manifest("site-a", 2), 1.0, "ab" * 32)
    with pytest.raises(Refusal, match="accepted before, in round 0"):
        guard.judge(manifest("site-a", 2, number=1), 1.0, "ab" * 32)


def said(site: str) -> ContributionAccepted:
    return ContributionAccepted(
        id=uuid4(),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        site=site,
        federation="demo",
        round=0,
        attempt=1,
        tokens=1,
        steps=30,
        loss_nats=1.0,
        bytes_up=1,
        partial=False,
    )


# --- shut out ---------------------------------------------------------------------------------------------------------


def after(*refusals: tuple[Reason, int], limits: Limits = LIMITS) -> Firewall:
    return reduce(
        lambda state, one: firewall.refused(state, "site-a", one[0], one[1], limits), refusals, grown([1.0] * 3)
    )


def test_three_lies_within_ten_rounds_shut_a_site_out_for_twenty() -> None:
    assert not firewall.barred(after(("norm", 1), ("layout", 5)), "site-a", 5)
    state = after(("norm", 1), ("layout", 5), ("norm", 10))
    assert firewall.barred(state, "site-a", 10) == (
        "site-a is shut out until round 30 or an operator readmits it: its contributions were refused for layout, norm"
    )
    assert firewall.barred(state, "site-a", 29) and not firewall.barred(state, "site-a", 30)
    assert not firewall.barred(state, "site-b", 10)


def test_lies_that_lie_far_apart_do_not_add_up() -> None:
    assert not firewall.barred(after(("norm", 1), ("norm", 5), ("norm", 11)), "site-a", 11)


@pytest.mark.parametrize("reason", ["lease", "round", "base", "codec", "member", "rows", "shut-out"])
def test_what_honest_sites_meet_is_held_against_nobody(reason: Reason) -> None:
    assert after(*[(reason, 1)] * 50) == grown([1.0] * 3)


def test_readmitted_it_begins_anew() -> None:
    state = firewall.readmitted(after(("norm", 1), ("norm", 1), ("norm", 1)), "site-a")
    assert not firewall.barred(state, "site-a", 2)
    assert not firewall.barred(firewall.refused(state, "site-a", "norm", 2, LIMITS), "site-a", 2)


def test_without_an_end_only_an_operator_readmits() -> None:
    limits = Limits(refusals=1, shut_out_rounds=None)
    state = after(("replay", 3), limits=limits)
    assert "until an operator readmits it:" in firewall.barred(state, "site-a", 10**9)
    assert not firewall.barred(after(("replay", 3), limits=Limits(refusals=None)), "site-a", 3)


@given(st.lists(st.tuples(st.sampled_from(["said", "norm", "layout"]), st.integers(0, 40)), max_size=200))
def test_what_is_remembered_is_bounded_and_survives_the_journal(events: list[tuple[str, int]]) -> None:
    state = Firewall()
    for number, (kind, site) in enumerate(events):
        if kind == "said":
            state = firewall.accepted(state, f"site-{site}", 1.0 + number, 3, f"{number:064x}")
        else:
            reason: Reason = "norm" if kind == "norm" else "layout"
            state = firewall.refused(state, f"site-{site}", reason, number, LIMITS)
            state = firewall.doubted(state, f"site-{site}", 1e9) if kind == "norm" else state
    assert len(state.lengths) <= 64 and len(state.said) <= 256
    assert all(len(past) <= 3 for past in state.refusals.values())
    assert Firewall.model_validate_json(state.model_dump_json()) == state
