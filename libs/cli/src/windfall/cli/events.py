"""``windfall events``: read what a fleet says, and say it something."""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from windfall.cli.asyncapi import document
from windfall.cli.nearest import near
from windfall.cli.recording import Said, heard, line, read_file
from windfall.cli.server import connection, known_sites, last_sequence, letters, store
from windfall.contracts.envelope import Unreadable, parse, seal
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, KINDS, is_command, subject_for
from windfall.servicekit.errors import ExitCode, Mistake

SOURCE = "/windfall/cli"
"""CloudEvents source of what a person says."""


def schema(version: str, form: str) -> str:
    """The AsyncAPI document as ``json`` or ``yaml`` text."""
    if form == "json":
        return json.dumps(document(version), indent=2, ensure_ascii=False)
    import yaml

    return str(yaml.safe_dump(document(version), sort_keys=False, allow_unicode=True)).rstrip()


async def tail(
    url: str, topic: str | None, site: str | None, from_start: bool, count: int | None, show: Callable[[Said], None]
) -> None:
    """Show events as they are stored, until ``count`` of them were shown.

    Raises:
        Mistake: the server cannot be used, or it knows neither this topic nor this site.
    """
    async with connection(url) as client:
        if site is not None:
            known = await known_sites(client)
            if site not in known:
                raise Mistake(f"unknown site {site!r}", near(site, list(known)))
        subjects = tuple(subject_for(kind, site or "*") for kind in _kinds(topic)) if topic or site else ()
        start = 1 if from_start else await last_sequence(client, EVENTS_STREAM) + 1
        async with aclosing(letters(client, EVENTS_STREAM, subjects, start)) as stream:
            shown = 0
            async for stored in stream:
                try:
                    show(heard(stored.letter))
                except Unreadable as error:
                    print(f"windfall: {stored.letter.subject} is no event: {error}", file=sys.stderr)
                shown += 1
                if shown == count:
                    return


def _kinds(topic: str | None) -> list[type[Message]]:
    """The events that a topic names; ``window.*`` names all of a noun.

    Raises:
        Mistake: it names none.
    """
    events = {name: kind for name, kind in KINDS.items() if not is_command(kind)}
    if topic is None:
        return list(events.values())
    found = [kind for name, kind in events.items() if name == topic or topic == f"{name.partition('.')[0]}.*"]
    if not found:
        nouns = {f"{name.partition('.')[0]}.*" for name in events}
        raise Mistake(f"unknown topic {topic!r}", near(topic, [*events, *nouns]))
    return found


def in_json(said: Said) -> str:
    """One event as a line of a recording."""
    return line(said)


def in_words(said: Said) -> str:
    """One event as a line for a person: when, what, about whom, and the rest."""
    message = said.message
    rest = message.model_dump(mode="json", exclude={"id", "at", "site", "federation"})
    words = " ".join(f"{name}={value}" for name, value in rest.items() if not isinstance(value, dict))
    return f"{message.at:%Y-%m-%dT%H:%M:%SZ} {message.topic:22} {message.whom:12} {words}".rstrip()


def sentence(topic: str, body: str) -> Message:
    """A person's JSON as a sentence; ``id`` and ``at`` are filled in when absent.

    Raises:
        Mistake: it is not one; the reason is told.
    """
    try:
        fields: Any = json.loads(body)
    except ValueError as error:
        raise Mistake(f"the body is not JSON ({error})", "Give one JSON object") from error
    if not isinstance(fields, dict):
        raise Mistake(f"the body is a JSON {type(fields).__name__}, not an object", "Give one JSON object")
    fields = {"id": str(uuid4()), "at": datetime.now(UTC).isoformat(), **fields}
    try:
        return parse(topic, json.dumps(fields).encode())
    except Unreadable as error:
        raise Mistake(f"refused: {error}", "See `windfall events schema` for what each event holds") from error


async def publish(url: str, message: Message) -> bool:
    """Say a sentence; false when the stream held it already.

    Raises:
        Mistake: the server cannot be used, or takes no such sentence.
    """
    async with connection(url) as client:
        return await store(client, seal(message, SOURCE))


async def replay(url: str, recording: Path) -> tuple[int, int]:
    """Say a recording again under the same ids; how many were new, and how many the stream held already.

    The whole recording is read before the first word is said: a bad line says nothing at all.

    Raises:
        Mistake: the recording or the server cannot be used.
    """
    sentences = await asyncio.to_thread(lambda: list(read_file(recording)))
    new = 0
    async with connection(url) as client:
        for said in sentences:
            new += await store(client, said.letter())
    return new, len(sentences) - new


def body_of(file: str) -> str:
    """The text of a file; ``-`` reads standard input.

    Raises:
        Mistake: it cannot be read.
    """
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {file} ({error})", "Give a readable JSON file", ExitCode.RESOURCE) from error
