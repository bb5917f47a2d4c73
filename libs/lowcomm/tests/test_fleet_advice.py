"""Advice for a whole federation: bounded, the same for the same, and monotone in what each site brings."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.lowcomm.advice import CANDIDATES, COSTS, Link
from windfall.lowcomm.fleet_advice import LEAST_GAIN, Taking, advise_fleet, dispensable, fragments_for, worths

RATES = st.floats(1e4, 1e11)
LINKS = st.builds(Link, RATES, RATES, st.floats(0, 2))
SITES = st.builds(Taking, st.floats(1e-3, 60), st.integers(1, 500), LINKS)
FLEETS = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), SITES, min_size=1)
SIZES = st.integers(1_000, 10**9)

NEAR = Link(1e9, 1e9, 0.001)
FAR = Link(2e5, 2e5, 0.3)
FAST = Taking(0.1, 100, NEAR)


@given(SIZES, FLEETS, st.sampled_from(sorted(COSTS)))
def test_advice_is_bounded_and_the_same_for_the_same(size: int, fleet: dict[str, Taking], codec: str) -> None:
    found = advise_fleet(size, fleet, codec)
    assert found == advise_fleet(size, dict(reversed(fleet.items())), codec)
    assert found.codec in CANDIDATES and found.fragments in (1, 2, 4, 8)
    assert set(found.worths) == set(fleet)
    assert all(one.gain >= -1 and one.bytes_per_step > 0 and one.line for one in found.worths.values())


@given(SIZES, SITES, st.integers(1, 8), st.floats(1, 1000))
def test_a_thinner_link_never_asks_for_fewer_fragments(size: int, site: Taking, count: int, thinner: float) -> None:
    thin = Link(site.link.up_bit_per_s / thinner, site.link.down_bit_per_s / thinner, site.link.rtt_s)
    wide = fragments_for("topk-ef", size, site, count)
    assert fragments_for("topk-ef", size, replace(site, link=thin), count) >= wide


@given(SIZES, FLEETS, st.floats(1, 1000))
def test_a_wider_link_never_makes_a_site_worth_less(size: int, fleet: dict[str, Taking], wider: float) -> None:
    site = min(fleet)
    link = fleet[site].link
    wide = replace(fleet[site], link=Link(link.up_bit_per_s * wider, link.down_bit_per_s * wider, link.rtt_s))
    before, after = (worths("topk-ef", size, each)[site] for each in (fleet, {**fleet, site: wide}))
    assert after.gain >= before.gain * (1 - 1e-9) - 1e-9


@given(SIZES, FLEETS, st.floats(1, 1000))
def test_a_faster_site_is_never_worth_less(size: int, fleet: dict[str, Taking], faster: float) -> None:
    site = min(fleet)
    quick = replace(fleet[site], step_s=fleet[site].step_s / faster)
    before, after = (worths("topk-ef", size, each)[site] for each in (fleet, {**fleet, site: quick}))
    assert after.gain >= before.gain - 1e-9


def test_a_site_that_all_wait_for_is_told_as_one() -> None:
    fleet = {"a": FAST, "b": FAST, "far": Taking(10.0, 1, FAR)}
    found = advise_fleet(100_000_000, fleet, "topk-ef")
    assert found.worths["a"].is_worth and not found.worths["far"].is_worth
    assert found.worths["far"].line.endswith("less, so it is not worth its synchronisation")
    assert "topk-ef every " in found.line
    assert found.fragments == 8


def test_who_is_alone_is_worth_all() -> None:
    assert advise_fleet(1_000_000, {"a": FAST}, "fp32").worths["a"].is_worth


def test_no_sites_have_no_advice() -> None:
    with pytest.raises(ValueError, match="no advice"):
        advise_fleet(1000, {}, "fp32")


@given(SIZES, FLEETS, st.sampled_from(sorted(COSTS)), st.integers(1, 4))
def test_who_is_dispensable_costs_more_than_it_brings_and_enough_are_left(
    size: int, fleet: dict[str, Taking], codec: str, least: int
) -> None:
    out = dispensable(size, fleet, codec, least=least)
    assert len(fleet) - len(out) >= min(len(fleet), least)
    assert out == dispensable(size, dict(reversed(fleet.items())), codec, least=least)
    rest = dict(fleet)
    for site, found in out.items():
        assert found.gain <= LEAST_GAIN
        assert found == worths(codec, size, rest)[site]
        del rest[site]
    if len(rest) > max(1, least):
        assert all(worths(codec, size, rest)[site].gain > LEAST_GAIN for site in rest)
    assert not dispensable(size, fleet, codec, kept=fleet)


def test_a_site_behind_a_thread_is_dispensable_and_the_last_one_never_is() -> None:
    thread = Taking(0.1, 30, Link(1e5, 1e5, 0.3))
    fleet = {"a": FAST, "b": FAST, "far": thread}
    assert [*dispensable(10_000_000, fleet, "int8-block")] == ["far"]
    assert not dispensable(10_000_000, fleet, "int8-block", kept=["far"])
    assert not dispensable(10_000_000, {"far": thread}, "int8-block")
