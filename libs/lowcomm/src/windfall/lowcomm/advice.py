"""How often to synchronise, and in which codec: from the link and the model, explained in one line.

A synchronisation takes, one after the other: the site encodes; its message goes up; the coordinator decodes, merges
and steps; the others' messages, or all of them merged where that is shorter, come down, and the site does as the
coordinator did (of codecs with 16 bits and more, the new model comes down instead); and a few round trips of the link.
The steps are the fewest for which that costs at most a share of the training between two synchronisations. With
overlap a site trains on meanwhile: then only its own arithmetic costs, as long as the rest is over before the next
synchronisation begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Final

from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.compressor import parse_compressor
from windfall.lowcomm.rule import SPARSE

MOST_SHARE: Final = 0.05
"""What synchronisation may cost, beside the training that it interrupts."""

LADDER: Final = (1, 2, 5, 10, 15, 20, 30, 50, 100, 250, 500)
SHORT: Final = 30
"""Up to so many steps a denser codec is preferred; beyond, the sparsest, which its authors report to end at a lower
loss than dense averaging from 15 to 250 steps (SparseLoCo, arXiv 2508.15706)."""

ROUND_TRIPS: Final = 3
"""Of a round: the word that it is over, a push and its receipt, a pull."""

_LARGEST_FRAGMENTS: Final = 8
_FRAGMENT_ELEMENTS: Final = 1 << 20
"""Shorter fragments would pay more round trips than they spread bytes."""


@dataclass(frozen=True)
class Cost:
    """Of a codec, per parameter: bits up, and how many per second are encoded or decoded and merged."""

    bits: float
    encoded_per_s: float
    decoded_per_s: float


COSTS: Final[Mapping[str, Cost]] = MappingProxyType(
    {
        "fp32": Cost(32.0, 90e6, 200e6),
        "bf16": Cost(16.0, 190e6, 290e6),
        "int8-block": Cost(8.125, 170e6, 220e6),
        "int4-block": Cost(4.125, 220e6, 220e6),
        "q2-ef": Cost(1.6, 55e6, 120e6),
        "topk-ef": Cost(0.15, 55e6, 490e6),
        "dct-momentum": Cost(0.15, 28e6, 510e6),
    }
)
"""With default settings. Bits as each codec's messages have them; speeds are half of what ``Rule`` reached per second
of processor time, one thread of an AMD EPYC virtual machine at 10 M parameters: hosts differ, and cores are shared."""

STEPPED_PER_S: Final = 50e6
"""Parameters that the outer step moves and the digest covers; found and halved as above."""

CANDIDATES: Final = ("fp32", "bf16", "int4-block", "q2-ef", "topk-ef")
"""From the densest to the sparsest. The other codecs are taken when they are asked for."""


@dataclass(frozen=True)
class Link:
    """Between a site and the coordinator, as fast as one site sees it while the others synchronise too.

    Raises:
        ValueError: a rate is not positive and finite, or the round trip is negative or not finite.
    """

    up_bit_per_s: float
    down_bit_per_s: float
    rtt_s: float

    def __post_init__(self) -> None:
        for rate in (self.up_bit_per_s, self.down_bit_per_s):
            if not (isfinite(rate) and rate > 0):
                raise ValueError(f"a link carries a positive number of bits per second, not {rate}")
        if not (isfinite(self.rtt_s) and self.rtt_s >= 0):
            raise ValueError(f"a round trip takes 0 seconds or more, not {self.rtt_s}")


@dataclass(frozen=True)
class Synchronisation:
    """What one takes. ``own_s`` is the site's own arithmetic, which is part of ``total_s``."""

    up_bytes: float
    down_bytes: float
    own_s: float
    total_s: float

    def share(self, training_s: float, *, overlaps: bool) -> float:
        """What it costs beside so much training."""
        return (self.own_s + max(0.0, self.total_s - training_s) if overlaps else self.total_s) / training_s


@dataclass(frozen=True)
class Advice:
    """Settings for ``Rule`` and ``Schedule``, and why. ``synchronisation_share`` is relative to training."""

    codec: str
    outer: str
    steps: int
    fragments: int
    synchronisation_share: float
    line: str


def advise(
    parameters: int,
    step_s: float,
    link: Link,
    sites: int,
    *,
    codec: str | None = None,
    steps: int | None = None,
    overlaps: bool = False,
) -> Advice:
    """The densest codec that needs at most ``SHORT`` steps between synchronisations, or else the sparsest.

    Args:
        parameters: of the model, that is to say elements that travel.
        step_s: seconds of one local step (tokens per step / tokens per second).
        sites: in a round, this one counted.
        codec: a setting that is taken as it is, like ``topk-ef:decay=0.95``; its cost is that of its default settings.
        steps: taken as they are.
        overlaps: sites train on while they synchronise (``windfall.lowcomm.overlap``).

    Raises:
        ValueError: a number is out of range, or the codec is unknown.
    """
    if parameters < 1 or sites < 1 or (steps is not None and steps < 1):
        raise ValueError(f"no advice for {parameters} parameters, {sites} sites and {steps} steps: all are 1 or more")
    if not (isfinite(step_s) and step_s > 0):
        raise ValueError(f"a local step takes a positive number of seconds, not {step_s}")

    found = "", 0, synchronisation("topk-ef", parameters, link, sites)
    for setting in (codec,) if codec is not None else CANDIDATES:
        once = synchronisation(parse_compressor(setting).name, parameters, link, sites)
        found = setting, steps or fewest_steps(once, step_s, overlaps=overlaps), once
        if found[1] <= SHORT and once.share(found[1] * step_s, overlaps=overlaps) <= MOST_SHARE:
            break
    chosen, h, once = found
    share = once.share(h * step_s, overlaps=overlaps)
    fragments = fragments_of(parameters, h) if overlaps else 1
    told = " and ".join(name for name, value in (("codec", codec), ("steps", steps)) if value is not None)
    line = (
        f"{chosen} every {'step' if h == 1 else f'{h} steps'}: {_many(parameters)} parameters take "
        f"{_bytes(once.up_bytes)} up and {_bytes(once.down_bytes)} down per round, "
        f"{_seconds(once.total_s)} for {_seconds(h * step_s)} of training on {_rates(link)} "
        f"with {link.rtt_s * 1000:.3g} ms ({_percent(share)}{' with overlap' if overlaps else ''})"
        f"{f', more than {MOST_SHARE:.0%}' if share > MOST_SHARE else ''}"
        f"{f'; {told} as told' if told else ''}"
    )
    return Advice(chosen, outer_of(parse_compressor(chosen).name, h), h, fragments, share, line)


def synchronisation(codec: str, parameters: int, link: Link, sites: int) -> Synchronisation:
    """One, in this codec, by its name."""
    cost = COSTS[codec]
    up = parameters * cost.bits / 8
    stepping = parameters / STEPPED_PER_S
    merging = parameters * sites / cost.decoded_per_s + stepping
    if codec in CODECS:
        down, after = parameters * 4.0, stepping
    else:
        # A site's own message stays where it is. A dense mean is as long as one fp32 model however many sites there
        # are; a sparse one hardly overlaps and is longer than the messages, 1.3 to 1.4 times for 2 to 8 sites.
        down, after = up * (sites - 1), merging
        down = down if codec in SPARSE else min(down, parameters * 4.0)
    own = parameters / cost.encoded_per_s + after
    on_the_way = up * 8 / link.up_bit_per_s + down * 8 / link.down_bit_per_s + ROUND_TRIPS * link.rtt_s
    return Synchronisation(up, down, own, own + merging + on_the_way)


def fewest_steps(once: Synchronisation, step_s: float, *, overlaps: bool = False) -> int:
    """The first of the ladder for which a synchronisation costs at most ``MOST_SHARE`` of the training; the last one
    when none does."""
    enough = (h for h in LADDER if once.share(h * step_s, overlaps=overlaps) <= MOST_SHARE)
    return next(enough, LADDER[-1])


def outer_of(codec: str, steps: int) -> str:
    """The outer optimizer that goes with it: none on sparse codecs; on dense ones Nesterov (DiLoCo, arXiv 2311.08105)
    with the momentum of 0.9 that its authors use for 500 steps, and less for short rounds, where 0.9 overshoots."""
    if codec in SPARSE:
        return "average"
    return f"nesterov:lr=0.7,momentum={0.9 if steps >= 250 else 0.6}"


def fragments_of(parameters: int, steps: int) -> int:
    """Fragments of an overlapping schedule: as many as spread the bytes without making the pieces small, a power of
    two up to 8 and not more than there are steps."""
    count = 1
    while count * 2 <= min(_LARGEST_FRAGMENTS, steps) and parameters >= count * 2 * _FRAGMENT_ELEMENTS:
        count *= 2
    return count


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 1 else f"{share:.0%}"


def _many(count: float) -> str:
    for unit, word in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{word}"
    return f"{count:.0f}"


def _bytes(count: float) -> str:
    for unit, word in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {word}" if count < 1000 * unit else f"{count / unit:.0f} {word}"
    return f"{count:.0f} bytes"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 99.95 else f"{value:.1f} s" if value >= 0.0995 else f"{value * 1000:.2g} ms"


def _rates(link: Link) -> str:
    up, down = _rate(link.up_bit_per_s), _rate(link.down_bit_per_s)
    return up if up == down else f"{up} up and {down} down"


def _rate(bit_per_s: float) -> str:
    for unit, word in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bit_per_s >= unit:
            return f"{bit_per_s / unit:.4g} {word}"
    return f"{bit_per_s:.3g} bit/s"
