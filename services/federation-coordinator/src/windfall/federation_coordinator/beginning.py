"""How contributions are written, chosen before the first round by what was measured: codec and fragments. Pure.

They hold for all sites and for good: replicas stay the same bits because everybody goes by the same ones from the first
round on. Until they are chosen no round opens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecoder
from typing import Final

from windfall.contracts.events import Chooser
from windfall.federation_coordinator.advising import Known, Told, takings
from windfall.federation_coordinator.federation import Federation, Policy, Terms
from windfall.federation_coordinator.pace import link_of, paced, speeds_of
from windfall.lowcomm.compressor import parse_compressor
from windfall.lowcomm.fleet_advice import Taking, advise_fleet, fragments_for

PROVISIONAL: Final = "topk-ef"
"""What the federation is written in while nothing is chosen, and when nothing could be measured."""


@dataclass(frozen=True)
class Wanted:
    """What an operator says; none is to be chosen."""

    codec: str | None = PROVISIONAL
    fragments: int | None = 1
    codec_by: Chooser = "default"
    """Who said the codec, where it is said."""
    fragments_by: Chooser = "default"
    alone_codec: str = ""
    """In which a site says more that was alone; unset goes with the codec."""

    def alone(self, sparse: bool) -> str:
        """That codec, beside one that is sparse or is not; empty for the federation's own."""
        return self.alone_codec or ("int8-block" if sparse else "")

    @property
    def open(self) -> bool:
        """Something is to be chosen."""
        return self.codec is None or self.fragments is None


def pending(state: Federation, wanted: Wanted) -> bool:
    """Whether something is still to be chosen. Once something was trained it is too late."""
    untouched = state.round == 0 and not state.contributions and not state.late
    return wanted.open and state.terms is None and untouched


def too_late(state: Federation, wanted: Wanted) -> str:
    """The codec by which the federation has trained so far, where another one is asked to be chosen; empty where none
    is, or it may be."""
    if wanted.codec is not None or state.terms is not None or not state.rule or not state.round:
        return ""
    settings, _ = JSONDecoder().raw_decode(state.rule)
    return "" if settings[0] == PROVISIONAL else str(settings[0])


def measured(state: Federation, policy: Policy, known: Known) -> bool:
    """Whether all who are there were measured, and they are enough for a round."""
    speeds = speeds_of(known.members, known.speeds)
    enough = len(state.members) >= max(1, policy.minimum)
    return enough and all(site in speeds and link_of(known.members[site]) is not None for site in state.members)


def chosen(wanted: Wanted, policy: Policy, parameters: int, most_fragments: int, known: Known) -> Terms:
    """What suits the sites that are there.

    Args:
        parameters: of the model.
        most_fragments: into which it can be cut.
    """
    codec = wanted.codec or PROVISIONAL
    steps = paced(codec, parameters, known.members, known.speeds, policy.average_steps, policy.site_steps).steps
    taking = takings(known, steps)
    if not taking:
        return Terms(
            codec=codec,
            fragments=wanted.fragments or 1,
            measured=False,
            because="no site's link and speed were measured in time, so the defaults stand",
        )
    found = advise_fleet(parameters, taking, codec)
    if wanted.codec is None:
        codec = found.codec
        steps = paced(codec, parameters, known.members, known.speeds, policy.average_steps, policy.site_steps).steps
        taking = takings(known, steps)
    return Terms(
        codec=codec,
        fragments=wanted.fragments or min(most_fragments, _fragments(codec, parameters, known, taking)),
        because=found.line,
    )


def _fragments(codec: str, parameters: int, known: Known, taking: Mapping[str, Taking]) -> int:
    if any(seen is not None and seen.accelerators > 1 for seen in known.members.values()):
        # A site that trains in several processes cannot synchronise a fragment alone.
        return 1
    name = parse_compressor(codec).name
    return max(fragments_for(name, parameters, one, len(taking)) for one in taking.values())


def told_of(terms: Terms | None, wanted: Wanted, codec: str, fragments: int, parameters: int) -> Told:
    """How contributions are written, and by whose word."""
    by: Chooser = "advice" if terms is not None and terms.measured else "default"
    return Told(
        codec,
        fragments,
        parameters,
        by if wanted.codec is None else wanted.codec_by,
        by if wanted.fragments is None else wanted.fragments_by,
    )
