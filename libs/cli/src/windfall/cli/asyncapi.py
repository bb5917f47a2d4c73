"""The contracts as an AsyncAPI 3.0 document, for people and programs that speak with Windfall in another language.

Channels are subjects, messages are sentences with their CloudEvents headers and the JSON Schema of their body,
operations are who says and who hears. Pure: everything comes from the contracts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from windfall.contracts.commands import (
    COMMANDS,
    AcquireNode,
    CordonSite,
    FinishRound,
    FollowPlan,
    ProbeLink,
    ReadmitSite,
    ReleaseNode,
    RollBack,
    SiteCommand,
    StopFederation,
    StopTraining,
    UncordonSite,
)
from windfall.contracts.envelope import CONTENT_TYPE, JSON, MESSAGE_ID, TRACEPARENT, TRACESTATE
from windfall.contracts.events import (
    EVENTS,
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
    SiteEvent,
    TaskLearnt,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message, Name
from windfall.contracts.subjects import is_command, stream_for, subject_for, type_of

PERSON = "windfall"
"""Who says a command that no service says: a person, through this command."""

HEARD_BY: Mapping[type[Message], tuple[str, ...]] = {
    SignalObserved: ("energy-watcher",),
    SignalForecast: ("federation-coordinator",),
    SignalStale: ("federation-coordinator",),
    SignalRecovered: ("federation-coordinator",),
    WindowExpected: ("energy-watcher", "provisioner", "profiler", "federation-coordinator"),
    WindowWithdrawn: ("energy-watcher", "provisioner", "profiler", "site-trainer"),
    WindowOpened: ("energy-watcher", "provisioner", "profiler", "site-trainer", "federation-coordinator"),
    NodeHindered: ("provisioner",),
    NodeReady: ("energy-watcher", "provisioner", "profiler", "federation-coordinator"),
    NodeProfiled: ("federation-coordinator",),
    LinkMeasured: ("federation-coordinator",),
    TaskLearnt: ("profiler",),
    TrainingStarted: (
        "energy-watcher",
        "federation-coordinator",
    ),
    WindowClosing: ("provisioner", "site-trainer"),
    WindowClosed: ("energy-watcher", "provisioner", "profiler", "site-trainer", "federation-coordinator"),
    SiteDrained: (
        "energy-watcher",
        "provisioner",
    ),
    NodeReleased: ("energy-watcher", "provisioner"),
    NodeFailed: ("energy-watcher", "provisioner"),
    EnergyRecorded: ("federation-coordinator",),
    RoundCompleted: ("provisioner",),
    FederationFinished: ("provisioner",),
}
"""Which services act on an event. Every other event is a fact for dashboards and people."""

SAID_BY: Mapping[type[Message], tuple[str, ...]] = {
    AcquireNode: (PERSON,),
    ReleaseNode: (PERSON,),
    CordonSite: (PERSON,),
    UncordonSite: (PERSON,),
    ProbeLink: (PERSON,),
    FinishRound: ("federation-coordinator",),
    StopTraining: (PERSON,),
    StopFederation: (PERSON,),
    RollBack: (PERSON,),
    ReadmitSite: (PERSON,),
    FollowPlan: ("federation-coordinator",),
}
"""Who gives a command. An event's speaker stands at the head of its docstring."""

Document = dict[str, Any]


def document(version: str) -> Document:
    """The whole AsyncAPI document of ``version`` of Windfall, as plain JSON values."""
    kinds: tuple[type[Message], ...] = (*EVENTS, *COMMANDS)
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    return {
        "asyncapi": "3.0.0",
        "id": "urn:windfall:bus:v1",
        "info": {
            "title": "Windfall",
            "version": version,
            "description": (
                "What the services of a Windfall fleet say to each other over NATS JetStream. Events are facts; "
                "commands have one addressee. CloudEvents 1.0 in binary mode: attributes ride in headers, the body is "
                "JSON. The message id is the event's id, so that a stream keeps one of two."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {
            "site": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "A site's own NATS, a leaf of the hub with a JetStream domain named after the site.",
            },
            "hub": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "The hub's NATS, JetStream domain 'hub', which sources the events of every site.",
            },
        },
        "channels": {kind.topic: _channel(kind) for kind in kinds},
        "operations": dict(_operations(kinds)),
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in kinds},
            "schemas": schemas["$defs"],
        },
    }


def speaker_of(kind: type[Message]) -> str:
    """The first word of a sentence's docstring: who says an event, or whom a command addresses."""
    return (kind.__doc__ or "").partition(":")[0].strip()


def says(kind: type[Message]) -> tuple[str, ...]:
    """Which services say a sentence."""
    return SAID_BY[kind] if is_command(kind) else (speaker_of(kind),)


def hears(kind: type[Message]) -> tuple[str, ...]:
    """Which services act on a sentence."""
    return (speaker_of(kind),) if is_command(kind) else HEARD_BY.get(kind, ())


def _whom(kind: type[Message]) -> str:
    return "site" if issubclass(kind, SiteEvent | SiteCommand) else "federation"


def _channel(kind: type[Message]) -> Document:
    whom = _whom(kind)
    return {
        "address": subject_for(kind, f"{{{whom}}}"),
        "title": kind.topic,
        "description": f"Kept in stream {stream_for(kind)}.",
        "parameters": {whom: {"description": f"Name of the {whom}: {_name_pattern()}"}},
        "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}},
    }


def _message(kind: type[Message]) -> Document:
    return {
        "name": type_of(kind),
        "title": kind.__name__,
        "summary": _summary(kind),
        "contentType": JSON,
        "headers": _headers(kind),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }


def _headers(kind: type[Message]) -> Document:
    text = {"type": "string"}
    properties: Document = {
        MESSAGE_ID: {**text, "format": "uuid", "description": "Equal to ce-id."},
        "ce-specversion": {**text, "const": "1.0"},
        "ce-id": {**text, "format": "uuid", "description": "Equal to the body's id."},
        "ce-source": {**text, "format": "uri-reference", "examples": [f"/windfall/{says(kind)[0]}/site-a"]},
        "ce-type": {**text, "const": type_of(kind)},
        "ce-subject": {**text, "description": f"The {_whom(kind)}."},
        "ce-time": {**text, "format": "date-time"},
        CONTENT_TYPE: {**text, "const": JSON},
        TRACEPARENT: {**text, "description": "W3C Trace Context: one window is one trace."},
        TRACESTATE: text,
    }
    required = [MESSAGE_ID, "ce-specversion", "ce-id", "ce-source", "ce-type"]
    return {"type": "object", "properties": properties, "required": required}


def _operations(kinds: tuple[type[Message], ...]) -> Iterator[tuple[str, Document]]:
    for kind in kinds:
        for service in says(kind):
            yield f"{service}.says.{kind.topic}", _operation(kind, "send", service)
        for service in hears(kind):
            yield f"{service}.hears.{kind.topic}", _operation(kind, "receive", service)


def _operation(kind: type[Message], action: str, service: str) -> Document:
    return {
        "action": action,
        "title": f"{service} {'says' if action == 'send' else 'hears'} {kind.topic}",
        "summary": _summary(kind),
        "channel": {"$ref": f"#/channels/{kind.topic}"},
        "messages": [{"$ref": f"#/channels/{kind.topic}/messages/{kind.__name__}"}],
        "tags": [{"name": service}],
    }


def _summary(kind: type[Message]) -> str:
    sentence = (kind.__doc__ or "").partition(":")[2].strip()
    return sentence[:1].upper() + sentence[1:]


def _name_pattern() -> str:
    return str(TypeAdapter(Name).json_schema()["pattern"])
