"""What all sites of one owner weigh in a merge together."""

from math import fsum, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.owners import capped

SITES = tuple("abcdefgh")
OWNERS = {"f": "acme", "g": "acme", "h": "acme"}


def brought(tokens: dict[str, int], late: dict[str, int] | None = None) -> list[Contribution]:
    return [
        Contribution(
            site=site, attempt=1, base_round=0, tokens=count, steps=1, loss_nats=1.0, bytes_up=1, partial=False,
            sha256="0" * 64, codec="fp32", rounds_late=(late or {}).get(site, 0),
        )
        for site, count in tokens.items()
    ]  # fmt: skip


def weights(contributions: tuple[Contribution, ...] | list[Contribution]) -> dict[str, float]:
    return {one.site: one.weight for one in contributions}


def shares(contributions: tuple[Contribution, ...], owners: dict[str, str]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in contributions:
        found.setdefault(owners.get(one.site, one.site), []).append(one.weight)
    total = fsum(one.weight for one in contributions)
    return {owner: fsum(each) / total for owner, each in found.items()}


def test_three_sites_of_one_owner_weigh_a_quarter_together_and_nobody_else_is_touched() -> None:
    found = capped(brought(dict.fromkeys(SITES, 100)), OWNERS, 0.25)
    assert shares(found, OWNERS)["acme"] == pytest.approx(0.25)
    assert all(one.weight == 100 for one in found if one.site not in OWNERS)
    # What the federation has trained is what was trained.
    assert {one.tokens for one in found} == {100}


@pytest.mark.parametrize("share", [1.0, 0.375])
def test_who_is_within_it_keeps_every_bit(share: float) -> None:
    before = brought(dict.fromkeys(SITES, 101))
    assert capped(before, OWNERS, share) == tuple(before)


def test_of_too_few_owners_each_weighs_the_same() -> None:
    found = capped(brought({"a": 1000, "f": 10, "g": 20}), OWNERS, 0.25)
    assert shares(found, OWNERS) == pytest.approx({"a": 0.5, "acme": 0.5})
    assert weights(capped(brought({"f": 10, "g": 20}), OWNERS, 0.25)) == {"f": 10, "g": 20}


TOKENS = st.dictionaries(st.sampled_from(SITES), st.integers(1, 10**12), min_size=1)
OWNED = st.dictionaries(st.sampled_from(SITES), st.sampled_from(["acme", "b", "zeta"]))
LATE = st.dictionaries(st.sampled_from(SITES), st.integers(0, 4))


@given(TOKENS, OWNED, LATE, st.floats(0.01, 1.0), st.randoms())
def test_no_owner_weighs_more_than_its_share_whatever_comes_in_whatever_order(
    tokens: dict[str, int], owned: dict[str, str], late: dict[str, int], share: float, shuffle: object
) -> None:
    before = brought(tokens, late)
    found = capped(before, owned, share)
    parts = shares(found, {site: f"owner {owner}" for site, owner in owned.items()})
    most = max(share, 1 / len(parts))
    assert all(part <= most * (1 + 1e-9) for part in parts.values())
    assert all(0 < after.weight <= one.weight for one, after in zip(before, found, strict=True))
    # In proportion within an owner, and the order that they come in changes no bit.
    by_owner: dict[str, list[float]] = {}
    for one, after in zip(before, found, strict=True):
        by_owner.setdefault(owned.get(one.site, f"site {one.site}"), []).append(after.weight / one.weight)
    assert all(isclose(each, factors[0], rel_tol=1e-12) for factors in by_owner.values() for each in factors)
    mixed = list(before)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    assert weights(capped(mixed, owned, share)) == weights(found)
