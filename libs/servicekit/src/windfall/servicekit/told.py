"""What a service says is also what it measures: a sentence becomes the numbers that it speaks of.

A sentence is measured when it is journaled, once, whatever happens to it on the bus, and within the span that decided
it: that span is its exemplar.
"""

from collections.abc import Iterator
from functools import singledispatch
from typing import NamedTuple

from windfall.contracts import events
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.servicekit import instruments as m
from windfall.servicekit.instruments import Instrument
from windfall.servicekit.metrics import record


class Measurement(NamedTuple):
    """One number of one instrument."""

    instrument: Instrument
    value: float
    attributes: dict[str, str]


def measure(message: Message) -> None:
    """Record what a sentence says of itself."""
    record(m.SAID, 1, {"windfall.topic": message.topic})
    for one in measurements(message):
        record(one.instrument, one.value, one.attributes)


@singledispatch
def measurements(message: Message) -> Iterator[Measurement]:
    """The numbers in a sentence. A kind that is not listed below has none."""
    yield from ()


def _of_site(event: events.SiteEvent, **more: str) -> dict[str, str]:
    return {"windfall.site": event.site, **{f"windfall.{key}": value for key, value in more.items()}}


def _of(event: events.FederationEvent, **more: str) -> dict[str, str]:
    return {"windfall.federation": event.federation, **{f"windfall.{key}": value for key, value in more.items()}}


# --- energy and windows -----------------------------------------------------------------------------------------------


@measurements.register
def _(event: events.SignalRefused) -> Iterator[Measurement]:
    yield Measurement(m.SIGNALS_REFUSED, 1, _of_site(event, reason=event.reason))


@measurements.register
def _(event: events.SignalStale) -> Iterator[Measurement]:
    yield Measurement(m.SIGNAL_STALE, 1, _of_site(event))


@measurements.register
def _(event: events.SignalRecovered) -> Iterator[Measurement]:
    yield Measurement(m.SIGNAL_STALE, 0, _of_site(event))


@measurements.register
def _(event: events.WindowOpened) -> Iterator[Measurement]:
    yield Measurement(m.WINDOW_OPEN, 1, _of_site(event))
    if event.intensity_g_per_kwh is not None:
        yield Measurement(m.INTENSITY, event.intensity_g_per_kwh, _of_site(event))


@measurements.register
def _(event: events.WindowClosed) -> Iterator[Measurement]:
    yield Measurement(m.WINDOW_OPEN, 0, _of_site(event))
    yield Measurement(m.WINDOWS, 1, _of_site(event, reason=event.reason))


# --- capacity ---------------------------------------------------------------------------------------------------------


@measurements.register
def _(event: events.NodeReady) -> Iterator[Measurement]:
    yield Measurement(m.NODES_READY, 1, _of_site(event, backend=event.backend))


@measurements.register
def _(event: events.NodeFailed) -> Iterator[Measurement]:
    yield Measurement(m.NODES_FAILED, 1, _of_site(event))


@measurements.register
def _(event: events.NodeReleased) -> Iterator[Measurement]:
    yield Measurement(m.NODES_RELEASED, 1, _of_site(event, reason=event.reason))


@measurements.register
def _(event: events.NodeProfiled) -> Iterator[Measurement]:
    found = event.measured
    yield from _of_link(event, HUB, found.link_rtt_ms, found.link_up_mb_per_s, found.link_down_mb_per_s)


@measurements.register
def _(event: events.LinkMeasured) -> Iterator[Measurement]:
    yield from _of_link(event, event.target, event.rtt_ms, event.up_mb_per_s, event.down_mb_per_s)
    if event.jitter_ms is not None:
        yield Measurement(m.LINK_JITTER, event.jitter_ms / 1000, _of_site(event, target=event.target))


@measurements.register
def _(event: events.LinkDegraded) -> Iterator[Measurement]:
    yield Measurement(m.LINK_DEGRADED, 1, _of_site(event, target=event.target, part=event.part))


@measurements.register
def _(event: events.LinkRecovered) -> Iterator[Measurement]:
    yield Measurement(m.LINK_DEGRADED, 0, _of_site(event, target=event.target, part=event.part))


def _of_link(
    event: events.SiteEvent, target: str, rtt_ms: float | None, up_mb_per_s: float | None, down_mb_per_s: float | None
) -> Iterator[Measurement]:
    if rtt_ms is not None:
        yield Measurement(m.LINK_RTT, rtt_ms / 1000, _of_site(event, target=target))
    for direction, mb_per_s in (("up", up_mb_per_s), ("down", down_mb_per_s)):
        if mb_per_s is not None:
            yield Measurement(m.LINK_BANDWIDTH, mb_per_s * 1e6, _of_site(event, target=target, direction=direction))


# --- training ---------------------------------------------------------------------------------------------------------


@measurements.register
def _(event: events.ContributionAccepted) -> Iterator[Measurement]:
    of = {"windfall.federation": event.federation, "windfall.site": event.site}
    yield Measurement(m.CONTRIBUTIONS, 1, of)
    if event.skipped:
        yield Measurement(m.STEPS_SKIPPED, event.skipped, of)


@measurements.register
def _(event: events.ContributionRefused) -> Iterator[Measurement]:
    of = {"windfall.federation": event.federation, "windfall.site": event.site, "windfall.reason": event.reason}
    yield Measurement(m.CONTRIBUTIONS_REFUSED, 1, of)


@measurements.register
def _(event: events.RoundCompleted) -> Iterator[Measurement]:
    yield Measurement(m.ROUNDS, 1, _of(event, outcome="completed"))
    if event.duration_s is not None:
        yield Measurement(m.ROUND_DURATION, event.duration_s, _of(event))
    yield Measurement(m.ROUND, event.round, _of(event))
    yield Measurement(m.MEMBERS, len(event.contributors), _of(event))
    yield Measurement(m.TOKENS, event.tokens, _of(event))
    yield Measurement(m.STEPS, event.steps, _of(event))
    yield Measurement(m.LOSS, event.loss_nats, _of(event))


@measurements.register
def _(event: events.RoundDiscarded) -> Iterator[Measurement]:
    yield Measurement(m.ROUNDS, 1, _of(event, outcome="discarded"))


@measurements.register
def _(event: events.RoundEvaluated) -> Iterator[Measurement]:
    yield Measurement(m.LOSS_HELD_OUT, event.loss_nats, _of(event))


@measurements.register
def _(event: events.SiteLeft) -> Iterator[Measurement]:
    of = {"windfall.federation": event.federation, "windfall.site": event.site, "windfall.reason": event.reason}
    yield Measurement(m.SITES_LEFT, 1, of)


@measurements.register
def _(event: events.CheckpointDamaged) -> Iterator[Measurement]:
    yield Measurement(m.CHECKPOINTS_DAMAGED, 1, _of(event, remedy=event.remedy))
