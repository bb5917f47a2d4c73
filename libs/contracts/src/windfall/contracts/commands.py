"""Everything that one may ask a service to do. A command has one addressee and is done once.

Each travels on ``windfall.v1.command.<service>.<verb>.<whom>`` through a work queue. Its outcome is an event.
"""

from typing import ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from windfall.contracts.message import Instant, Message, Name


class SiteCommand(Message):
    """An order to a service of one site."""

    site: Name

    @property
    def whom(self) -> str:
        return self.site


class FederationCommand(Message):
    """An order to the coordinator of a federation."""

    federation: Name

    @property
    def whom(self) -> str:
        return self.federation


class Span(BaseModel):
    """From an instant until another."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore")

    start: Instant
    end: Instant

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a span ends after it starts")
        return self


class FollowPlan(SiteCommand):
    """energy-watcher: open windows in these spans and no others, until the plan is too old to be followed.

    The site's owner has the last word: power above the site's own limit, or of which nothing is known, is not used.
    """

    topic: ClassVar[str] = "energy-watcher.follow"
    federation: Name
    spans: tuple[Span, ...] = Field(max_length=900)
    """In order of time; empty: the plan has no use for this site now."""
    valid_until: Instant
    """From then on the site decides by itself again."""
    because: str


class AcquireNode(SiteCommand):
    """provisioner: take a lease for this window, as if it had opened."""

    topic: ClassVar[str] = "provisioner.acquire"
    window_id: UUID


class ReleaseNode(SiteCommand):
    """provisioner: drain the node of this window (of any window, when none is named) and give it back."""

    topic: ClassVar[str] = "provisioner.release"
    window_id: UUID | None = None
    reason: str = "asked"


class CordonSite(SiteCommand):
    """provisioner: give no leases until the site is uncordoned; what is held is kept."""

    topic: ClassVar[str] = "provisioner.cordon"
    reason: str = "asked"


class UncordonSite(SiteCommand):
    """provisioner: give leases again, first to the window that opened in the meantime."""

    topic: ClassVar[str] = "provisioner.uncordon"
    reason: str = "asked"


class ProbeLink(SiteCommand):
    """profiler: measure the way to the hub, or to another site; where that is, the asked site's owner has said."""

    topic: ClassVar[str] = "profiler.probe"
    target: Name = "hub"
    """The hub, or a site."""


class FinishRound(SiteCommand):
    """site-trainer: the round is over; finish the step and push. The same word is pushed on the open gRPC stream."""

    topic: ClassVar[str] = "site-trainer.finish"
    federation: Name
    round: int = Field(ge=0)


class StopTraining(SiteCommand):
    """site-trainer: push what is there, leave, and say drained."""

    topic: ClassVar[str] = "site-trainer.stop"
    lease_token: int = Field(ge=1)
    """The lease that is meant: a trainer under a newer one goes on."""
    reason: str


class StopFederation(FederationCommand):
    """federation-coordinator: finish the running round, write the final model, start no more."""

    topic: ClassVar[str] = "federation-coordinator.stop"
    reason: str = "asked"


class PauseFederation(FederationCommand):
    """federation-coordinator: finish the running round, and open no other until told to resume."""

    topic: ClassVar[str] = "federation-coordinator.pause"
    reason: str = "asked"


class ResumeFederation(FederationCommand):
    """federation-coordinator: open rounds again, from the model at which it was paused."""

    topic: ClassVar[str] = "federation-coordinator.resume"
    reason: str = "asked"


class RollBack(FederationCommand):
    """federation-coordinator: go on from the model that did best on held-out data; what came after it is not kept."""

    topic: ClassVar[str] = "federation-coordinator.rollback"
    reason: str = "asked"


class ReadmitSite(FederationCommand):
    """federation-coordinator: forget what a site's refused contributions count against it; it may join again."""

    topic: ClassVar[str] = "federation-coordinator.readmit"
    member: Name
    """The site."""
    reason: str = "asked"


COMMANDS: tuple[type[SiteCommand] | type[FederationCommand], ...] = (
    FollowPlan,
    AcquireNode,
    ReleaseNode,
    CordonSite,
    UncordonSite,
    ProbeLink,
    FinishRound,
    StopTraining,
    StopFederation,
    PauseFederation,
    ResumeFederation,
    RollBack,
    ReadmitSite,
)
"""Every command."""
