"""Who says a sentence, and who acts on it. What a NATS server lets a service do follows from it."""

from collections.abc import Mapping
from typing import Final

from windfall.contracts.commands import (
    AcquireNode,
    CordonSite,
    FinishRound,
    FollowPlan,
    PauseFederation,
    ProbeLink,
    ReadmitSite,
    ReleaseNode,
    ResumeFederation,
    RollBack,
    StopFederation,
    StopTraining,
    UncordonSite,
)
from windfall.contracts.events import (
    EnergyRecorded,
    FederationFinished,
    LinkMeasured,
    NodeFailed,
    NodeHindered,
    NodeProfiled,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    SignalForecast,
    SignalObserved,
    SignalRecovered,
    SignalStale,
    SiteDrained,
    TaskLearnt,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import is_command

OPERATOR: Final = "operator"
"""At the hub, where a fleet is custom resources: it follows what happens at all sites, and has nodes given back."""
PERSON: Final = "windfall"
"""Who says a command that no service says: a person, through this command."""

HEARD_BY: Final[Mapping[type[Message], tuple[str, ...]]] = {
    SignalObserved: ("energy-watcher",),
    SignalForecast: ("federation-coordinator",),
    SignalStale: ("federation-coordinator",),
    SignalRecovered: ("federation-coordinator",),
    WindowExpected: ("energy-watcher", "provisioner", "profiler", "federation-coordinator", OPERATOR),
    WindowWithdrawn: ("energy-watcher", "provisioner", "profiler", "site-trainer", OPERATOR),
    WindowOpened: ("energy-watcher", "provisioner", "profiler", "site-trainer", "federation-coordinator", OPERATOR),
    NodeHindered: (OPERATOR,),
    NodeReady: ("energy-watcher", "profiler", "federation-coordinator", OPERATOR),
    NodeProfiled: ("federation-coordinator",),
    LinkMeasured: ("federation-coordinator",),
    TaskLearnt: ("profiler",),
    TrainingStarted: ("energy-watcher", "federation-coordinator"),
    WindowClosing: ("site-trainer", OPERATOR),
    WindowClosed: ("energy-watcher", "provisioner", "profiler", "site-trainer", "federation-coordinator", OPERATOR),
    SiteDrained: ("energy-watcher", "provisioner", OPERATOR),
    NodeReleased: ("energy-watcher", OPERATOR),
    NodeFailed: ("energy-watcher", OPERATOR),
    EnergyRecorded: ("federation-coordinator",),
    RoundCompleted: (OPERATOR,),
    FederationFinished: (OPERATOR,),
}
"""Which services act on an event. Every other event is a fact for dashboards and people."""

SAID_BY: Final[Mapping[type[Message], tuple[str, ...]]] = {
    AcquireNode: (PERSON,),
    ReleaseNode: (PERSON, OPERATOR),
    CordonSite: (PERSON,),
    UncordonSite: (PERSON,),
    ProbeLink: (PERSON,),
    FinishRound: ("federation-coordinator",),
    StopTraining: (PERSON,),
    StopFederation: (PERSON,),
    PauseFederation: (PERSON,),
    ResumeFederation: (PERSON,),
    RollBack: (PERSON,),
    ReadmitSite: (PERSON,),
    FollowPlan: ("federation-coordinator",),
}
"""Who gives a command. An event's speaker stands at the head of its docstring."""


def speaker_of(kind: type[Message]) -> str:
    """The first word of a sentence's docstring: who says an event, or whom a command addresses."""
    return (kind.__doc__ or "").partition(":")[0].strip()


def says(kind: type[Message]) -> tuple[str, ...]:
    """Which services say a sentence."""
    return SAID_BY[kind] if is_command(kind) else (speaker_of(kind),)


def hears(kind: type[Message]) -> tuple[str, ...]:
    """Which services act on a sentence."""
    return (speaker_of(kind),) if is_command(kind) else HEARD_BY.get(kind, ())
