"""What a federation remembers, how its rounds are boxed, and what a decision says: values, nothing is decided here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from windfall.contracts.events import Precision, Recommendation
from windfall.contracts.message import Digest, Instant, Message, Name
from windfall.federation_coordinator.choosing import ForAll, ForSite
from windfall.federation_coordinator.pace import Pace, Seen
from windfall.lowcomm import staleness
from windfall.tasks.ranges import Ranges


class Frozen(BaseModel):
    """A value of the journal."""

    model_config = ConfigDict(frozen=True)


class Phase(StrEnum):
    """Where the federation stands."""

    DARK = "dark"
    RUNNING = "running"
    FINISHING = "finishing"
    MERGING = "merging"
    FINISHED = "finished"


@dataclass(frozen=True)
class Ends:
    """When a federation has had enough; what is none is not looked at."""

    tokens: int | None = None
    """Trained by all, in all rounds."""
    loss: float | None = None
    """On held-out data: at or below this the model is good enough."""
    at: datetime | None = None
    """No round runs beyond this instant."""
    emissions_kg: float | None = None
    """Of CO2, by the ledgers of all sites."""


@dataclass(frozen=True)
class Policy:
    """How rounds are boxed. Durations are business time."""

    length: timedelta | None
    """A round ends after this; none boxes it otherwise alone."""
    steps: int | None
    """A site finishes by itself after this many local steps; none boxes it otherwise alone."""
    straggler_grace: timedelta
    """Once a round is over and has a contribution: how long a site may stand still and still be waited for."""
    micro_batch: int | None
    """Samples per step for every site; none follows each site's profile."""
    gradient_accumulation: int | None = None
    """Passes in a step at every site; none follows each site's profile."""
    precision: Precision | None = None
    """What every site multiplies in; none follows each site's profile."""
    sites: Mapping[str, ForSite] = field(default_factory=dict)
    """What is wanted of single sites, whatever is advised."""
    weighs: bool = True
    """Sites that cost the others more than they bring are left out."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Which sites those are now → why."""
    cuts: bool = False
    """A round is over for the others once half of its sites have brought all their steps: speeds are estimates, and
    nobody waits long for one that was wrong."""
    held: bool = False
    """No round opens: how contributions are written is still to be chosen."""
    pace: Pace = field(default_factory=Pace)
    """Local steps of each site where ``steps`` does not say: as links and speeds are known now."""
    tokens: int | None = None
    """A round ends when its sites have trained so many together; none boxes it otherwise alone."""
    straggler_limit: timedelta | None = None
    """How long after its end a round waits at most, however well a site gets on; none sets no limit."""
    alone: timedelta | None = None
    """A site that is alone trains on for so long: there is nobody to synchronise with. None treats it like many."""
    alone_codec: str = ""
    """In which it then says what it learnt; empty for the federation's own."""
    minimum: int = 1
    """Sites of which a round has contributions before it is merged, and that are there when one opens."""
    maximum: int | None = None
    """Sites that train in one round; the others are in reserve. None sets no limit."""
    rounds_late: int = staleness.MOST_ROUNDS_LATE
    """Rounds after its own in which a contribution still counts, for less and less: those of its own fragment."""
    ends: Ends = Ends()
    average_steps: int | None = None
    """Local steps that sites take on average, each by its speed; none follows the links."""
    site_steps: Mapping[str, int] = field(default_factory=dict)
    """Local steps of single sites, as they are told, where steps follow speeds."""
    once: bool = False
    """A site counts once in a round, however often it joins: where contributions are not weighed, each of them is a
    vote."""
    canary: float | None = None
    """A merged model whose held-out loss is worse by more than this share of the last one's is discarded; none does not
    look."""

    @property
    def for_all(self) -> ForAll:
        """What sites are told to train with."""
        return ForAll(self.micro_batch, self.gradient_accumulation, self.precision, self.sites)

    @property
    def excluded(self) -> frozenset[str]:
        """Sites that an operator wants in no round."""
        return frozenset(site for site, one in self.sites.items() if one.takes_part is False)


class Member(Frozen):
    """A site that takes part."""

    site: Name
    attempt: int
    lease_token: int
    window_id: UUID
    since: int
    """First round that it trains in. One who joins while a round is finishing, or is in reserve, is not waited for."""


class Contribution(Frozen):
    """A checked contribution that lies on the coordinator's disk."""

    site: Name
    attempt: int
    base_round: int
    """The round from whose base it was trained."""
    tokens: int
    """As which it counts."""
    told_tokens: int | None = None
    """As its site told them; none where they count as told."""
    took_s: float | None = None
    """Business time from the first opening of its round until it was accepted; none where that is forgotten."""
    steps: int
    loss_nats: float
    bytes_up: int
    partial: bool
    sha256: Digest
    codec: str
    skipped: int = 0
    spikes: int = 0
    refused_passes: int = 0
    cursor: int = 0
    """Samples of its own data that the site had drawn: where its data goes on."""
    rows: Ranges = ()
    """Of a shared corpus, on which it was trained."""
    rounds_late: int = 0
    """Outer steps that its fragment of the model took without it, as known when it merges."""
    owned: float = 1.0
    """What its owner's share leaves of its weight."""
    trace: dict[str, str] = Field(default_factory=dict)
    """W3C headers of the upload, so that the merge can be found from the window's trace."""

    @property
    def key(self) -> tuple[str, int, int]:
        """Names it for good. Contributions merge in this order, whatever the order of their arrival."""
        return (self.site, self.attempt, self.base_round)

    @property
    def weight(self) -> float:
        """In the merge: its tokens, less what staleness and its owner's share take."""
        return staleness.weight(self.tokens, self.rounds_late) * self.owned


class Receipt(Frozen):
    """Names a contribution that was accepted."""

    round: int
    attempt: int


class Terms(Frozen):
    """How contributions are written, where that was chosen by what was measured."""

    codec: str
    fragments: int
    because: str
    measured: bool = True
    """False where nothing was in time, and the defaults stand."""


class Best(Frozen):
    """The model that did best on held-out data."""

    round: int
    """That starts from it."""
    digest: Digest
    loss_nats: float
    made_at: Instant | None = None
    tokens_total: int | None = None
    """Trained by all sites until then."""


class Federation(Frozen):
    """Everything that a coordinator must remember across a crash, model files apart."""

    name: Name
    base_digest: Digest
    """Of the model from which the current round starts."""
    rule: str = ""
    """How contributions are written and merged, as the members know it."""
    fragments: int = 1
    """Into which the model is cut for good: round r synchronises fragment r mod this."""
    round: int = 0
    phase: Phase = Phase.DARK
    opened_at: Instant | None = None
    """When the round was opened, the last time where that was done again; none while there is none."""
    begun_at: Instant | None = None
    """When it was opened the first time."""
    ends_at: Instant | None = None
    ended_at: Instant | None = None
    """When the round was over: from then on its last contributions are waited for."""
    lone: bool = False
    """The running round was opened for one site, which trains on until it has company."""
    members: dict[str, Member] = Field(default_factory=dict)
    attempts: dict[str, int] = Field(default_factory=dict)
    """Last attempt number given to each site."""
    lease_tokens: dict[str, int] = Field(default_factory=dict)
    """Highest lease token seen from each site: the fence."""
    contributions: tuple[Contribution, ...] = ()
    """Accepted in the current round."""
    late: tuple[Contribution, ...] = ()
    """Accepted for an earlier one: they go into the next merge of their fragment."""
    past: tuple[Digest, ...] = ()
    """Bases of the rounds before the current one, the newest last: as far back as a contribution may be late."""
    past_begun: tuple[Instant | None, ...] = ()
    """When those rounds were opened the first time, the newest last."""
    receipts: dict[str, Receipt] = Field(default_factory=dict)
    """Each site's last accepted contribution. One whose receipt was lost on the way asks again in a later round, and
    must hear that it counts."""
    openings: int = 0
    """Rounds opened, those included that were opened again: no two openings are one sentence."""
    recommended: dict[str, Recommendation] = Field(default_factory=dict)
    """With what each site should train, by its profile."""
    profiles: dict[str, Seen] = Field(default_factory=dict)
    """How fast each site is by its profile, and how far away and how wide its link was when last measured."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Rounds in a row that a site was left out of."""
    terms: Terms | None = None
    """None where an operator chose them, or while nothing is chosen."""
    local_steps: dict[str, int] = Field(default_factory=dict)
    """Of each site in the running round; empty when it is boxed otherwise alone."""
    tokens_total: int = 0
    bytes_down: int = 0
    """Sent to sites since the last merge."""
    emissions_kg: dict[str, float] = Field(default_factory=dict)
    """Since the federation began, by each site's ledger."""
    best: Best | None = None
    loss_nats: float | None = None
    """Of the newest model that was evaluated, on held-out data."""
    paused: bool = False
    """No round opens until it is resumed; the running one is finished."""
    paused_because: str = ""
    pauses: int = 0
    """Times that it was paused: no two are one sentence."""
    resting: bool = False
    """It is paused, no round runs any more, and that was said."""
    stopping: bool = False
    stopped_because: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, data: Any) -> Any:
        """A journal of a version that remembered samples in a step alone."""
        if isinstance(data, dict) and "micro_batches" in data and "recommended" not in data:
            known = {
                site: {"micro_batch": samples, "local_steps": 1, "because": ""}
                for site, samples in data["micro_batches"].items()
            }
            return {**data, "recommended": known}
        return data


@dataclass(frozen=True)
class Progress:
    """How far a member has come in a round, as it says itself and as its bytes arrive. It is not journaled: after a
    crash it is heard again."""

    round: int
    attempt: int
    tokens: int
    moved_at: datetime
    """When it last came further."""


Progresses = Mapping[str, Progress]


@dataclass(frozen=True)
class Word:
    """Something to push on a member's open stream."""

    site: str
    kind: Literal["opened", "finish", "stop"]


@dataclass(frozen=True)
class Decision:
    """What follows from an input."""

    say: tuple[Message, ...] = ()
    tell: tuple[Word, ...] = ()
    merge: bool = False
    """The contributions of the round are to be merged now."""

    def __add__(self, other: "Decision") -> "Decision":
        return Decision(self.say + other.say, self.tell + other.tell, self.merge or other.merge)


class Fenced(Exception):
    """The site holds a lease that is older than one the coordinator has seen."""


class NotMember(Exception):
    """The membership has ended."""
