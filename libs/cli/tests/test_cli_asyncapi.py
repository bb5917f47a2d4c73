"""The AsyncAPI document is whole: everything that can be said is in it, and every reference leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from windfall.cli.asyncapi import document
from windfall.cli.events import schema
from windfall.contracts.commands import COMMANDS
from windfall.contracts.events import EVENTS
from windfall.contracts.speaking import OPERATOR, PERSON, hears, says
from windfall.contracts.subjects import HUB_SERVICES, KINDS, SITE_SERVICES, subject_for, type_of

SERVICES = Path(__file__).parents[3] / "services"
DOCUMENT = document("0.0.0")


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@pytest.mark.parametrize("reference", sorted(set(_references(DOCUMENT))))
def test_every_reference_leads_somewhere(reference: str) -> None:
    node: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    assert node


@pytest.mark.parametrize("topic", sorted(KINDS))
def test_every_sentence_has_a_channel_a_message_and_a_speaker(topic: str) -> None:
    kind = KINDS[topic]
    channel, message = DOCUMENT["channels"][topic], DOCUMENT["components"]["messages"][kind.__name__]
    assert re.sub(r"\{.*\}", "x", channel["address"]) == subject_for(kind, "x")
    assert message["headers"]["properties"]["ce-type"]["const"] == type_of(kind)
    payload = DOCUMENT["components"]["schemas"][kind.__name__]
    assert {"id", "at"} <= set(payload["required"])
    assert any(name.endswith(f".says.{topic}") for name in DOCUMENT["operations"])


@pytest.mark.parametrize(
    ("schema", "field", "words"),
    [
        ("WindowOpened", "at", "When it became true, by the speaker's clock."),
        ("WindowOpened", "confidence", "That it ends within five minutes of ``expected_close_at``; none when no end"),
        ("Measured", "device", "What the benchmark ran on"),
        ("Interval", "runs", "From how many it was estimated."),
    ],
)
def test_a_field_says_what_stands_below_it_in_the_source(schema: str, field: str, words: str) -> None:
    told = DOCUMENT["components"]["schemas"][schema]["properties"].get(field, {}).get("description", "")
    assert told.startswith(words)


def test_document_has_the_members_that_the_specification_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    for name, operation in DOCUMENT["operations"].items():
        assert operation["action"] in ("send", "receive"), name
        assert operation["channel"]["$ref"].startswith("#/channels/")
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/"), name


def test_speakers_and_listeners_are_services_or_a_person() -> None:
    known = {*SITE_SERVICES, *HUB_SERVICES, OPERATOR, PERSON}
    for kind in (*EVENTS, *COMMANDS):
        assert {*says(kind), *hears(kind)} <= known, kind.__name__


def test_what_services_hear_is_what_the_document_says() -> None:
    found: dict[str, set[str]] = {}
    for path in SERVICES.glob("*/src/**/*.py"):
        for name in re.findall(r"\.(?:hears|follows)\((\w+),", path.read_text()):
            found.setdefault(name, set()).add(
                OPERATOR if path.parent.name == OPERATOR else path.relative_to(SERVICES).parts[0]
            )
    told = {kind.__name__: set(hears(kind)) for kind in (*EVENTS, *COMMANDS) if hears(kind)}
    assert told == found


def test_yaml_says_the_same() -> None:
    assert yaml.safe_load(schema("0.0.0", "yaml")) == DOCUMENT
