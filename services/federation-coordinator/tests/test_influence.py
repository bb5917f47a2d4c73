"""What a site tells of its tokens is believed as far as its speed leads, beside what the others trained."""

from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import Recommendation
from windfall.federation_coordinator import firewall
from windfall.federation_coordinator.federation import Contribution, Federation
from windfall.federation_coordinator.firewall import Firewall
from windfall.federation_coordinator.influence import counted, most_tokens, speeds_of
from windfall.federation_coordinator.pace import Seen

FACTOR = 4.0
SITES = tuple("abcdefgh")
ALIKE = dict.fromkeys(SITES, 1.0)


def brought(tokens: dict[str, int], took_s: dict[str, float] | None = None) -> list[Contribution]:
    return [
        Contribution(
            site=site, attempt=1, base_round=0, tokens=count, steps=1, loss_nats=1.0, bytes_up=1, partial=False,
            sha256="0" * 64, codec="fp32", took_s=(took_s or {}).get(site),
        )
        for site, count in tokens.items()
    ]  # fmt: skip


def after(tokens: dict[str, int], speeds: dict[str, float], usual: dict[str, float] | None = None) -> dict[str, int]:
    return {one.site: one.tokens for one in counted(brought(tokens), usual or {}, speeds, FACTOR)}


def test_who_claims_a_thousandfold_counts_fourfold() -> None:
    told = dict.fromkeys(SITES, 100) | {"h": 100_000}
    assert after(told, ALIKE) == dict.fromkeys(SITES, 100) | {"h": 400}
    (liar,) = [one for one in counted(brought(told), {}, ALIKE, FACTOR) if one.told_tokens is not None]
    assert (liar.site, liar.told_tokens) == ("h", 100_000)


def test_a_site_that_is_measured_to_be_fast_may_bring_more() -> None:
    speeds = ALIKE | {"h": 50.0}
    assert after(dict.fromkeys(SITES, 100) | {"h": 5_000}, speeds)["h"] == 5_000
    assert after(dict.fromkeys(SITES, 100) | {"h": 50_000}, speeds)["h"] == 20_000


def test_a_site_without_a_profile_may_be_as_fast_as_the_fastest() -> None:
    speeds = {site: speed for site, speed in (ALIKE | {"a": 50.0}).items() if site != "h"}
    assert after(dict.fromkeys(SITES, 100) | {"h": 5_000}, speeds)["h"] == 5_000


def test_a_slow_site_trains_as_much_where_steps_box_the_round() -> None:
    told = dict.fromkeys(SITES, 100)
    assert after(told, ALIKE | {"a": 0.01}) == told
    assert after(told, {site: 10.0**place for place, site in enumerate(SITES)}) == told


def test_most_who_leave_early_make_nobody_a_liar() -> None:
    told = {"a": 3, "b": 5, "c": 100}
    assert after(told, ALIKE, dict.fromkeys(SITES, 100.0)) == told


def test_longer_rounds_make_nobody_a_liar() -> None:
    told = dict.fromkeys(SITES, 10_000)
    assert after(told, ALIKE, dict.fromkeys(SITES, 100.0)) == told


def test_who_was_alone_for_long_brings_much_at_once_and_no_more_than_that() -> None:
    took = dict.fromkeys(SITES, 60.0) | {"h": 6_000.0}
    told = dict.fromkeys(SITES, 100) | {"h": 10_000}
    assert {one.site: one.tokens for one in counted(brought(told, took), {}, ALIKE, FACTOR)} == told
    lied = brought(told | {"h": 10**6}, took)
    assert {one.site: one.tokens for one in counted(lied, {}, ALIKE, FACTOR)}["h"] == 40_000
    # In the time that all others took as well, it cannot have trained so much.
    found = counted(brought(told, dict.fromkeys(SITES, 60.0)), {}, ALIKE, FACTOR)
    assert {one.site: one.tokens for one in found}["h"] == 400


def test_of_two_nobody_can_say_who_exaggerates() -> None:
    told = {"a": 1, "b": 10**6}
    assert after(told, ALIKE) == told
    assert after(dict.fromkeys(SITES, 1) | {"h": 10**6}, {"a": 1.0, "b": 1.0})["h"] == 10**6


def test_nothing_is_bounded_where_nobody_asks_for_it() -> None:
    told = brought(dict.fromkeys(SITES, 1) | {"h": 10**6})
    assert counted(told, {}, ALIKE, None) == tuple(told)


sites = st.dictionaries(st.sampled_from(SITES), st.integers(1, 2**40), min_size=3)
speeds_drawn = st.dictionaries(st.sampled_from(SITES), st.floats(1e-3, 1e6), max_size=8)


@given(sites, speeds_drawn, st.dictionaries(st.sampled_from(SITES), st.floats(1, 2**40)))
def test_nobody_counts_for_more_than_told_nor_for_nothing(
    told: dict[str, int], speeds: dict[str, float], usual: dict[str, float]
) -> None:
    found = after(told, speeds, usual)
    assert found.keys() == told.keys() and all(1 <= found[site] <= told[site] for site in told)
    # Who brings half of the tokens or less, at the same speed, is never bounded.
    assert all(found[site] == count for site, count in told.items() if count <= min(told.values()))


@given(st.lists(st.integers(50, 200), min_size=5, max_size=8), st.lists(st.integers(1, 2**40), min_size=1, max_size=2))
def test_a_minority_of_liars_weighs_no_more_than_its_share_allows(honest: list[int], lies: list[int]) -> None:
    """Whatever it claims: with f of n, at most f · factor · 4 of the honest tokens' median, here within a factor 4."""
    names = [f"s{number}" for number in range(len(honest) + len(lies))]
    told = dict(zip(names, (*honest, *lies), strict=True))
    found = after(told, dict.fromkeys(names, 1.0))
    assert all(found[name] == count for name, count in zip(names, honest, strict=False))
    assert all(found[name] <= FACTOR * max(honest) for name in names[len(honest) :])


@given(sites, st.randoms())
def test_the_order_of_arrival_changes_nothing(told: dict[str, int], dice: object) -> None:
    mixed = list(told.items())
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    assert most_tokens(brought(dict(mixed)), {}, ALIKE, FACTOR) == most_tokens(brought(told), {}, ALIKE, FACTOR)


def test_speeds_come_from_profiles_and_tokens_from_what_was_accepted() -> None:
    advice = Recommendation(micro_batch=8, gradient_accumulation=2, local_steps=1, because="")
    state = Federation(
        name="demo",
        base_digest="0" * 64,
        profiles={"a": Seen(step_s=0.5), "b": Seen(), "c": Seen(step_s=1.0)},
        recommended={"a": advice, "b": advice},
    )
    assert speeds_of(state) == {"a": 32.0}
    firewalled = Firewall()
    for tokens in (100, 300, 200):
        firewalled = firewall.accepted(firewalled, "a", 1.0, 5, f"{tokens:064x}", tokens=tokens)
    assert firewall.usual_tokens(firewalled) == {"a": 200}
