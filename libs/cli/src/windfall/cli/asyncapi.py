"""The contracts as an AsyncAPI 3.0 document, for people and programs that speak with Windfall in another language.

Channels are subjects, messages are sentences with their CloudEvents headers and the JSON Schema of their body,
operations are who says and who hears. Pure: everything comes from the contracts.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from windfall.cli.field_words import describe
from windfall.contracts import commands, events, hardware, measures, message
from windfall.contracts.commands import COMMANDS, SiteCommand
from windfall.contracts.envelope import CONTENT_TYPE, JSON, MESSAGE_ID, TRACEPARENT, TRACESTATE
from windfall.contracts.events import EVENTS, SiteEvent
from windfall.contracts.message import Message, Name
from windfall.contracts.speaking import hears, says
from windfall.contracts.subjects import stream_for, subject_for, type_of

Document = dict[str, Any]


def document(version: str) -> Document:
    """The whole AsyncAPI document of ``version`` of Windfall, as plain JSON values."""
    kinds: tuple[type[Message], ...] = (*EVENTS, *COMMANDS)
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    describe(schemas["$defs"], message, measures, hardware, events, commands)
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
