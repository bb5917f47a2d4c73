"""How much one site may say in a merge. Pure.

A site tells itself how many tokens it trained, and a mean weighs by that. What a site tells is therefore held against
what the others trained, in proportion to the speeds that their profiles measured and to the time that each took: beyond
a multiple of it, it counts as that multiple, in the merge and in what the federation has trained.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

from windfall.federation_coordinator.federation import Contribution, Federation

FEWEST: Final = 3
"""Of two sites nobody can say which one exaggerates."""


def speeds_of(state: Federation) -> dict[str, float]:
    """Samples per second of every site whose profile says so."""
    found = {}
    for site, profile in state.profiles.items():
        advice = state.recommended.get(site)
        if profile.step_s and advice is not None:
            found[site] = advice.micro_batch * advice.gradient_accumulation / profile.step_s
    return found


def most_tokens(
    contributions: Sequence[Contribution], usual: Mapping[str, float], speeds: Mapping[str, float], factor: float
) -> dict[str, float]:
    """As how many tokens a contribution of each site counts at most in this merge, however short the time that it took;
    none are bounded in a merge of fewer than three sites, or where fewer than three have a speed.

    A site without a speed may be as fast as the fastest that has one. One that is slower than most is held against the
    median speed: rounds that are boxed by steps let it train as much as the others.

    Args:
        usual: tokens of each site's contributions before, the median.
        speeds: as ``speeds_of``.
        factor: so many times what its speed leads to may a site have trained.
    """
    latest: dict[str, float] = {}
    for one in contributions:
        latest[one.site] = max(latest.get(one.site, 0.0), one.tokens)
    if len(latest) < FEWEST or sum(site in speeds for site in {*latest, *usual}) < FEWEST:
        return {}
    pace = _pace({*latest, *usual}, speeds)
    # When everybody trains more than before, what was usual is old; when many leave early, what they bring is little.
    references = [
        median(tokens / pace[site] for site, tokens in told.items()) for told in (latest, usual) if len(told) >= FEWEST
    ]
    return {site: factor * max(references) * pace[site] for site in latest}


def counted(
    contributions: Sequence[Contribution],
    usual: Mapping[str, float],
    speeds: Mapping[str, float],
    factor: float | None,
) -> tuple[Contribution, ...]:
    """Contributions as they count. Arguments as of ``most_tokens``; without a factor nothing is bounded."""
    if factor is None:
        return tuple(contributions)
    most = most_tokens(contributions, usual, speeds, factor)
    rates = most_rates(contributions, speeds, factor)
    return tuple(_bounded(one, most.get(one.site), rates.get(one.site)) for one in contributions)


def most_rates(contributions: Sequence[Contribution], speeds: Mapping[str, float], factor: float) -> dict[str, float]:
    """Tokens per second at which each site may have trained: who was alone for long, or comes late, brings much at
    once. None where fewer than three say how long they took. Arguments as of ``most_tokens``."""
    told: dict[str, float] = {}
    for one in contributions:
        if one.took_s:
            told[one.site] = max(told.get(one.site, 0.0), one.tokens / one.took_s)
    if len(told) < FEWEST:
        return {}
    pace = _pace(told, speeds)
    reference = median(rate / pace[site] for site, rate in told.items())
    return {site: factor * reference * pace[site] for site in told}


def _pace(sites: Iterable[str], speeds: Mapping[str, float]) -> dict[str, float]:
    """What each site is held against: its speed, or what ``most_tokens`` says instead."""
    known = [speeds[site] for site in sorted(sites) if site in speeds] or [1.0]
    middle, fastest = median(known), max(known)
    return {site: max(middle, speeds.get(site, fastest)) for site in sites}


def _bounded(one: Contribution, most: float | None, rate: float | None) -> Contribution:
    # Who does not exceed what it can have trained in its time has exceeded nothing.
    if most is None or one.tokens <= (most := max(most, (rate or 0.0) * (one.took_s or 0.0))):
        return one
    return one.model_copy(update={"tokens": max(1, int(most)), "told_tokens": one.tokens})
