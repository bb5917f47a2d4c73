"""Everything that can happen, in the order in which a window lives through it.

An event is a fact: a noun and a past participle, said once by one service and never taken back. Each travels on
``windfall.v1.<noun>.<verb>.<whom>``. A class says who speaks in its docstring; units stand in the names.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.hardware import Hardware, Token
from windfall.contracts.measures import Dtype, Interval
from windfall.contracts.message import Digest, Instant, Message, Name, Sentence

Count = Field(ge=0)

Rows = Annotated[tuple[tuple[int, int], ...], Field(max_length=1024)]
"""Ranges of a shared corpus, each from its first position up to and without its last, in order and apart. The orders of
all epochs lie end to end: position *p* is place ``p % rows`` of epoch ``p // rows``."""


class SiteEvent(Message):
    """A fact about one site."""

    site: Name

    @property
    def whom(self) -> str:
        return self.site


class FederationEvent(Message):
    """A fact about one federation."""

    federation: Name

    @property
    def whom(self) -> str:
        return self.federation


# --- the wind ---------------------------------------------------------------------------------------------------------


class SignalKind(StrEnum):
    """What a signal measures; each kind has one unit (``UNITS``), so that none is mistaken for another."""

    MARGINAL = "marginal"
    """Intensity of the generator that would answer one more kilowatt-hour (MOER)."""
    AVERAGE = "average"
    """Mean intensity of all power consumed there."""
    PERCENTILE = "percentile"
    """Rank of the present intensity among recent ones: 0 is the cleanest. Not an intensity."""
    PRICE = "price"
    """Of energy on a market; below zero when there is too much of it."""
    SURPLUS = "surplus"
    """Power that nobody else at the site uses."""


UNITS: Final[dict[SignalKind, str]] = {
    SignalKind.MARGINAL: "gCO2/kWh",
    SignalKind.AVERAGE: "gCO2/kWh",
    SignalKind.PERCENTILE: "percentile",
    SignalKind.PRICE: "EUR/MWh",
    SignalKind.SURPLUS: "W",
}
"""The unit of each kind. Who has another one converts first, or names none that is here and is refused."""


class Point(BaseModel):
    """One value of a signal from an instant on, in the unit of its kind."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore", allow_inf_nan=False)

    point_time: Instant
    value: float


class SignalObserved(SiteEvent):
    """windfall: a value of a site's signal, said by a person, a meter, a market or whoever may speak for it."""

    topic: ClassVar[str] = "signal.observed"
    signal: Name
    """The site's name for it, as its rule has it."""
    kind: SignalKind
    unit: str
    """Must be the unit of the kind; anything else is refused, never converted by guessing."""
    value: float
    point_time: Instant
    forecast: tuple[Point, ...] = Field(default=(), max_length=900)
    """What is expected after ``point_time``, oldest first."""


class SignalRefused(SiteEvent):
    """energy-watcher: a value was not believed; it is no sign of life, so a signal that says nothing else is stale."""

    topic: ClassVar[str] = "signal.refused"
    signal: Name
    reason: Literal["not-finite", "implausible", "unit", "kind", "order", "future", "disagrees", "unreadable"]
    detail: Sentence
    """The value and what was expected, in words; never a credential."""
    point_time: Instant | None
    """Of the refused value; none when it had none that could be read."""


class SignalForecast(SiteEvent):
    """energy-watcher: what the site's power is expected to be made of, for whoever plans at the hub."""

    topic: ClassVar[str] = "signal.forecast"
    kind: SignalKind
    issued_at: Instant
    step_s: float = Field(gt=0)
    values: tuple[float, ...] = Field(max_length=900)
    """One for each step from ``issued_at`` on, in the unit of the kind."""


class SignalStale(SiteEvent):
    """energy-watcher: no fresh reading for longer than the limit; the site fails closed."""

    topic: ClassVar[str] = "signal.stale"
    last_point_time: Instant | None
    """Point time of the last reading that was believed; none when there never was one."""
    limit_s: float = Field(gt=0)


class SignalRecovered(SiteEvent):
    """energy-watcher: readings are fresh again."""

    topic: ClassVar[str] = "signal.recovered"
    point_time: Instant


class WindowExpected(SiteEvent):
    """energy-watcher: a window is near enough that capacity which starts now is warm when it opens."""

    topic: ClassVar[str] = "window.expected"
    window_id: UUID
    """The id under which it will open, or be withdrawn."""
    opens_at: Instant
    expected_close_at: Instant | None
    """When the forecast says that it will end; none when it sees no end."""
    confidence: float = Field(ge=0, le=1)
    """That it opens within five minutes of ``opens_at``, by what is known of the forecast's error."""
    because: Sentence = ""


class WindowWithdrawn(SiteEvent):
    """energy-watcher: an expected window does not come; what was started for it may go."""

    topic: ClassVar[str] = "window.withdrawn"
    window_id: UUID
    because: Sentence = ""


class WindowOpened(SiteEvent):
    """energy-watcher: power at this site is surplus from now on."""

    topic: ClassVar[str] = "window.opened"
    window_id: UUID
    intensity_g_per_kwh: float | None = Field(ge=0)
    """None where the site's rule reads no intensity."""
    expected_close_at: Instant | None
    """When the forecast says that the window will end; none when it sees no end."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """That it ends within five minutes of ``expected_close_at``; none when no end is seen."""
    because: Sentence = ""


class WindowJudged(SiteEvent):
    """energy-watcher: why the site is on or off, and what would change it; said when the answer changes."""

    topic: ClassVar[str] = "window.judged"
    state: Literal["off", "expected", "on", "stale"]
    because: Sentence
    would_change: Sentence
    next_change_at: Instant | None = None
    """When the forecast or the plan says that the state changes; none when neither sees that far."""


class PlanMade(FederationEvent):
    """federation-coordinator: when each site is to train, so that the objective is met at least carbon or cost."""

    topic: ClassVar[str] = "plan.made"
    objective: Literal["fast", "carbon", "budget", "cost"]
    deadline: Instant | None
    remaining_site_hours: float = Field(ge=0)
    reserve_site_hours: float = Field(ge=0)
    """Planned on top, for the forecast's error."""
    finishes_at: Instant | None
    """When the plan has the work done; none when no plan can do it."""
    emissions_kg: float = Field(ge=0)
    """Of the plan, by the forecast."""
    site_hours: dict[str, float] = Field(default_factory=dict)
    because: Sentence


class EnergyRecorded(SiteEvent):
    """energy-watcher: one more entry of the site's ledger stands on its disk, chained and signed."""

    topic: ClassVar[str] = "energy.recorded"
    sequence: int = Field(ge=1)
    window_id: UUID | None
    state: Literal["off", "provisioning", "idle", "training", "draining"]
    start: Instant
    end: Instant
    energy_kwh: float = Field(ge=0)
    emissions_kg: float = Field(ge=0)
    clean_energy_kwh: float = Field(ge=0)
    method: Literal["metered", "modelled"]
    entry_hash: Digest


# --- capacity ---------------------------------------------------------------------------------------------------------


class NodeHindered(SiteEvent):
    """provisioner: a lease has no node that is ready, and another reason for it than before."""

    topic: ClassVar[str] = "node.hindered"
    window_id: UUID
    lease_id: UUID
    lease_token: int = Field(ge=1)
    because: Sentence
    """Empty: nothing keeps it any more, and it is on its way."""


class NodeReady(SiteEvent):
    """provisioner: a node runs under a lease."""

    topic: ClassVar[str] = "node.ready"
    window_id: UUID
    lease_id: UUID
    lease_token: int = Field(ge=1)
    """Fencing token: grows with every lease of the site."""
    node: Name
    backend: str


class NodeFailed(SiteEvent):
    """provisioner: no node could be had for this window, or it died and its attempts are used up."""

    topic: ClassVar[str] = "node.failed"
    window_id: UUID
    lease_id: UUID
    lease_token: int = Field(ge=1)
    reason: Sentence


class Measured(BaseModel):
    """What the profiler measured on a node. A part that could not be measured is none and named in ``missing``."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore", allow_inf_nan=False)

    fingerprint: str
    """Changes when hardware, driver or benchmark version change."""
    cpu_model: Sentence
    cpu_cores: int = Field(ge=1)
    memory_bytes: int = Field(ge=0)
    matmul_gflops: float | None = Field(default=None, ge=0)
    memory_bandwidth_gb_per_s: float | None = Field(default=None, ge=0)
    step_s_by_micro_batch: dict[int, float] = Field(default_factory=dict)
    """Seconds of one training step of ``task``, by samples in the step."""
    task: Token | None = None
    """None where the step is the benchmark's own reference model's."""
    device: Literal["cpu", "cuda"] | None = None
    """What the benchmark ran on: the processor, or the first accelerator (``cuda`` is torch's name for AMD's, too)."""
    matmul_gflops_by_dtype: dict[Dtype, float] = Field(default_factory=dict)
    """10⁹ operations a second; integer ones for ``int8``."""
    matmul_gflops_by_device: dict[int, float] = Field(default_factory=dict)
    """In fp32, of each further accelerator, by torch's number."""
    host_to_device_gb_per_s: float | None = Field(default=None, ge=0)
    """From pinned memory; GB is 10⁹ bytes. None without an accelerator."""
    device_to_host_gb_per_s: float | None = Field(default=None, ge=0)
    all_reduce_gb_per_s: float | None = Field(default=None, ge=0)
    """Bus bandwidth, 2(n - 1)/n of the bytes of one rank over the time, as nccl-tests has it."""
    all_reduce_ranks: int | None = Field(default=None, ge=2)
    """n: one process per accelerator, or two on the processor."""
    power_idle_w: float | None = Field(default=None, ge=0)
    """Before the benchmark, of all devices whose counters could be read; nothing else of the node is in it."""
    power_train_w: float | None = Field(default=None, ge=0)
    """While it trained at the fastest micro-batch."""
    joules_per_sample: float | None = Field(default=None, ge=0)
    """Energy of those counters over the samples trained meanwhile."""
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """Part → where its value lies with 95 % confidence; an entry of a mapping is ``step_s_by_micro_batch.8``."""
    benchmark: Sentence = ""
    """Version of the benchmark and of the runtime that it measured with."""
    link_rtt_ms: float | None = Field(default=None, ge=0)
    link_up_mb_per_s: float | None = Field(default=None, ge=0)
    link_down_mb_per_s: float | None = Field(default=None, ge=0)
    missing: dict[str, Sentence] = Field(default_factory=dict)
    """Part that is missing → why."""


Precision = Literal["fp32", "bf16"]
"""What a trainer multiplies in."""

TrainingValue = Literal["micro_batch", "gradient_accumulation", "local_steps", "precision"]
"""What a profile recommends for a site."""


class Recommendation(BaseModel):
    """Training settings that follow from a measurement, with the sentence that explains them."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore", allow_inf_nan=False)

    micro_batch: int = Field(ge=1)
    local_steps: int = Field(ge=1)
    because: Sentence
    gradient_accumulation: int = Field(default=1, ge=1, le=4096)
    """Micro-batches in a step."""
    precision: Precision | None = None
    """None where it was not measured which is faster."""
    told: tuple[TrainingValue, ...] = ()
    """Values that the site's owner chose, whatever was measured."""


class NodeProfiled(SiteEvent):
    """profiler: what came up has been measured."""

    topic: ClassVar[str] = "node.profiled"
    window_id: UUID
    lease_token: int = Field(ge=1)
    node: Name
    measured: Measured
    recommendation: Recommendation
    hardware: Hardware | None = None
    """None from a speaker of before it was told."""


LinkPart = Literal["rtt_ms", "up_mb_per_s", "down_mb_per_s"]
"""What of a link has a band: how long it is, and how wide each way. MB is 10⁶ bytes."""


class LinkMeasured(SiteEvent):
    """profiler: the way from its site to the hub, or to another site, was measured.

    A part that could not be measured is none and named in ``missing``.
    """

    topic: ClassVar[str] = "link.measured"
    target: Name
    """The hub, or a site."""
    rtt_ms: float | None = Field(default=None, ge=0)
    """Median of a few echoes."""
    jitter_ms: float | None = Field(default=None, ge=0)
    """Mean difference between one echo and the next."""
    up_mb_per_s: float | None = Field(default=None, ge=0)
    """Goodput towards the target."""
    down_mb_per_s: float | None = Field(default=None, ge=0)
    moved_bytes: int = Count
    """What the measurement itself cost, both ways together."""
    missing: dict[str, Sentence] = Field(default_factory=dict)
    """Part that is missing → why."""


class LinkDegraded(SiteEvent):
    """profiler: a link has left its band, for the worse, and more than once in a row."""

    topic: ClassVar[str] = "link.degraded"
    target: Name
    part: LinkPart
    value: float = Field(ge=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    """The band: where nearly all of the recent measurements lie."""
    because: Sentence


class LinkRecovered(SiteEvent):
    """profiler: a link is within its band again, or has been different for so long that its band is another one."""

    topic: ClassVar[str] = "link.recovered"
    target: Name
    part: LinkPart
    value: float = Field(ge=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    because: Sentence


# --- training ---------------------------------------------------------------------------------------------------------


class SiteRefused(SiteEvent):
    """federation-coordinator: a site asked to join and may not, by the rules of the federation."""

    topic: ClassVar[str] = "site.refused"
    federation: Name
    reason: Literal["jurisdiction"]
    detail: Sentence


class SiteJoined(SiteEvent):
    """federation-coordinator: the site is a member from this round on."""

    topic: ClassVar[str] = "site.joined"
    federation: Name
    window_id: UUID
    lease_token: int = Field(ge=1)
    attempt: int = Field(ge=1)
    round: int = Field(ge=0)


class TaskLearnt(SiteEvent):
    """site-trainer: the coordinator has admitted the site and said what is trained; a profile measures steps of it."""

    topic: ClassVar[str] = "task.learnt"
    federation: Name
    window_id: UUID
    lease_token: int = Field(ge=1)
    task: str = Field(max_length=300)
    """As ``windfall.tasks`` is asked for it."""
    task_settings: str = Field(default="{}", max_length=64 * 1024)
    """JSON object, as the coordinator has it."""


Chooser = Literal["advice", "operator", "owner", "default"]
"""Who chose a value: what was measured, the federation's operator, the site's owner, or nobody."""


class Chosen(BaseModel):
    """One value: what was advised, what is used, and who chose that."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore")

    advised: str = Field(default="", max_length=100)
    """Empty where nothing is known that it could follow from."""
    used: str = Field(default="", max_length=100)
    """Empty where it is left to the trainer."""
    by: Chooser


class SiteAdvice(BaseModel):
    """What is advised for one site of a federation."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore", allow_inf_nan=False)

    site: Name
    takes_part: bool
    """False where it is left out of the round, because it costs the others more than it brings."""
    gain: float | None = Field(default=None, ge=-1)
    """By how much more the federation trains in the same time with the site than without it; none where its speed or
    its link is not known."""
    values: dict[TrainingValue, Chosen] = Field(default_factory=dict)
    because: Sentence = ""


class AdviceGiven(FederationEvent):
    """federation-coordinator: what was advised for a federation, what of it is used, and what its operator or a site's
    owner has overridden; said when it changes."""

    topic: ClassVar[str] = "advice.given"
    round: int = Field(ge=0)
    """The first that goes by it."""
    codec: Chosen
    fragments: Chosen
    average_steps: Chosen
    """Local steps of a round, on average over its sites."""
    sites: tuple[SiteAdvice, ...] = Field(default=(), max_length=200)
    """By name; of more sites the first ones."""
    unlisted: int = Field(default=0, ge=0)
    """Further sites."""
    because: Sentence = ""
    """Why that codec and so many fragments."""


class RoundStarted(FederationEvent):
    """federation-coordinator: members train from this base."""

    topic: ClassVar[str] = "round.started"
    round: int = Field(ge=0)
    base_digest: Digest
    members: tuple[Name, ...]
    ends_at: Instant | None
    """When the round ends at the latest; none when it is boxed by steps alone."""
    local_steps: dict[str, int] = Field(default_factory=dict)
    """After so many each site finishes by itself; empty when the round is boxed by time alone."""
    because: Sentence = ""
    """Why so many, in one sentence, when nobody said how many."""
    left_out: dict[str, Sentence] = Field(default_factory=dict)
    """Members that do not train in this round, because they cost the others more than they bring → why."""


class TrainingStarted(SiteEvent):
    """site-trainer: the first step under this lease is done; the devices draw training power."""

    topic: ClassVar[str] = "training.started"
    federation: Name
    window_id: UUID
    lease_token: int = Field(ge=1)
    round: int = Field(ge=0)


class ContributionAccepted(SiteEvent):
    """federation-coordinator: a contribution was checked and is journaled on disk; it counts once."""

    topic: ClassVar[str] = "contribution.accepted"
    federation: Name
    round: int = Field(ge=0)
    """Whose merge takes it in."""
    attempt: int = Field(ge=1)
    tokens: int = Count
    steps: int = Count
    loss_nats: float
    """Mean training loss of the contribution, rounded to 0.01."""
    bytes_up: int = Count
    partial: bool
    """The site leaves and the round goes on without it."""
    skipped: int = Field(default=0, ge=0)
    """Steps that made no update, because their loss or a gradient was not finite."""
    spikes: int = Field(default=0, ge=0)
    """Steps that made no update, because their loss and gradient were far beyond those before."""
    refused_passes: int = Field(default=0, ge=0)
    """Times that memory refused a pass, so that a step was begun anew in smaller ones; nothing is lost by it."""
    cursor: int = Field(default=0, ge=0)
    """Samples of its own data that the site had drawn: where its data goes on."""
    rows: Rows = ()
    """Of a shared corpus: they count as trained from now on."""
    rounds_late: int = Field(default=0, ge=0)
    """Outer steps between the base that it was trained from and the one that it is merged into: it weighs less."""


class ContributionRefused(SiteEvent):
    """federation-coordinator: a contribution did not pass the checks; the round goes on. Or it was merged, and what it
    led to is not kept (``canary``)."""

    topic: ClassVar[str] = "contribution.refused"
    federation: Name
    round: int = Field(ge=0)
    attempt: int = Field(ge=0)
    reason: Literal[
        "lease",
        "round",
        "base",
        "codec",
        "layout",
        "size",
        "digest",
        "not-finite",
        "tokens",
        "member",
        "rows",
        "canary",
        "norm",
        "replay",
        "shut-out",
        "signature",
    ]
    detail: Sentence
    rows: Rows = ()
    """Of a shared corpus: they go back to the pool."""


class RoundCompleted(FederationEvent):
    """federation-coordinator: the outer step is taken and committed; a crash from here on keeps it."""

    topic: ClassVar[str] = "round.completed"
    round: int = Field(ge=0)
    base_digest: Digest
    model_digest: Digest
    contributors: tuple[Name, ...]
    tokens: int = Count
    """Tokens trained in this round by all contributors."""
    tokens_total: int = Count
    steps: int = Count
    loss_nats: float
    """Token-weighted mean training loss of the contributions."""
    bytes_up: int = Count
    bytes_down: int = Count
    duration_s: float | None = Field(default=None, ge=0)
    """From its opening, the last one where it was opened again, to its commit; none from a speaker of before it was
    told."""


class EpochCompleted(FederationEvent):
    """federation-coordinator: every row of a shared corpus has been trained once more."""

    topic: ClassVar[str] = "epoch.completed"
    epoch: int = Field(ge=0)
    rows: int = Field(ge=1)
    rows_by_site: dict[str, int] = Field(default_factory=dict)
    round: int = Field(ge=0)
    """The round whose contribution completed it. A slow site may let a later epoch be complete first."""


class RoundDiscarded(FederationEvent):
    """federation-coordinator: a model is not kept. The next round starts from the base that is named here: that of this
    round, when what was just merged did worse on held-out data; or the best one so far, when a person asked for it."""

    topic: ClassVar[str] = "round.discarded"
    round: int = Field(ge=0)
    base_digest: Digest
    """What the federation goes on from."""
    model_digest: Digest
    """What is not kept."""
    contributors: tuple[Name, ...]
    """Whose work is lost with it."""
    because: str


class RoundEvaluated(FederationEvent):
    """federation-coordinator: the committed model's loss on held-out data that no site trains on."""

    topic: ClassVar[str] = "round.evaluated"
    round: int = Field(ge=0)
    model_digest: Digest
    loss_nats: float
    """What training minimises: nats where it is a likelihood; lower is better in every family of models."""
    metric: str = ""
    """What people compare models of this family by: ``nats per byte``, ``accuracy``, ``mean return``."""
    value: float | None = None
    """The metric; an accuracy is a share of 1."""
    best: bool = False
    """No model before did as well; it is kept."""


class CheckpointDamaged(FederationEvent):
    """federation-coordinator: something on its disk was not what had been written, and this was done about it."""

    topic: ClassVar[str] = "checkpoint.damaged"
    round: int = Field(ge=0)
    """Round that the damaged part belongs to."""
    part: Literal["base", "outer-state", "contribution"]
    remedy: Literal["rebuilt", "fell-back", "left-out"]
    """``rebuilt``: made again to the same digest, nothing is lost; ``fell-back``: the next round starts from the model
    before; ``left-out``: an accepted contribution is not merged."""
    contributor: Name | None = None
    """The site whose contribution it was."""
    base_digest: Digest
    """Model from which the federation goes on."""
    rounds_lost: int = Field(default=0, ge=0)
    """Completed rounds that the model does not know any more."""
    tokens_lost: int = Field(default=0, ge=0)
    """Tokens that were trained, acknowledged, and are in the model no more."""
    detail: str


class WindowClosing(SiteEvent):
    """energy-watcher: the forecast says that the window ends soon; there is time to finish."""

    topic: ClassVar[str] = "window.closing"
    window_id: UUID
    closes_at: Instant


class WindowClosed(SiteEvent):
    """energy-watcher: power at this site is no longer surplus."""

    topic: ClassVar[str] = "window.closed"
    window_id: UUID
    reason: Literal["dirty", "stale", "ended", "planned", "foreseen"]
    """``dirty``: over the threshold for the grace, or for good by the forecast; ``stale``: the signal is; ``ended``:
    the source has no more; ``planned``: the plan has no more use for it; ``foreseen``: the end that ``window.closing``
    named has come although the power is still clean, and what trained has left: a new window follows."""
    crossed_at: Instant
    """When the signal crossed the close threshold, before the grace."""
    because: Sentence = ""


class SiteWithheld(SiteEvent):
    """site-trainer: the site's own policy forbids to go on, whatever the coordinator says; nothing leaves."""

    topic: ClassVar[str] = "site.withheld"
    federation: Name
    window_id: UUID
    lease_token: int = Field(ge=1)
    before: Literal["join", "train", "push"]
    """What was not done."""
    because: Sentence
    """Which line of the policy forbids it."""


class SiteDrained(SiteEvent):
    """site-trainer: the step is finished and what was trained has been pushed; the node may go."""

    topic: ClassVar[str] = "site.drained"
    federation: Name
    window_id: UUID
    lease_token: int = Field(ge=1)
    delivered: bool
    """False when work since the last accepted contribution could not be delivered."""


class SiteLeft(SiteEvent):
    """federation-coordinator: the site is no longer a member."""

    topic: ClassVar[str] = "site.left"
    federation: Name
    attempt: int = Field(ge=1)
    reason: Literal["drained", "silent", "replaced", "stopped", "shut-out"]


class NodeReleased(SiteEvent):
    """provisioner: the node is gone."""

    topic: ClassVar[str] = "node.released"
    window_id: UUID
    lease_id: UUID
    lease_token: int = Field(ge=1)
    node: Name
    reason: Literal["drained", "grace", "died", "released", "replaced"]


class FederationPaused(FederationEvent):
    """federation-coordinator: as a person wished, no round runs any more; none opens until it is resumed."""

    topic: ClassVar[str] = "federation.paused"
    round: int = Field(ge=0)
    """The one that opens next."""
    base_digest: Digest
    """Of the model that it will start from."""
    because: Sentence = ""


class FederationResumed(FederationEvent):
    """federation-coordinator: rounds open again."""

    topic: ClassVar[str] = "federation.resumed"
    round: int = Field(ge=0)
    base_digest: Digest
    because: Sentence = ""


class FederationFinished(FederationEvent):
    """federation-coordinator: no more rounds; the final model stands on the hub's disk."""

    topic: ClassVar[str] = "federation.finished"
    rounds: int = Count
    tokens_total: int = Count
    model_digest: Digest
    because: str = ""


EVENTS: tuple[type[SiteEvent] | type[FederationEvent], ...] = (
    SignalObserved,
    SignalRefused,
    SignalStale,
    SignalRecovered,
    SignalForecast,
    PlanMade,
    WindowExpected,
    WindowWithdrawn,
    WindowJudged,
    WindowOpened,
    NodeHindered,
    NodeReady,
    NodeFailed,
    NodeProfiled,
    LinkMeasured,
    LinkDegraded,
    LinkRecovered,
    SiteRefused,
    SiteJoined,
    TaskLearnt,
    AdviceGiven,
    RoundStarted,
    TrainingStarted,
    ContributionAccepted,
    ContributionRefused,
    RoundCompleted,
    EpochCompleted,
    RoundDiscarded,
    RoundEvaluated,
    CheckpointDamaged,
    WindowClosing,
    WindowClosed,
    SiteWithheld,
    SiteDrained,
    SiteLeft,
    NodeReleased,
    EnergyRecorded,
    FederationPaused,
    FederationResumed,
    FederationFinished,
)
"""Every event, in life order."""
