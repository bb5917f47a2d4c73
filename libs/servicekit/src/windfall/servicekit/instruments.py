"""Every metric that Windfall emits: its name, its unit and what it says, in one place.

Names are dotted and start with ``windfall.`` unless OpenTelemetry's semantic conventions name the thing already
(``messaging.*``, ``rpc.*``, ``hw.*``). Units are UCUM's, as the conventions ask. What a collector makes of a name for
Prometheus is :attr:`Instrument.prometheus`; dashboards and alerts are held against this file by a test.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Shape(StrEnum):
    """What kind of number it is, and so what a collector may do with it."""

    COUNTER = "counter"
    """Only grows."""
    HISTOGRAM = "histogram"
    """Single values, each with an exemplar of the span that it was recorded in."""
    GAUGE = "gauge"
    """As it stands now."""


SECONDS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Bounds for whatever lasts between a message and a round."""
WAITS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for one message or one call."""

_UNITS: Final = {
    "By/s": "bytes_per_second",
    "g/kW.h": "grams_per_kW_h",
    "s": "seconds",
    "By": "bytes",
    "W": "watts",
    "J": "joules",
    "Hz": "hertz",
    "Cel": "celsius",
    "%": "percent",
}


@dataclass(frozen=True)
class Instrument:
    """One metric. Attributes are all that it may carry: few values each, and none that names a person or a path."""

    shape: Shape
    name: str
    unit: str
    sentence: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus(self) -> str:
        """Its name in Prometheus; a histogram has ``_bucket``, ``_sum`` and ``_count`` behind it.

        OpenTelemetry specification, *Prometheus and OpenMetrics compatibility*: dots become underscores, the unit is
        spelt out at the end, annotations in braces are dropped, a ratio is a gauge of unit 1, a counter is a total.
        """
        unit = "" if self.unit.startswith("{") else _UNITS.get(self.unit, self.unit.replace(".", "_"))
        if self.unit == "1":
            unit = "ratio" if self.shape is Shape.GAUGE else ""
        words = self.name.replace(".", "_")
        if unit and not words.endswith(f"_{unit}"):
            words = f"{words}_{unit}"
        return f"{words}_total" if self.shape is Shape.COUNTER else words

    @property
    def labels(self) -> tuple[str, ...]:
        """Its attributes as Prometheus calls them."""
        return tuple(attribute.replace(".", "_") for attribute in self.attributes)


_SITE: Final = "windfall.site"
_FEDERATION: Final = "windfall.federation"


def _counter(name: str, unit: str, sentence: str, *attributes: str) -> Instrument:
    return Instrument(Shape.COUNTER, name, unit, sentence, attributes)


def _gauge(name: str, unit: str, sentence: str, *attributes: str) -> Instrument:
    return Instrument(Shape.GAUGE, name, unit, sentence, attributes)


def _histogram(name: str, sentence: str, *attributes: str, bounds: tuple[float, ...] = SECONDS) -> Instrument:
    return Instrument(Shape.HISTOGRAM, name, "s", sentence, attributes, bounds)


# --- energy -----------------------------------------------------------------------------------------------------------

ENERGY = _counter(
    "windfall.energy", "kW.h", "Energy that the site's node has drawn.", _SITE, "windfall.state", "windfall.method"
)
ENERGY_CLEAN = _counter(
    "windfall.energy.clean",
    "kW.h",
    "The part of it drawn below the open threshold.",
    _SITE,
    "windfall.state",
    "windfall.method",
)
EMISSIONS = _counter(
    "windfall.emissions", "kg", "CO2 equivalent of that energy.", _SITE, "windfall.state", "windfall.method"
)
ALWAYS_ON_ENERGY = _counter(
    "windfall.always_on.energy",
    "kW.h",
    "What training all the time would have drawn.",
    _SITE,
    "windfall.state",
    "windfall.method",
)
ALWAYS_ON_EMISSIONS = _counter(
    "windfall.always_on.emissions",
    "kg",
    "CO2 equivalent of training all the time.",
    _SITE,
    "windfall.state",
    "windfall.method",
)
LEDGER_BROKEN = _gauge("windfall.ledger.broken", "{ledger}", "1 where the energy ledger does not verify.", _SITE)
INTENSITY = _gauge(
    "windfall.signal.intensity", "g/kW.h", "Carbon intensity of the site's power when its window opened last.", _SITE
)
SIGNALS_REFUSED = _counter(
    "windfall.signal.refused", "{value}", "Signal values that were not believed.", _SITE, "windfall.reason"
)
SIGNAL_STALE = _gauge(
    "windfall.signal.stale", "{signal}", "1 while the site has no fresh signal and is shut for it.", _SITE
)
WINDOW_OPEN = _gauge("windfall.window.open", "{window}", "1 while the site's power is surplus.", _SITE)
WINDOWS = _counter("windfall.windows", "{window}", "Windows by how they ended.", _SITE, "windfall.reason")

# --- capacity ---------------------------------------------------------------------------------------------------------

LEASES = _gauge("windfall.leases", "{lease}", "Leases of the site by state.", _SITE, "windfall.lease.state")
NODES_READY = _counter(
    "windfall.nodes.ready", "{node}", "Nodes that became ready under a lease.", _SITE, "windfall.backend"
)
NODES_FAILED = _counter("windfall.nodes.failed", "{node}", "Leases for which no node could be had.", _SITE)
NODES_RELEASED = _counter(
    "windfall.nodes.released", "{node}", "Nodes that were given back, by why.", _SITE, "windfall.reason"
)
NODE_START = _histogram("windfall.node.start.duration", "From the lease to the node that is ready.", _SITE)

# --- training ---------------------------------------------------------------------------------------------------------

ROUND = _gauge("windfall.round", "{round}", "The last completed round.", _FEDERATION)
ROUNDS = _counter("windfall.rounds", "{round}", "Rounds by how they ended.", _FEDERATION, "windfall.outcome")
ROUND_DURATION = _histogram("windfall.round.duration", "From a round's opening to its commit.", _FEDERATION)
ROUND_PART = _histogram("windfall.round.part.duration", "What a round's time goes into, by part.", "windfall.part")
MEMBERS = _gauge("windfall.members", "{site}", "Sites that contributed to the last completed round.", _FEDERATION)
TOKENS = _counter("windfall.tokens", "{token}", "Tokens or samples that were trained and merged.", _FEDERATION)
STEPS = _counter("windfall.steps", "{step}", "Local steps whose work was merged.", _FEDERATION)
LOSS = _gauge("windfall.loss", "nats", "Training loss of the last completed round, weighted by tokens.", _FEDERATION)
LOSS_HELD_OUT = _gauge(
    "windfall.loss.held_out", "nats", "Loss of the last committed model on data that no site trains on.", _FEDERATION
)
TRANSFERRED = _counter(
    "windfall.transferred",
    "By",
    "Bytes of contributions and models that crossed between sites and hub.",
    _FEDERATION,
    "windfall.direction",
    "windfall.codec",
)
CONTRIBUTIONS = _counter(
    "windfall.contributions", "{contribution}", "Contributions that were accepted.", _FEDERATION, _SITE
)
CONTRIBUTIONS_REFUSED = _counter(
    "windfall.contributions.refused",
    "{contribution}",
    "Contributions that did not pass the firewall.",
    _FEDERATION,
    _SITE,
    "windfall.reason",
)
STEPS_SKIPPED = _counter(
    "windfall.steps.skipped",
    "{step}",
    "Local steps without a finite loss or gradient, which were left out.",
    _FEDERATION,
    _SITE,
)
SITES_LEFT = _counter(
    "windfall.sites.left", "{site}", "Members that left, by why.", _FEDERATION, _SITE, "windfall.reason"
)
CHECKPOINTS_DAMAGED = _counter(
    "windfall.checkpoints.damaged",
    "{file}",
    "Files of the coordinator that were not what had been written.",
    _FEDERATION,
    "windfall.remedy",
)
EPSILON = _gauge(
    "windfall.privacy.epsilon", "{epsilon}", "What a site's contributions with noise tell of its data at most.", _SITE
)
BARRIER_WAIT = _histogram("windfall.barrier.wait", "What a site that has delivered waits for the next round.", _SITE)

# --- hardware and links -----------------------------------------------------------------------------------------------

_TARGET: Final = "windfall.target"

LINK_RTT = _gauge("windfall.link.rtt", "s", "Round-trip time from the site to the hub or another site.", _SITE, _TARGET)
LINK_JITTER = _gauge("windfall.link.jitter", "s", "Mean difference between a round trip and the next.", _SITE, _TARGET)
LINK_BANDWIDTH = _gauge(
    "windfall.link.bandwidth",
    "By/s",
    "Goodput between the site and the hub or another site.",
    _SITE,
    _TARGET,
    "windfall.direction",
)
LINK_DEGRADED = _gauge(
    "windfall.link.degraded", "{link}", "1 while a link is out of its band.", _SITE, _TARGET, "windfall.part"
)

# OpenTelemetry's own, development status; what it declares as up-down counters are gauges here, since they are read.
_GPU: Final = (_SITE, "hw.id")
_HW: Final = (_SITE, "hw.id", "hw.type")
HW_GPU_UTILIZATION = _gauge("hw.gpu.utilization", "1", "Share of time in which the GPU computed.", *_GPU)
HW_GPU_MEMORY_USAGE = _gauge("hw.gpu.memory.usage", "By", "The GPU's memory that is taken.", *_GPU)
HW_GPU_MEMORY_LIMIT = _gauge("hw.gpu.memory.limit", "By", "The GPU's memory.", *_GPU)
HW_GPU_MEMORY_UTILIZATION = _gauge("hw.gpu.memory.utilization", "1", "Share of the GPU's memory that is taken.", *_GPU)
HW_GPU_IO = _counter(
    "hw.gpu.io", "By", "Bytes that the GPU sent and received over PCIe.", *_GPU, "network.io.direction"
)
HW_POWER = _gauge("hw.power", "W", "What the device draws now.", *_HW)
HW_ENERGY = _counter("hw.energy", "J", "What the device has drawn.", *_HW)
HW_TEMPERATURE = _gauge("hw.temperature", "Cel", "How hot the device is.", *_HW)
HW_ERRORS = _counter("hw.errors", "{error}", "Errors that the device counted, by what they are.", *_HW, "error.type")
HW_STATUS = _gauge("hw.status", "1", "1 for the state that the device is in, 0 for others.", *_HW, "hw.state")

# --- the bus, the disk and the keys -----------------------------------------------------------------------------------

SAID = _counter("windfall.events", "{event}", "Sentences that were decided and journaled, by topic.", "windfall.topic")
UNSAID = _gauge(
    "windfall.outbox.unsaid", "{event}", "Sentences that the journal holds and the bus has not acknowledged."
)
PROCESSED = _histogram(
    "messaging.process.duration", "Handling one delivery.", "messaging.operation.name", "windfall.outcome", bounds=WAITS
)
PUBLISHED = _histogram(
    "messaging.client.operation.duration",
    "From saying a sentence to the stream's acknowledgement.",
    "messaging.operation.name",
    "windfall.outcome",
    bounds=WAITS,
)
REDELIVERED = _counter(
    "windfall.bus.redelivered", "{message}", "Deliveries that were not the first of their message.", "windfall.stream"
)
DEAD_LETTERS = _counter(
    "windfall.bus.dead_letters",
    "{message}",
    "Messages that could not be handled and were laid aside.",
    "windfall.stream",
)
LAG = _gauge("windfall.bus.lag", "{message}", "Messages that wait for this service.", "windfall.stream")
CONSUMERS_LOST = _counter(
    "windfall.bus.lost", "{object}", "Streams and consumers that were gone and were declared again."
)
STORE_USE = _gauge("windfall.bus.store.use", "1", "Share of a stream's room that is taken.", "windfall.stream")
CALLS = _histogram("rpc.server.call.duration", "Serving one gRPC call.", "rpc.method", "windfall.outcome", bounds=WAITS)
CERTIFICATE = _gauge("windfall.certificate.remaining", "s", "Until the certificate of this service runs out.")
SPANS_DROPPED = _counter("windfall.telemetry.dropped", "{span}", "Spans that neither collector nor file took.")

ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
"""All of them, in the order of this file."""


def table() -> str:
    """All metrics as a table of Markdown: the one in ``docs/telemetry.md``."""
    rows = [
        f"| `{one.name}` | `{one.prometheus}` | {one.shape.value} | {one.unit} | "
        f"{', '.join(one.attributes) or '–'} | {one.sentence} |"
        for one in ALL
    ]
    return "\n".join(["| metric | in Prometheus | shape | unit | attributes | what it says |", "|---" * 6 + "|", *rows])


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
