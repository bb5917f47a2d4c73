"""What would suit a federation, beside what it was told. Pure: a line for a person, and nothing is switched by it."""

from collections.abc import Mapping
from dataclasses import dataclass

from windfall.federation_coordinator.pace import Seen, link_of, speeds_of
from windfall.lowcomm.compressor import parse_compressor
from windfall.lowcomm.fleet_advice import Taking, advise_fleet


@dataclass(frozen=True)
class Told:
    """What the operator chose for good."""

    codec: str
    """The setting in which contributions travel."""
    fragments: int
    parameters: int
    """Of the whole model."""


@dataclass(frozen=True)
class Advised:
    """What is advised: codec and fragments, and which sites are not worth their synchronisation."""

    codec: str
    fragments: int
    not_worth: tuple[str, ...]
    line: str


def advised(
    told: Told, members: Mapping[str, Seen | None], speeds: Mapping[str, float], steps: Mapping[str, int]
) -> Advised | None:
    """Advice for the sites whose link and speed are known; none while there is no such site.

    Args:
        speeds: steps per second as earlier rounds had them.
        steps: local steps of each site in a round.
    """
    known = speeds_of(members, speeds)
    taking = {
        site: Taking(1 / speed, steps[site], link)
        for site, speed in known.items()
        if site in steps and (link := link_of(members[site])) is not None
    }
    if not taking:
        return None
    found = advise_fleet(told.parameters, taking, told.codec)
    idle = tuple(sorted(site for site, worth in found.worths.items() if not worth.is_worth))
    used = parse_compressor(told.codec).name
    codec = f"{found.codec} instead of {used}" if found.codec != used else f"{used} as it is"
    fragments = f"{found.fragments} instead of {told.fragments}" if found.fragments != told.fragments else "as they are"
    parts = [f"codec {codec} ({found.line})", f"fragments {fragments}", *(found.worths[site].line for site in idle)]
    return Advised(found.codec, found.fragments, idle, "; ".join(parts))
