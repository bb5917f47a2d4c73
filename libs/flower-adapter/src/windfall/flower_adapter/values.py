"""The values of a Flower run, as its coordinator's journal keeps them."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Gone = Literal["drained", "silent", "replaced", "stopped"]


class Value(BaseModel):
    """Frozen; fields that another version wrote are not minded."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Member(Value):
    """A site that is up."""

    site: str
    window_id: UUID
    lease_token: int
    attempt: int


class Sent(Value):
    """A message that was pushed."""

    id: str
    site: str
    node_id: int
    message_type: str
    group_id: str
    ttl_s: float
    created_at_s: float
    header: str
    """JSON, see ``windfall.flower_adapter.content``."""
    body_sha256: str
    body_bytes: int
    round: int
    """Training batches before this message's."""
    trace: dict[str, str] = Field(default_factory=dict)
    """W3C Trace Context of the push."""

    @property
    def category(self) -> str:
        """``train``, ``evaluate`` or ``query``, without the action."""
        return self.message_type.partition(".")[0]


class Answer(Value):
    """A reply, or the error that stands for one."""

    id: str
    """Of the message that it answers."""
    header: str = ""
    """JSON; empty for an error."""
    body_sha256: str = ""
    body_bytes: int = 0
    body: str = ""
    """Base64 of a short body, which lies here and in no file of its own."""
    error_code: int | None = None
    reason: str = ""
    trace: dict[str, str] = Field(default_factory=dict)

    @property
    def on_disk(self) -> bool:
        """Whether its body lies in a file of its own."""
        return self.body_bytes > 0 and not self.body


class Told(Value):
    """What a reply's metrics say of the work behind it; what they do not say is 0 or none."""

    examples: int = 0
    steps: int = 0
    loss: float | None = None
    metric: str = ""
    value: float | None = None


class Tally(Value):
    """A batch of one kind, as its answers come in."""

    round: int
    base_digest: str
    contributors: tuple[str, ...] = ()
    examples: int = 0
    steps: int = 0
    weight: int = 0
    """Behind ``loss``: examples, or 1 for a reply that does not say how many."""
    loss: float = 0.0
    """Sum of weight × loss."""
    metric: str = ""
    value: float = 0.0
    """Sum of weight × metric."""
    bytes_up: int = 0
    bytes_down: int = 0


class Exchange(Value):
    """One run."""

    federation: str
    run_id: int
    members: dict[str, Member] = Field(default_factory=dict)
    attempts: dict[str, int] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    """Highest lease token that was seen from each site."""
    batches: int = 0
    waiting: dict[str, Sent] = Field(default_factory=dict)
    """Messages without an answer."""
    buffered_bytes: int = 0
    """Bodies of the replies to the newest batch: what the strategy holds in memory at once."""
    rounds: int = 0
    """Training batches so far."""
    training: Tally | None = None
    """The round that runs, or whose aggregate is not known yet."""
    evaluation: Tally | None = None
    examples_total: int = 0
    model_digest: str = ""
    kept_bytes: int = 0
    """Bodies of replies that lie on disk to be replayed."""
    replayable: bool = True
    generation: int = 0
    """How often the run began anew, because it could not be replayed."""
    finished: bool = False
