"""How many steps a round has when nobody said: one row per situation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import Measured
from windfall.federation_coordinator.deliveries import Deliveries
from windfall.federation_coordinator.pace import UNMEASURED, Seen, paced, seen

FAST = Seen(rtt_ms=1, up_mb_per_s=100, down_mb_per_s=100, step_s=0.1)
NARROW = FAST.model_copy(update={"up_mb_per_s": 5, "down_mb_per_s": 5, "rtt_ms": 35})
THIN = FAST.model_copy(update={"up_mb_per_s": 0.05, "down_mb_per_s": 0.05, "rtt_ms": 300})
TWICE = FAST.model_copy(update={"step_s": 0.05})
BLIND = FAST.model_copy(update={"up_mb_per_s": None})


def test_without_a_measured_link_it_is_what_sparse_codecs_do_well_with() -> None:
    for member in (None, BLIND):
        pace = paced("topk-ef", 10_000_000, {"a": member, "b": member}, {})
        assert pace.steps == {"a": UNMEASURED, "b": UNMEASURED}
        assert pace.because == f"{UNMEASURED} steps: no link is measured"


def test_the_thinnest_link_decides_and_is_named() -> None:
    near = paced("topk-ef", 10_000_000, {"a": FAST, "b": FAST}, {})
    far = paced("topk-ef", 10_000_000, {"a": FAST, "b": THIN}, {})
    assert far.steps["a"] > near.steps["a"]
    assert far.because.startswith("b: topk-ef every ")


def test_a_denser_codec_needs_more_steps() -> None:
    sparse, dense = (paced(codec, 10_000_000, {"a": NARROW, "b": NARROW}, {}) for codec in ("topk-ef", "fp32"))
    assert sparse.steps["a"] < dense.steps["a"]


def test_steps_follow_speed_so_that_nobody_waits() -> None:
    pace = paced("topk-ef", 10_000_000, {"slow": FAST, "fast": TWICE}, {}, told=30)
    assert pace.steps == {"slow": 20, "fast": 40}
    assert pace.because == "30 steps as told"


def test_reported_speeds_count_more_than_profiles_but_only_when_all_report() -> None:
    members = {"a": FAST, "b": TWICE}
    assert paced("topk-ef", 1_000_000, members, {"a": 10.0}, told=30).steps == {"a": 20, "b": 40}
    assert paced("topk-ef", 1_000_000, members, {"a": 10.0, "b": 10.0}, told=30).steps == {"a": 30, "b": 30}
    assert paced("topk-ef", 1_000_000, {"a": FAST, "b": None}, {"a": 10.0}, told=30).steps == {"a": 30, "b": 30}


def test_nobody_there_is_no_pace() -> None:
    assert paced("topk-ef", 1000, {}, {}).steps == {}


@pytest.mark.parametrize("micro_batch", [8, 16])
def test_what_a_profile_says_counts_for_the_batch_that_it_recommends(micro_batch: int) -> None:
    measured = Measured(
        fingerprint="x", cpu_model="x", cpu_cores=2, memory_bytes=1, step_s_by_micro_batch={8: 0.5}, link_rtt_ms=1.0
    )
    assert seen(measured, micro_batch).step_s == {8: 0.5}.get(micro_batch)


def test_a_profile_that_no_link_and_no_node_can_have_counts_as_none() -> None:
    for wild in (0.0, 5e-324, 1e308):
        measured = Measured(
            fingerprint="x",
            cpu_model="x",
            cpu_cores=2,
            memory_bytes=1,
            step_s_by_micro_batch={8: wild},
            link_rtt_ms=wild or 1e308,
            link_up_mb_per_s=wild,
            link_down_mb_per_s=wild,
        )
        profile = seen(measured, 8)
        assert (profile.up_mb_per_s, profile.down_mb_per_s, profile.step_s) == (None, None, None)
        assert paced("topk-ef", 800, {"a": profile, "b": FAST}, {}).steps


def test_an_operator_has_the_last_word_on_single_sites() -> None:
    pace = paced("topk-ef", 1_000_000, {"slow": FAST, "fast": TWICE}, {}, 30, {"slow": 7, "away": 3})
    assert pace.steps == {"slow": 7, "fast": 40}
    assert pace.because == "30 steps as told; 7 of slow as told"


def test_a_site_is_as_fast_as_it_delivers_its_first_round_apart() -> None:
    seen_so_far = Deliveries()
    seen_so_far.opened("a", 1, 0, 0.0)
    seen_so_far.delivered("a", 1, 0, 10, 100.0)
    assert not seen_so_far.speeds
    seen_so_far.opened("a", 1, 1, 100.0)
    seen_so_far.opened("a", 1, 1, 104.0)  # its stream was cut
    seen_so_far.delivered("a", 1, 1, 10, 105.0)
    assert seen_so_far.speeds == {"a": 2.0}
    seen_so_far.opened("a", 1, 2, 105.0)
    seen_so_far.delivered("a", 1, 1, 10, 106.0)  # late, of a round before
    seen_so_far.delivered("a", 1, 2, 8, 109.5)  # a little slower: the mean of both
    assert seen_so_far.speeds == {"a": pytest.approx((2 + 8 / 4.5) / 2)}
    seen_so_far.opened("a", 1, 3, 110.0)
    seen_so_far.delivered("a", 1, 3, 4, 118.0)  # another speed
    assert seen_so_far.speeds == {"a": 0.5}
    seen_so_far.opened("a", 2, 4, 120.0)
    assert not seen_so_far.speeds


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.floats(0, 3), st.integers(20, 200))
def test_rounds_correct_each_other_until_all_arrive_together(step_s: list[float], overhead: float, mean: int) -> None:
    """Whatever slows a site down: its steps, or what comes before and after them."""
    found, now, steps = Deliveries(), 0.0, dict.fromkeys(map(str, range(len(step_s))), mean)
    arrivals: dict[str, float] = {}
    for number in range(30):
        for site in steps:
            found.opened(site, 1, number, now)
        arrivals = {site: steps[site] * step_s[int(site)] + overhead * (int(site) == 0) for site in steps}
        for site, taken_s in arrivals.items():
            found.delivered(site, 1, number, steps[site], now + taken_s)
        now += max(arrivals.values())
        if number:
            pace = paced("topk-ef", 1000, dict.fromkeys(steps), found.speeds, told=mean)
            steps = dict(pace.steps)
    assert sum(steps.values()) == mean * len(steps)
    slack = max(step_s)
    assert all(max(arrivals.values()) - arrivals[site] <= 1.5 * slack + 0.15 * max(arrivals.values()) for site in steps)
