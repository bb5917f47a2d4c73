"""What suits a whole federation: a codec and fragments that its worst link carries, and whether each site is worth it.

Pure. Every number is an estimate (``windfall.lowcomm.advice`` says from what), so this is advice and no order.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from windfall.lowcomm.advice import COSTS, MOST_SHARE, Link, advise, fragments_of, synchronisation
from windfall.lowcomm.compressor import parse_compressor

LEAST_GAIN: Final = -0.05
"""By so much less a federation must train with a site than without it before that counts against the site: what is held
against it is an estimate."""

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
    found = worths(used, parameters, sites)
    return FleetAdvice(by_site[worst].codec, fragments, found, f"{worst}: {by_site[worst].line}")


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


def worths(codec: str, parameters: int, sites: Mapping[str, Taking]) -> dict[str, Worth]:
    """Hold a federation with each site against the one without it. All wait for the slowest, in training and then in
    synchronising; a site that is alone is worth all that is trained.

    Args:
        codec: its name.
    """
    count = len(sites)
    once = {name: synchronisation(codec, parameters, one.link, count) for name, one in sites.items()}
    each = {name: (once[name].up_bytes + once[name].down_bytes) / one.steps for name, one in sites.items()}
    if count == 1:
        return {name: Worth(1.0, each[name], f"{name} trains alone") for name in sites}
    training = {name: one.steps * one.step_s for name, one in sites.items()}
    fewer = {name: synchronisation(codec, parameters, one.link, count - 1).total_s for name, one in sites.items()}
    steps = sum(one.steps for one in sites.values())
    together = steps / (max(training.values()) + max(one.total_s for one in once.values()))
    slowest, after = _most_of_others(training), _most_of_others(fewer)
    found = {}
    for name, one in sites.items():
        without = (steps - one.steps) / (slowest[name] + after[name])
        gain = together / without - 1
        verdict = f"{gain:.1%} more" if gain > 0 else f"{-gain:.1%} less, so it is not worth its synchronisation"
        found[name] = Worth(gain, each[name], f"with {name} the federation trains {verdict}")
    return found


def dispensable(
    parameters: int, sites: Mapping[str, Taking], codec: str, kept: Collection[str] = (), least: int = 1
) -> dict[str, Worth]:
    """Sites without which the federation trains more, the worst first: each is held against those that are left.

    Args:
        codec: the setting in which contributions travel.
        kept: sites that are not looked at.
        least: of the sites that must be left.
    """
    used, rest, found = parse_compressor(codec).name, dict(sites), dict[str, Worth]()
    while len(rest) > max(1, least):
        judged = {site: one for site, one in worths(used, parameters, rest).items() if site not in kept}
        worst = min(sorted(judged), key=lambda site: judged[site].gain, default=None)
        if worst is None or judged[worst].gain > LEAST_GAIN:
            break
        found[worst] = judged[worst]
        del rest[worst]
    return found


def _most_of_others(values: Mapping[str, float]) -> dict[str, float]:
    """For each, the largest value of the others."""
    second, first = sorted(values, key=lambda name: values[name])[-2:]
    return {name: values[second if name == first else first] for name in values}


def _name(setting: str) -> str:
    return parse_compressor(setting).name
