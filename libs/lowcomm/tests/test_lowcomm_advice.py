import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm.advice import (
    CANDIDATES,
    COSTS,
    LADDER,
    MOST_SHARE,
    Link,
    advise,
    fragments_of,
    outer_of,
    synchronisation,
)
from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.layout import Split
from windfall.lowcomm.rule import Rule

LAN = Link(10e9, 10e9, 0.0002)
CITY = Link(100e6, 100e6, 0.035)
FIVE = Link(40e6, 40e6, 0.05)
SATELLITE = Link(3e6, 20e6, 0.6)

links = st.builds(Link, st.floats(1e3, 1e11), st.floats(1e3, 1e11), st.floats(0, 2))
sizes, step_times, teams = st.integers(1, 10**11), st.floats(1e-4, 1e3), st.integers(1, 32)
codecs = st.sampled_from(sorted(COSTS))


@pytest.mark.parametrize(
    ("link", "overlaps", "chosen"),
    [
        (LAN, False, ("fp32", "nesterov:lr=0.7,momentum=0.6", 30, 1)),
        (LAN, True, ("fp32", "nesterov:lr=0.7,momentum=0.6", 15, 8)),
        (CITY, False, ("topk-ef", "average", 50, 1)),
        (CITY, True, ("fp32", "nesterov:lr=0.7,momentum=0.6", 15, 8)),
        (FIVE, False, ("topk-ef", "average", 50, 1)),
        (FIVE, True, ("fp32", "nesterov:lr=0.7,momentum=0.6", 30, 8)),
        (SATELLITE, False, ("topk-ef", "average", 250, 1)),
        (SATELLITE, True, ("q2-ef", "nesterov:lr=0.7,momentum=0.6", 30, 8)),
    ],
    ids=["LAN", "LAN+", "100 Mbit/s", "100 Mbit/s+", "5 MB/s", "5 MB/s+", "satellite", "satellite+"],
)
def test_four_sites_of_ten_million_parameters(link: Link, overlaps: bool, chosen: tuple[str, str, int, int]) -> None:
    advice = advise(10_000_000, 0.6, link, 4, overlaps=overlaps)
    assert (advice.codec, advice.outer, advice.steps, advice.fragments) == chosen
    assert 0 < advice.synchronisation_share <= MOST_SHARE


@pytest.mark.parametrize(
    ("advice", "line"),
    [
        (
            advise(10_000_000, 0.6, CITY, 4),
            "topk-ef every 50 steps: 10 M parameters take 188 kB up and 562 kB down per round, 0.9 s for 30.0 s of "
            "training on 100 Mbit/s with 35 ms (3.0%)",
        ),
        (
            advise(10_000_000, 0.6, SATELLITE, 4, overlaps=True),
            "q2-ef every 30 steps: 10 M parameters take 2 MB up and 6 MB down per round, 10.8 s for 18.0 s of training "
            "on 3 Mbit/s up and 20 Mbit/s down with 600 ms (4.0% with overlap)",
        ),
        (
            advise(400_000, 0.02, SATELLITE, 4, codec="int4-block", steps=1),
            "int4-block every step: 400 k parameters take 206 kB up and 619 kB down per round, 2.6 s for 20 ms of "
            "training on 3 Mbit/s up and 20 Mbit/s down with 600 ms (13149%), more than 5%; codec and steps as told",
        ),
    ],
)
def test_the_line_says_it_all(advice: object, line: str) -> None:
    assert getattr(advice, "line", None) == line


@settings(deadline=None)
@given(parameters=sizes, step_s=step_times, link=links, sites=teams, overlaps=st.booleans())
def test_advice_is_sane(parameters: int, step_s: float, link: Link, sites: int, overlaps: bool) -> None:
    advice = advise(parameters, step_s, link, sites, overlaps=overlaps)
    rule = Rule.parse(advice.codec, advice.outer)
    assert rule.codec.name in CANDIDATES
    assert advice.steps in LADDER and 1 <= advice.fragments <= advice.steps
    assert advice.synchronisation_share > 0 and (overlaps or advice.fragments == 1)
    assert ("more than" in advice.line) == (advice.synchronisation_share > MOST_SHARE)
    if advice.synchronisation_share > MOST_SHARE or advice.steps > 30:
        assert advice.codec == "topk-ef"
    if advice.synchronisation_share > MOST_SHARE:
        assert advice.steps == LADDER[-1]
    once = synchronisation(advice.codec, parameters, link, sites)
    fewer = [h for h in LADDER if h < advice.steps]
    assert all(once.share(h * step_s, overlaps=overlaps) > MOST_SHARE for h in fewer)
    assert min(once.up_bytes, once.own_s, once.total_s - once.own_s) > 0 and once.down_bytes >= 0
    assert "\n" not in advice.line and "  " not in advice.line


@settings(deadline=None)
@given(
    codec=codecs,
    parameters=sizes,
    step_s=step_times,
    link=links,
    sites=teams,
    overlaps=st.booleans(),
    faster=st.tuples(*[st.floats(1, 1000)] * 3),
)
def test_a_faster_link_never_needs_more_steps(
    codec: str,
    parameters: int,
    step_s: float,
    link: Link,
    sites: int,
    overlaps: bool,
    faster: tuple[float, float, float],
) -> None:
    up, down, rtt = faster
    better = Link(link.up_bit_per_s * up, link.down_bit_per_s * down, link.rtt_s / rtt)
    slow, fast = (advise(parameters, step_s, each, sites, codec=codec, overlaps=overlaps) for each in (link, better))
    assert fast.steps <= slow.steps
    # Nor do slower steps, or fewer sites.
    for again in (
        advise(parameters, step_s * up, link, sites, codec=codec, overlaps=overlaps),
        advise(parameters, step_s, link, max(1, sites - 1), codec=codec, overlaps=overlaps),
    ):
        assert again.steps <= slow.steps
    assert advise(parameters, step_s, link, sites, codec=codec, overlaps=True).steps <= slow.steps


@settings(deadline=None)
@given(codec=codecs, steps=st.integers(1, 10_000), parameters=sizes, step_s=step_times, link=links, sites=teams)
def test_what_is_told_is_taken(codec: str, steps: int, parameters: int, step_s: float, link: Link, sites: int) -> None:
    both = advise(parameters, step_s, link, sites, codec=codec, steps=steps)
    assert (both.codec, both.steps) == (codec, steps) and both.line.endswith("; codec and steps as told")
    one = advise(parameters, step_s, link, sites, steps=steps)
    assert one.steps == steps and one.line.endswith("; steps as told")
    other = advise(parameters, step_s, link, sites, codec=codec)
    assert other.codec == codec and other.steps in LADDER and other.line.endswith("; codec as told")


@pytest.mark.parametrize("codec", COSTS)
def test_bits_are_those_of_the_wire(codec: str) -> None:
    assert set(COSTS) == set(COMPRESSORS)
    split, rule = Split(1 << 18), Rule.parse(codec)
    gradient = torch.randn(split.trained, generator=torch.Generator().manual_seed(7))
    _, message = rule.encode(rule.codec.init(split.trained), gradient, split, base=0, tokens=1, steps=1)
    assert len(message) * 8 / split.trained == pytest.approx(COSTS[codec].bits, rel=0.05)


@pytest.mark.parametrize(
    ("codec", "steps", "outer"),
    [
        ("topk-ef", 500, "average"),
        ("dct-momentum", 1, "average"),
        ("q2-ef", 100, "nesterov:lr=0.7,momentum=0.6"),
        ("fp32", 250, "nesterov:lr=0.7,momentum=0.9"),
    ],
)
def test_momentum_is_for_long_rounds_of_dense_codecs(codec: str, steps: int, outer: str) -> None:
    assert outer_of(codec, steps) == outer


@pytest.mark.parametrize(
    ("parameters", "steps", "count"),
    [(1, 30, 1), (2**21 - 1, 30, 1), (2**21, 30, 2), (2**30, 30, 8), (2**30, 5, 4), (2**30, 1, 1)],
)
def test_fragments_stay_worth_their_round_trips(parameters: int, steps: int, count: int) -> None:
    assert fragments_of(parameters, steps) == count


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Link(0, 1, 0), "positive number of bits per second, not 0"),
        (lambda: Link(1, float("inf"), 0), "positive number of bits per second, not inf"),
        (lambda: Link(1, 1, -0.1), "0 seconds or more, not -0.1"),
        (lambda: advise(0, 1, CITY, 1), "no advice for 0 parameters"),
        (lambda: advise(1, 1, CITY, 0), "0 sites"),
        (lambda: advise(1, 1, CITY, 1, steps=0), "0 steps"),
        (lambda: advise(1, 0, CITY, 1), "positive number of seconds, not 0"),
        (lambda: advise(1, float("nan"), CITY, 1), "positive number of seconds, not nan"),
        (lambda: advise(1, 1, CITY, 1, codec="zip"), re.escape("unknown compressor 'zip'")),
    ],
)
def test_what_cannot_be_is_said(make: object, why: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=why):
        make()
