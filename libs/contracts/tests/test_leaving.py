"""What may leave a site is declared field by field, and the page for people says the same."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import windfall.contracts.v1 as v1
from windfall.contracts.commands import COMMANDS
from windfall.contracts.events import EVENTS, FederationEvent, Point
from windfall.contracts.events import Measured as MeasuredPart
from windfall.contracts.events import Recommendation as RecommendationPart
from windfall.contracts.hardware import (
    Accelerator,
    Hardware,
    Interconnect,
    Nic,
    NumaNode,
    Partition,
    PcieLink,
    Processor,
    Storage,
    System,
)
from windfall.contracts.leaving import ANSWERS, ENVELOPE, FACTS, LEAF, METADATA, ORDERS, PARTS, REQUESTS, Cargo, Leaves
from windfall.contracts.measures import Interval
from windfall.contracts.message import LONGEST_SENTENCE, sentence
from windfall.contracts.profile import Identity, Local
from windfall.contracts.subjects import HUB_SERVICES, SITE_SERVICES

PAGE = Path(__file__).parents[3] / "docs" / "sovereignty.md"
BEGIN, END = "<!-- what leaves: written by libs/contracts/tests/test_leaving.py -->", "<!-- end of what leaves -->"
STUBS: tuple[ModuleType, ...] = tuple(
    import_module(f"{v1.__name__}.{module.name}")
    for module in iter_modules(v1.__path__)
    if module.name.endswith("_pb2")
)
SERVED_BY_SITES = ("Capacity",)
"""To others: its replies leave. Whatever else there is, sites call, and their requests leave."""
OF_A_PROFILE: tuple[type[BaseModel], ...] = (
    MeasuredPart,
    Interval,
    RecommendationPart,
    Hardware,
    Accelerator,
    Partition,
    PcieLink,
    Interconnect,
    Processor,
    NumaNode,
    Nic,
    Storage,
    System,
)


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    for stub in STUBS:
        for name, service in stub.DESCRIPTOR.services_by_name.items():
            for method in service.methods:
                yield name, method


def within(names: Iterable[str]) -> set[str]:
    """These messages and what they are made of."""
    found: set[str] = set()
    rest = list(names)
    while rest:
        name = rest.pop()
        if name in found:
            continue
        found.add(name)
        rest += [
            field.message_type.name
            for field in fields_of(name)
            if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.file.package.startswith("windfall")
        ]
    return found


def fields_of(message: str) -> list[FieldDescriptor]:
    (found,) = [stub.DESCRIPTOR.message_types_by_name[message] for stub in STUBS if hasattr(stub, message)]
    return list(found.fields)


def test_every_field_that_a_site_sends_over_grpc_is_declared_and_no_other() -> None:
    called = [(service not in SERVED_BY_SITES, method) for service, method in methods()]
    out = within((method.input_type if theirs else method.output_type).name for theirs, method in called)
    back = within((method.output_type if theirs else method.input_type).name for theirs, method in called)
    assert out == set(REQUESTS)
    assert back - out == ANSWERS
    for message, declared in REQUESTS.items():
        assert [field.name for field in fields_of(message) if field.name not in declared] == [], message
        assert set(declared) == {field.name for field in fields_of(message)}, message


def test_every_fact_of_a_site_is_declared_field_by_field_and_no_other() -> None:
    leaving = {
        kind.topic: kind
        for kind in EVENTS
        if (kind.__doc__ or "").split(":")[0] not in HUB_SERVICES and not issubclass(kind, FederationEvent)
    }
    assert set(FACTS) == set(leaving)
    for topic, kind in leaving.items():
        assert set(FACTS[topic]) == set(kind.model_fields), topic
    parts = {"Point": Point, **{part.__name__: part for part in OF_A_PROFILE}}
    assert {name: set(part.model_fields) for name, part in parts.items()} == {
        name: set(declared) for name, declared in PARTS.items()
    }


def test_every_sentence_within_a_fact_is_cleaned() -> None:
    """Whatever is text is a name, an id or one word of a list; all else goes through ``Sentence``."""
    for kind in (*(kind for kind in EVENTS if kind.topic in FACTS), *OF_A_PROFILE):
        declared = FACTS[kind.topic] if kind in EVENTS else PARTS[kind.__name__]  # type: ignore[attr-defined]
        for name, field in kind.model_fields.items():
            said = sentence in [getattr(each, "func", None) for each in field.metadata]
            assert (declared[name].cargo is Cargo.SENTENCE) <= said, f"{kind.__name__}.{name}"
            if field.annotation is str and not field.metadata:
                assert name in {"unit", "backend", "fingerprint"}, f"{kind.__name__}.{name} is any text at all"


def test_which_device_it_is_and_where_stays_at_its_site() -> None:
    """Nothing that leaves is, or holds, what tells one device of a kind from another."""
    names = {name for declared in (*FACTS.values(), *PARTS.values()) for name in declared}
    assert not names & {"local", "hostname", "serial", *Identity.model_fields} - {"partitions"}
    for kind in (*EVENTS, *OF_A_PROFILE):
        for name, field in kind.model_fields.items():
            assert not any(local.__name__ in str(field.annotation) for local in (Local, Identity)), name
            told = str(field.annotation) + str(field.metadata)
            assert "Path" not in told, f"{kind.__name__}.{name}"


def test_every_order_that_a_site_takes_is_declared() -> None:
    assert {kind.topic for kind in COMMANDS if kind.topic.split(".")[0] in SITE_SERVICES} == ORDERS


def test_every_header_of_a_fact_is_declared() -> None:
    for golden in (Path(__file__).parent / "golden").glob("*.json"):
        headers = json.loads(golden.read_text())["headers"]
        assert {name.lower() for name in headers} <= set(ENVELOPE), golden.name
    assert METADATA["traceparent"] == ENVELOPE["traceparent"]


# --- sentences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "leaves"),
    [
        ("cannot start a-1 in /var/lib/My Site/x ([Errno 2])", "cannot start a-1 in … ([Errno 2])"),
        ("open('/home/bob/My Data/x.txt')", "open(…)"),
        (r"C:\Users\bob\x.txt is missing", "… is missing"),
        ("~bob/data, ../data and ./data", "…, … and …"),
        ("http://10.0.0.3:9090/api?key=7 failed", "… failed"),
        ("ipv4:127.0.0.1:443: refused", "…: refused"),
        ("ipv6:%5B::1%5D:50051", "…"),
        ("data=/srv/x", "data=…"),
        ("23 gCO2/kWh, 4 samples/s and / or 12:05", "23 gCO2/kWh, 4 samples/s and / or 12:05"),
        ("two\nlines and \u202ebackwards", "two lines and  backwards"),
    ],
)
def test_a_sentence_says_nothing_of_where_something_lies(said: str, leaves: str) -> None:
    assert sentence(said) == leaves


@given(st.text(max_size=80), st.sampled_from(["/", "~/", "./", "../"]), st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9}){1,3}"))
def test_no_path_survives_in_any_text(text: str, root: str, path: str) -> None:
    place = root + path.strip()
    assert place not in sentence(f"{text} {place} {text}")


@given(st.text())
def test_a_sentence_is_one_line_of_bounded_length_and_stays_as_it_is(text: str) -> None:
    said = sentence(text * 50)
    assert len(said) <= LONGEST_SENTENCE
    assert said.isprintable()
    assert sentence(said) == said


# --- the page ---------------------------------------------------------------------------------------------------------


def table() -> str:
    sections: list[tuple[str, Mapping[str, Mapping[str, Leaves]]]] = [
        ("gRPC", REQUESTS),
        ("Facts", FACTS),
        ("Parts of facts", PARTS),
        ("Envelopes", {"header of a fact": ENVELOPE, "header of a call": METADATA, "leaf connection": LEAF}),
    ]
    lines = []
    for title, messages in sections:
        lines += [f"### {title}", "", "| message | field | class | why |", "| --- | --- | --- | --- |"]
        for message, declared in messages.items():
            for number, (field, leaves) in enumerate(declared.items()):
                shown = f"`{message}`" if number == 0 else ""
                lines.append(f"| {shown} | `{field}` | {leaves.cargo} | {leaves.why} |")
        lines.append("")
    return "\n".join(lines)


def test_the_page_says_what_the_code_does() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = f"{before}{BEGIN}\n\n{table()}\n{END}{after}"
    if os.environ.get("WINDFALL_WRITE_GOLDEN"):
        PAGE.write_text(written, encoding="utf-8")
    assert page == written, "write it anew with WINDFALL_WRITE_GOLDEN=1"
