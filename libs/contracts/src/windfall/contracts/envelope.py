"""CloudEvents 1.0 over NATS: binary mode out, binary or structured mode in.

CloudEvents NATS protocol binding 1.0.2: attributes ride in ``ce-`` headers, the body is the JSON of the sentence.
``Nats-Msg-Id`` equals the event's id, so that a stream keeps one of two. ``traceparent`` is W3C Trace Context and
``baggage`` W3C Baggage.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from pydantic import ValidationError

from windfall.contracts.message import Message, instant
from windfall.contracts.subjects import KINDS, MAX_MESSAGE_BYTES, subject_of, type_of

MESSAGE_ID: Final = "Nats-Msg-Id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
CONTENT_TYPE: Final = "content-type"
JSON: Final = "application/json"
STRUCTURED: Final = "application/cloudevents+json"


class Unreadable(ValueError):
    """A message that is not a sentence of these contracts; the text says why in one line."""


@dataclass(frozen=True)
class Letter:
    """A sentence in its envelope, as it lies in an outbox and travels on the wire."""

    subject: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The id by which a stream recognises a second copy; empty when the sender gave none."""
        return self.headers.get(MESSAGE_ID, "")


def seal(message: Message, source: str, trace: Mapping[str, str] | None = None) -> Letter:
    """Put a sentence into its envelope.

    Args:
        message: the sentence.
        source: who says it, a URI reference like ``/windfall/energy-watcher/site-a``.
        trace: W3C trace context headers of the span that says it.
    """
    headers = {
        MESSAGE_ID: str(message.id),
        "ce-specversion": "1.0",
        "ce-id": str(message.id),
        "ce-source": quote(source, safe="/-._~"),
        "ce-type": type_of(type(message)),
        "ce-subject": message.whom,
        "ce-time": message.at.isoformat(),
        CONTENT_TYPE: JSON,
        **(trace or {}),
    }
    return Letter(subject_of(message), headers, message.model_dump_json().encode())


def unseal(letter: Letter) -> Message:
    """Read a sentence, and refuse whatever does not agree with itself.

    Raises:
        Unreadable: too large, not CloudEvents, unknown type, invalid body, or envelope, subject and body disagree.
    """
    if len(letter.body) > MAX_MESSAGE_BYTES:
        raise Unreadable(f"body of {len(letter.body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    attributes, body = _attributes(letter)
    if attributes.get("specversion") != "1.0":
        raise Unreadable(f"CloudEvents specversion {attributes.get('specversion', 'missing')!r} is not '1.0'")
    message = _parse(attributes.get("type", ""), body)
    if attributes.get("id") != str(message.id):
        raise Unreadable(f"envelope id {attributes.get('id', 'missing')!r} is not the body's {str(message.id)!r}")
    if letter.subject and letter.subject != subject_of(message):
        raise Unreadable(f"it came on {letter.subject!r} but says {subject_of(message)!r}")
    return message


def parse(topic: str, body: bytes) -> Message:
    """Read the JSON body of a sentence whose topic is known.

    Raises:
        Unreadable: unknown topic or invalid body.
    """
    kind = KINDS.get(topic)
    if kind is None:
        raise Unreadable(f"unknown topic {topic!r}; known are {', '.join(sorted(KINDS))}")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Unreadable(f"{topic}: {_first(error)}") from error


_TOPICS = {type_of(kind): topic for topic, kind in KINDS.items()}


def _parse(type_name: str, body: bytes) -> Message:
    topic = _TOPICS.get(type_name)
    if topic is None:
        raise Unreadable(f"unknown CloudEvents type {type_name!r}")
    return parse(topic, body)


def _attributes(letter: Letter) -> tuple[dict[str, str], bytes]:
    lowered = {key.lower(): value for key, value in letter.headers.items()}
    if lowered.get(CONTENT_TYPE, JSON).lower().startswith(STRUCTURED):
        found, body = _structured(letter.body)
    else:
        found = {key[3:]: unquote(value) for key, value in lowered.items() if key.startswith("ce-")}
        body = letter.body
    if "time" in found:
        try:
            instant(found["time"])
        except ValueError as error:
            raise Unreadable(f"ce-time: {error}") from error
    return found, body


def _structured(body: bytes) -> tuple[dict[str, str], bytes]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"structured CloudEvent is not JSON: {error}") from error
    if not isinstance(document, dict) or "data" not in document:
        raise Unreadable("structured CloudEvent has no data")
    found = {key: value for key, value in document.items() if isinstance(value, str)}
    return found, json.dumps(document["data"]).encode()


def _first(error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in mistake["loc"]) or "body"
    return f"{where}: {mistake['msg']}"
