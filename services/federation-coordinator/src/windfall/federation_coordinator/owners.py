"""How much all sites of one owner may weigh in a merge together. Pure.

Who admits sites knows whose they are. A site whose owner is not told is its own: so many names do not make a vote.
"""

from collections.abc import Mapping, Sequence
from math import fsum

from windfall.federation_coordinator.federation import Contribution


def capped(contributions: Sequence[Contribution], owners: Mapping[str, str], share: float) -> tuple[Contribution, ...]:
    """Contributions that weigh, owner by owner, at most this share of all: what an owner has above it is taken from
    each of its sites in proportion. Where there are fewer owners than such shares, each of them weighs the same.

    Args:
        owners: of sites.
        share: above 0; with 1 nothing is changed.
    """
    sums: dict[str, list[float]] = {}
    for one in contributions:
        sums.setdefault(_owner(one, owners), []).append(one.weight)
    factors = _factors({owner: fsum(weights) for owner, weights in sums.items()}, share)
    return tuple(_scaled(one, factors.get(_owner(one, owners), 1.0)) for one in contributions)


def _owner(one: Contribution, owners: Mapping[str, str]) -> str:
    # A site may be called like an owner.
    return f"owner {owners[one.site]}" if one.site in owners else f"site {one.site}"


def _factors(weights: Mapping[str, float], share: float) -> Mapping[str, float]:
    """By which what owners weigh is to be multiplied, of those who are above the share."""
    if share >= 1.0 or len(weights) < 2:
        return {}
    # Bits must not hang on who contributed first.
    heaviest = sorted(weights, key=lambda owner: (-weights[owner], owner))
    for above in range(len(heaviest)):
        if above * share >= 1.0:
            break
        # What the others weigh is the rest of all, once those above are cut down to their shares.
        most = share * fsum(weights[owner] for owner in heaviest[above:]) / (1.0 - above * share)
        if weights[heaviest[above]] <= most:
            return {owner: most / weights[owner] for owner in heaviest[:above]}
    least = weights[heaviest[-1]]
    return {owner: least / weights[owner] for owner in heaviest[:-1]}


def _scaled(one: Contribution, factor: float) -> Contribution:
    return one if factor == 1.0 else one.model_copy(update={"owned": factor})
