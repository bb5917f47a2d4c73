"""What suits a whole federation: a codec and fragments that its worst link carries, and whether each site is worth it.

Pure. Every number is an estimate (``windfall.lowcomm.advice`` says from what), so this is advice and no order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from windfall.lowcomm.advice import COSTS, MOST_SHARE, Link, advise, fragments_of, synchronisation
from windfall.lowcomm.compressor import parse_compressor

_MOST_FRAGMENTS: Final = 8


@dataclass(frozen=True)
class Taking:
    """A site that takes part, as it was measured."""

    step_s: float
    steps: int
    """In a round."""
    link: Link


@dataclass(frozen=True)
class Worth:
    """What a federation has of one site: by how much more it trains in the same time with the site than without."""

    gain: float
    """Relative, at least -1: below 0 all others wait so long for it that less is trained than without."""
    bytes_per_step: float
    """Up and down, of one round, over its steps in it."""
    line: str

    @property
    def is_worth(self) -> bool:
        return self.gain > 0


@dataclass(frozen=True)
class FleetAdvice:
    """For all sites together."""

    codec: str
    fragments: int
    worths: Mapping[str, Worth]
    line: str


def advise_fleet(parameters: int, sites: Mapping[str, Taking], codec: str) -> FleetAdvice:
    """The codec that the site asks for whose link is worst beside its speed; the fewest fragments with which the codec
    that is used costs no site more than its share; each site's worth in that codec.

    Args:
        parameters: of the model.
        codec: the setting in which contributions travel.

    Raises:
        ValueError: there is no site.
    """
    if not sites:
        raise ValueError("no advice for no sites")
    used = parse_compressor(codec).name
    by_site = {site: advise(parameters, one.step_s, one.link, len(sites)) for site, one in sites.items()}
    worst = max(sorted(sites), key=lambda site: (-COSTS[_name(by_site[site].codec)].bits, by_site[site].steps))
    fragments = max(fragments_for(used, parameters, one, len(sites)) for one in sites.values())
    worths = {site: worth(site, used, parameters, sites) for site in sites}
    return FleetAdvice(by_site[worst].codec, fragments, worths, f"{worst}: {by_site[worst].line}")


def fragments_for(codec: str, parameters: int, site: Taking, count: int) -> int:
    """The fewest, a power of two, with which one round's synchronisation costs a site at most its share of training; as
    many as make sense when none are enough.

    Args:
        codec: its name.
        count: sites in a round.
    """
    most = min(_MOST_FRAGMENTS, fragments_of(parameters, _MOST_FRAGMENTS))
    training_s, fragments = site.steps * site.step_s, 1
    while fragments < most:
        once = synchronisation(codec, -(-parameters // fragments), site.link, count)
        if once.share(training_s, overlaps=False) <= MOST_SHARE:
            break
        fragments *= 2
    return fragments


def worth(site: str, codec: str, parameters: int, sites: Mapping[str, Taking]) -> Worth:
    """Hold a federation with this site against the one without it. All wait for the slowest, in training and then in
    synchronising; a site that is alone is worth all that is trained.

    Args:
        codec: its name.
    """
    own = sites[site]
    once = synchronisation(codec, parameters, own.link, len(sites))
    each = (once.up_bytes + once.down_bytes) / own.steps
    others = {name: one for name, one in sites.items() if name != site}
    if not others:
        return Worth(1.0, each, f"{site} trains alone")
    gain = _rate(codec, parameters, sites) / _rate(codec, parameters, others) - 1
    verdict = f"{gain:.1%} more" if gain > 0 else f"{-gain:.1%} less, so it is not worth its synchronisation"
    return Worth(gain, each, f"with {site} the federation trains {verdict}")


def _rate(codec: str, parameters: int, sites: Mapping[str, Taking]) -> float:
    """Steps per second of all."""
    training_s = max(one.steps * one.step_s for one in sites.values())
    after_s = max(synchronisation(codec, parameters, one.link, len(sites)).total_s for one in sites.values())
    return sum(one.steps for one in sites.values()) / (training_s + after_s)


def _name(setting: str) -> str:
    return parse_compressor(setting).name
