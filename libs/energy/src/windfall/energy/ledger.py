"""What a fleet drew and emitted, told from its events alone.

The state of a site's node follows the sentences about it; its power follows the state; its emissions follow the power
and the site's trace, piecewise over the trace's steps, without sampling:

    E = Σ P(state) · Δt            in kWh
    m = Σ P(state) · Δt · i / 1000 in kg CO2, with the intensity i in g/kWh
    clean share = E(i < threshold) / E
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from windfall.contracts.events import (
    EVENTS,
    NodeFailed,
    NodeReady,
    NodeReleased,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.energy.power import PowerModel, SiteState
from windfall.energy.signals import Trace

_HOUR: Final = timedelta(hours=1)
_LIFE_ORDER: Final[dict[type[Message], int]] = {kind: place for place, kind in enumerate(EVENTS)}
Told = (
    WindowExpected
    | WindowWithdrawn
    | WindowOpened
    | NodeReady
    | TrainingStarted
    | WindowClosed
    | SiteDrained
    | NodeReleased
    | NodeFailed
)
"""The sentences that say what a site's node does."""


@dataclass(frozen=True)
class Interval:
    """A site's node was in one state from ``start`` until ``end``."""

    site: str
    state: SiteState
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Usage:
    """Energy drawn and what it emitted."""

    energy_kwh: float = 0.0
    emissions_kg: float = 0.0
    clean_energy_kwh: float = 0.0
    """The part that was drawn while the intensity was below the threshold."""

    @property
    def clean_energy_share(self) -> float | None:
        """From 0 to 1; none when nothing was drawn."""
        return self.clean_energy_kwh / self.energy_kwh if self.energy_kwh else None

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.energy_kwh + other.energy_kwh,
            self.emissions_kg + other.emissions_kg,
            self.clean_energy_kwh + other.clean_energy_kwh,
        )


@dataclass(frozen=True)
class Account:
    """Usage of each site and of all together."""

    sites: Mapping[str, Usage]

    @property
    def total(self) -> Usage:
        return sum(self.sites.values(), Usage())


@dataclass(frozen=True)
class Node:
    """A site's node as its events tell it."""

    state: SiteState = SiteState.OFF
    lease_token: int = 0
    """The newest lease; what an older one still says does not concern the node."""
    window_id: UUID | None = None
    """The window that is open or expected; none outside of both."""
    serves: UUID | None = None
    """The window for which it draws power, that of a drain included; none while it is off."""


def intervals(events: Iterable[Message], start: datetime, end: datetime) -> tuple[Interval, ...]:
    """The states of every site that the events name, without gap or overlap from ``start`` to ``end``.

    Events may come in any order and more than once, with others among them; they are told by their ``at``, and those
    of one instant in life order. A site is off until its first event.
    """
    told = [event for event in events if isinstance(event, Told)]
    told.sort(key=lambda event: (event.at, _LIFE_ORDER[type(event)], event.id))
    nodes: dict[str, Node] = {}
    lives: dict[str, dict[datetime, SiteState]] = {}
    for event in told:
        node = nodes[event.site] = follow(nodes.get(event.site, Node()), event)
        life = lives.setdefault(event.site, {start: SiteState.OFF})
        life[min(max(event.at, start), end)] = node.state
    return tuple(interval for site in sorted(lives) for interval in _spell(site, lives[site], end))


def _spell(site: str, life: Mapping[datetime, SiteState], end: datetime) -> Iterator[Interval]:
    """The intervals of states that are known at the instants at which something was said, oldest first."""
    since, state = next(iter(life.items()))
    for at, following in life.items():
        if following is not state:
            yield Interval(site, state, since, at)
            since, state = at, following
    if since < end:
        yield Interval(site, state, since, end)


def account(
    intervals: Iterable[Interval], traces: Mapping[str, Trace], power: PowerModel, clean_below_g_per_kwh: float
) -> Account:
    """Energy, emissions and clean share of the intervals, under each site's trace.

    Raises:
        ValueError: a site that drew power has no trace, or drew it before its trace begins.
    """
    sites: dict[str, Usage] = {}
    for interval in intervals:
        usage = sites.get(interval.site, Usage())
        kw = power.kw(interval.state)
        if kw > 0.0:
            usage += _usage(interval, _trace_of(interval.site, traces), kw, clean_below_g_per_kwh)
        sites[interval.site] = usage
    return Account(sites)


def always_on(
    sites: Iterable[str],
    traces: Mapping[str, Trace],
    start: datetime,
    end: datetime,
    power: PowerModel,
    clean_below_g_per_kwh: float,
) -> Account:
    """The counterfactual: every site trains from ``start`` to ``end``, whatever the power is made of."""
    training = [Interval(site, SiteState.TRAINING, start, end) for site in sites]
    return account(training, traces, power, clean_below_g_per_kwh)


def follow(node: Node, event: Told) -> Node:
    """The node after one more event about its site."""
    after = _followed(node, event)
    if after.state is SiteState.OFF:
        return replace(after, serves=None)
    if isinstance(event, NodeReady | TrainingStarted) and event.lease_token >= node.lease_token:
        return replace(after, serves=event.window_id)
    fresh = after.state is SiteState.PROVISIONING and node.state is not SiteState.PROVISIONING
    return replace(after, serves=after.window_id) if fresh else after


def _followed(node: Node, event: Told) -> Node:
    if isinstance(event, WindowExpected | WindowOpened):
        state = SiteState.PROVISIONING if node.state is SiteState.OFF else node.state
        return replace(node, state=state, window_id=event.window_id)
    if isinstance(event, WindowClosed | WindowWithdrawn):
        return _over(node, event)
    if event.lease_token < node.lease_token:
        return node
    match event:
        case NodeReady():
            return replace(node, state=SiteState.IDLE, lease_token=event.lease_token)
        case TrainingStarted():
            return replace(node, state=SiteState.TRAINING, lease_token=event.lease_token)
        case SiteDrained():
            drawing = node.state in (SiteState.TRAINING, SiteState.DRAINING)
            return replace(node, state=SiteState.IDLE if drawing else node.state)
        case NodeReleased():
            again = event.reason in ("died", "replaced") or node.window_id != event.window_id
            waited_for = again and node.window_id is not None
            return replace(node, state=SiteState.PROVISIONING if waited_for else SiteState.OFF)
        case NodeFailed():
            waited_for = node.window_id not in (None, event.window_id)
            return replace(node, state=SiteState.PROVISIONING if waited_for else SiteState.OFF)


def _over(node: Node, event: WindowClosed | WindowWithdrawn) -> Node:
    """No more surplus: what trains drains, what was only asked for is not needed, what idles waits for its release."""
    if node.window_id in (None, event.window_id):
        after = {SiteState.TRAINING: SiteState.DRAINING, SiteState.PROVISIONING: SiteState.OFF}
        return replace(node, state=after.get(node.state, node.state), window_id=None)
    # Another window is expected already; what is being provisioned is for that one.
    drains = isinstance(event, WindowClosed) and node.state is SiteState.TRAINING
    return replace(node, state=SiteState.DRAINING) if drains else node


def _usage(interval: Interval, trace: Trace, kw: float, clean_below_g_per_kwh: float) -> Usage:
    usage = Usage()
    for intensity_g_per_kwh, held in trace.segments(interval.start, interval.end):
        kwh = kw * (held / _HOUR)
        clean_kwh = kwh if intensity_g_per_kwh < clean_below_g_per_kwh else 0.0
        usage += Usage(kwh, kwh * intensity_g_per_kwh / 1000.0, clean_kwh)
    return usage


def _trace_of(site: str, traces: Mapping[str, Trace]) -> Trace:
    try:
        return traces[site]
    except KeyError:
        raise ValueError(f"there is no trace for {site!r}; there are {', '.join(sorted(traces)) or 'none'}") from None
