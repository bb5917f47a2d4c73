"""A real fleet with a tap in its site's way out: every byte is decoded and held against what may leave.

Real NATS servers, real gRPC, all five services as processes. The site's data, folders, files, user and environment hold
marks, and none of them is to be found in what the site said.
"""

import base64
import getpass
import gzip
import json
import re
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import nats
import pytest
from google.protobuf.message import Message as Proto
from google.protobuf.unknown_fields import UnknownFieldSet

from tests.http2 import PREFACE, Stream, streams
from tests.leaf_frames import Frame, Undecodable, frames
from tests.tap import Tap
from windfall.cli.events import publish, sentence
from windfall.cli.fleet import LOOPBACK, Plan, Program, Wish, plan, server_program
from windfall.cli.launch import Crew
from windfall.cli.preparation import ports
from windfall.cli.server import declared
from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.events import NodeProfiled, NodeReleased, RoundCompleted
from windfall.contracts.leaving import ANSWERS, ENVELOPE, FACTS, LEAF, METADATA, ORDERS, PARTS, REQUESTS, Cargo
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, PREFIX
from windfall.contracts.v1 import link_probe_pb2, training_pb2
from windfall.lowcomm.wire import MAGIC
from windfall.servicekit.natsserver import find_binary, render

SITE = "site-a"
FILE: Final = "marked-file-91f0"
ROUNDS: Final = 2
MARKS: Final = {
    "a sentence of the text": "zebra-quark-7c1e-murmurs",
    "a file's name": FILE,
    "a folder's name": "marked-folder-5d2a",
    "the environment": "marked-variable-3b8c",
    "the user's name": "marked-user-c44d",
}
SPOKEN: Final = (
    r"\$JS\.hub\.API\.INFO",
    r"\$JS\.hub\.API\.CONSUMER\.(?:CREATE|DELETE)\.ORDERS\.[\w-]+(?:\.windfall\.v1\.command\.\*\.\*\.site-a)?",
    r"\$JSC\.R\.\w+",
    r"_DELIVERED\.hub\.site-a\.S\.\w+",
    r"_INBOX\.[\w.-]+",
    r"\$JS\.FC\.[\w.*-]+",
)
"""Subjects of messages that a site's server sends: it asks for its orders, and answers who sources its events."""
LISTENED: Final = (
    *SPOKEN,
    r"_DELIVERED\.site-a\.hub\.S\.\w+",
    r"\$JS\.site-a\.API\.[\w$*.>-]+",
    r"\$LDS\.\w+",
    r"\$SYS\.REQ\.[\w.*]+",
    r"_INBOX\.[\w.*-]+",
)
"""Subjects in which it says that it is interested."""


def strange(subject: str, known: Iterable[str]) -> bool:
    return not any(re.fullmatch(pattern, subject) for pattern in known)


# --- the fleet --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overheard:
    """All that went over the site's ways out."""

    leaf: list[tuple[bytes, bytes]]
    rpc: list[tuple[bytes, bytes]]
    facts: list[Message]
    """What the hub heard."""

    @property
    def out(self) -> bytes:
        return b"".join(out for out, _ in (*self.leaf, *self.rpc))


def chosen(folder: Path) -> Plan:
    """A hub and one site that follows what is said of its power, in real time."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    wish = Wish(folder, (SITE,), folder / "unread.csv", start, start, task_settings={"preset": "tiny"})
    made = plan(wish, datetime.now(UTC), ports(None))
    return replace(made, programs=tuple(_live(program) for program in made.programs))


def _live(program: Program) -> Program:
    zero = {name: "0" for name in ("GRACE", "RIDE_THROUGH", "MINIMUM_WINDOW", "PAYBACK", "DRAIN", "FORECAST_HORIZON")}
    told: Mapping[str, Mapping[str, str]] = {
        "energy-watcher": {
            **zero,
            "SIGNALS": json.dumps({"carbon": {"provider": "bus", "kind": "marginal"}}),
            "RULE": "carbon < 100",
            "CLOSING_LEAD": "0",
            "STALE_AFTER": "PT1H",
        },
        "provisioner": {"GRACE": "PT60S"},
        "profiler": {"TARGET_ROUND": "PT3S"},
        "federation-coordinator": {"ROUND_LENGTH": "PT1S", "STRAGGLER_GRACE": "PT60S", "ALONE": "0"},
    }
    unset = ("TRACE_FILE", "TRACE_COLUMN", "SIGNAL", "OPEN_BELOW", "CLOSE_ABOVE", "LEDGER_SINCE")
    kept = {key: value for key, value in program.environ.items() if key.removeprefix("WINDFALL_") not in unset}
    mine = {**told[program.name.partition("@")[0]], "CLOCK": "system"}
    return replace(program, environ={**kept, **{f"WINDFALL_{key}": value for key, value in mine.items()}})


def furnish(made: Plan) -> None:
    """A text with marks, under a name with a mark."""
    for folder in (made.data_of(SITE), made.held_out):
        folder.mkdir(parents=True)
    text = f"The {MARKS['a sentence of the text']} in every line of it.\n" * 400
    (made.data_of(SITE) / f"{FILE}.txt").write_text(text)
    (made.held_out / "text.txt").write_text("Nothing of a site stands here. " * 400)


async def lived(folder: Path) -> Overheard:
    made = chosen(folder)
    furnish(made)
    hub, site = made.servers
    assert hub.leaf_port is not None
    async with Tap(hub.leaf_port) as leaf, Tap(int(made.coordinator.rpartition(":")[2])) as rpc:
        servers = (hub, replace(site, hub_leaf_port=leaf.port))
        running = []
        for server in servers:
            config = server.store.parent / "nats.conf"
            config.parent.mkdir(parents=True)
            config.write_text(render(server).replace("leafnodes { ", "leafnodes { compression: off, "))
            running.append(server_program(server, config, find_binary(), folder))
        programs = [_tapped(made, program, rpc.port) for program in made.programs]
        async with Crew(lambda line: None) as crew:
            for server_run in running:
                crew.start(server_run)
                await crew.standing(server_run)
            await declared(servers)
            await crew.stand(programs)
            facts = await story(hub.url, site.url)
            await crew.stop(programs, timedelta(seconds=30))
            await crew.stop(running, timedelta(seconds=10))
        return Overheard(
            [(bytes(talk.out), bytes(talk.back)) for talk in leaf.talks],
            [(bytes(talk.out), bytes(talk.back)) for talk in rpc.talks],
            facts,
        )


def _tapped(made: Plan, program: Program, port: int) -> Program:
    if program.name.startswith("federation-coordinator"):
        return program
    far, near = made.coordinator, f"{LOOPBACK}:{port}"
    return replace(program, environ={key: value.replace(far, near) for key, value in program.environ.items()})


async def story(hub: str, site: str) -> list[Message]:
    """A window opens, rounds are trained and the node is measured, the window closes, the node goes."""
    heard: list[Message] = []

    async def of_power(value: float) -> None:
        about = {"site": SITE, "signal": "carbon", "kind": "marginal", "unit": "gCO2/kWh", "value": value}
        said = {**about, "point_time": datetime.now(UTC).isoformat()}
        await publish(site, sentence("signal.observed", json.dumps(said)))

    async with listening(hub) as words:
        await of_power(30)
        closing = False
        async for message in words:
            heard.append(message)
            rounds = sum(isinstance(one, RoundCompleted) for one in heard)
            if not closing and rounds >= ROUNDS and any(isinstance(one, NodeProfiled) for one in heard):
                closing = True
                await of_power(400)
            if isinstance(message, NodeReleased):
                return heard
    raise AssertionError("the bus has ended")


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[AsyncIterator[Message]]:
    client = await nats.connect(url)
    try:
        subscription = await client.jetstream().subscribe(f"{PREFIX}.>", stream=EVENTS_STREAM, ordered_consumer=True)

        async def words() -> AsyncIterator[Message]:
            while True:
                raw = await subscription.next_msg(timeout=120)
                yield unseal(Letter(raw.subject, dict(raw.headers or {}), raw.data))

        yield words()
    finally:
        await client.close()


# --- what may leave, held against what did ----------------------------------------------------------------------------


def check_leaf(out: bytes, back: bytes) -> Counter[str]:
    """Every frame of a leaf connection, and how often each fact left."""
    left: Counter[str] = Counter()
    for frame in frames(out):
        if frame.operation == "CONNECT":
            about = json.loads(frame.body)
            assert set(about) <= set(LEAF), f"CONNECT says {set(about) - set(LEAF)}"
        elif frame.operation in ("LS+", "LS-"):
            assert not strange(frame.subject, LISTENED), f"interest in {frame.subject}"
        elif frame.operation in ("LMSG", "HMSG"):
            left += _check_message(frame)
        else:
            assert frame.operation in ("PING", "PONG"), frame
    for frame in frames(back):
        # From the hub: orders for this site, and what servers say to each other.
        if "@" in frame.reply:
            subject = frame.reply.partition("@")[2]
            assert subject.startswith(f"{PREFIX}.command.") and subject.endswith(f".{SITE}"), subject
            assert subject.removeprefix(f"{PREFIX}.command.").removesuffix(f".{SITE}") in ORDERS, subject
    return left


def _check_message(frame: Frame) -> Counter[str]:
    assert not strange(frame.subject, SPOKEN), f"a message on {frame.subject}"
    if "@" not in frame.reply:
        # Between servers: consumers of sourced streams, heartbeats, how much a domain holds.
        for mark in FACTS:
            assert mark.encode() not in frame.body, frame
        assert set(frame.headers) <= {
            *("nats-last-consumer", "nats-last-stream", "nats-required-api-level", "nats-stream-identity"),
            "nats-consumer-stalled",
        }, frame.headers
        return Counter()
    subject = frame.reply.partition("@")[2]
    topic = subject.removeprefix(f"{PREFIX}.").removesuffix(f".{SITE}")
    assert topic in FACTS, f"a fact on {subject}"
    assert set(frame.headers) <= set(ENVELOPE), f"{topic} has the headers {set(frame.headers) - set(ENVELOPE)}"
    _check_fields(topic, json.loads(frame.body), {name: leaves.cargo for name, leaves in FACTS[topic].items()})
    return Counter({topic: 1})


def _check_fields(where: str, body: Mapping[str, Any], declared: Mapping[str, Cargo]) -> None:
    parts = {
        "measured": "Measured",
        "recommendation": "Recommendation",
        "forecast": "Point",
        "hardware": "Hardware",
        "accelerators": "Accelerator",
        "partitions": "Partition",
        "pcie": "PcieLink",
        "interconnects": "Interconnect",
        "processor": "Processor",
        "numa_nodes": "NumaNode",
        "nics": "Nic",
        "storage": "Storage",
        "system": "System",
    }
    for name, value in body.items():
        assert name in declared, f"{where} has a field {name}"
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and name in parts:
                part = parts[name]
                _check_fields(f"{where}.{name}", each, {field: one.cargo for field, one in PARTS[part].items()})


def check_rpc(out: bytes, back: bytes) -> Counter[str]:
    """Every message of a connection of gRPC, and how often each left."""
    methods = {
        f"/{service.full_name}/{method.name}": method
        for stub in (training_pb2, link_probe_pb2)
        for service in stub.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    left: Counter[str] = Counter()
    asked = streams(out, client=True)
    for number, call in asked.items():
        headers = dict(call.headers)
        if number == 0:
            assert headers.keys() == {"goaway"}, headers
            continue
        assert set(headers) <= set(METADATA), f"a call has the headers {set(headers) - set(METADATA)}"
        path = headers[":path"]
        assert path in methods, f"a call of {path}"
        for data in call.messages():
            left += _check_proto(getattr(_stub(path), methods[path].input_type.name).FromString(data), path)
    for number, answer in streams(back, client=False).items():
        if number in asked and number:
            path = dict(asked[number].headers)[":path"]
            _check_answer(answer, getattr(_stub(path), methods[path].output_type.name), path)
    return left


def _stub(path: str) -> Any:
    return training_pb2 if ".Training/" in path else link_probe_pb2


def _check_proto(message: Proto, where: str) -> Counter[str]:
    name = message.DESCRIPTOR.name
    assert name in REQUESTS, f"{where} sends a {name}"
    assert not len(UnknownFieldSet(message)), f"{where} sends a {name} with a field that nobody knows"
    found: Counter[str] = Counter({name: 1})
    for field, value in message.ListFields():
        assert field.name in REQUESTS[name], f"{where} sends {name}.{field.name}"
        for each in value if field.is_repeated else [value]:
            if isinstance(each, Proto):
                found += _check_proto(each, where)
    if isinstance(message, training_pb2.Manifest):
        assert round(message.loss, 2) == message.loss, "an exact loss"
    return found


def _check_answer(answer: Stream, kind: Any, path: str) -> None:
    for data in answer.messages():
        message = kind.FromString(data)
        assert message.DESCRIPTOR.name in ANSWERS | {"EchoMessage", "ProbeChunk"}, path
        assert not len(UnknownFieldSet(message)), path


def unpacked(data: bytes) -> Iterable[bytes]:
    """The bytes, and whatever can be made of runs of them that are encoded or compressed."""
    yield data
    for run in re.finditer(rb"[A-Za-z0-9+/_-]{24,}={0,2}", data):
        text = run[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        yield base64.b64decode(text[: len(text) // 4 * 4])
    for start in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", data):
        try:
            yield zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data[start.start() :], 1 << 20)
        except zlib.error:
            continue


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_what_leaves_a_site_is_on_the_list_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, MARKS["the user's name"])
    monkeypatch.setenv("MARKED", MARKS["the environment"])
    folder = tmp_path / MARKS["a folder's name"]
    folder.mkdir()
    heard = await lived(folder)

    left: Counter[str] = Counter()
    for out, back in heard.leaf:
        left += check_leaf(out, back)
    for out, back in heard.rpc:
        left += check_rpc(out, back)

    # It was no empty talk.
    assert left["Manifest"] >= ROUNDS and MAGIC in heard.out
    for said in ("JoinRequest", "Beat", "PullRequest", "EchoMessage", "ProbeChunk", "LeaveRequest"):
        assert left[said], said
    for fact in ("window.opened", "node.ready", "node.profiled", "training.started", "site.drained", "energy.recorded"):
        assert left[fact], fact
    # And the hub heard of the site what is said here to have left.
    assert {one.topic for one in heard.facts if one.topic in FACTS} == {topic for topic in left if topic in FACTS}

    own = {"the machine's name": socket.gethostname(), "the user": getpass.getuser(), "the folder": str(tmp_path)}
    marks = MARKS | {what: word for what, word in own.items() if len(word) > 5}
    for whole in unpacked(heard.out):
        for what, mark in marks.items():
            assert mark.encode() not in whole, f"{what} left: {mark}"
    # The text itself may be longer than a mark: no run of it is there either.
    text = (folder / "data" / SITE / f"{FILE}.txt").read_bytes()[:64]
    assert not any(text[start : start + 12] in heard.out for start in range(0, 52, 4))


# --- that it can tell -------------------------------------------------------------------------------------------------


def fact(topic: str = "site.drained", header: str = "ce-id: 1", **fields: object) -> bytes:
    """A frame that carries a fact to the hub."""
    head, body = f"NATS/1.0\r\n{header}\r\n\r\n".encode(), json.dumps(fields).encode()
    reply = f"$JS.ACK.EVENTS.x.1.1.1.1.0@{PREFIX}.{topic}.{SITE}"
    return (
        f"HMSG _DELIVERED.hub.site-a.S.abc {reply} {len(head)} {len(head) + len(body)}\r\n".encode()
        + head
        + body
        + b"\r\n"
    )


def call(path: str, *messages: bytes, header: tuple[str, str] = ("te", "trailers")) -> bytes:
    """A connection with one call."""

    def literal(name: str, value: str) -> bytes:
        return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    def frame(kind: int, flags: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + payload

    data = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    return PREFACE + frame(1, 4, literal(":path", path) + literal(*header)) + frame(0, 1, data)


JOIN = "/windfall.contracts.v1.Training/Join"


@pytest.mark.parametrize(
    ("leaf", "why"),
    [
        (fact("site.photographed"), "a fact on windfall.v1.site.photographed"),
        (fact(delivered=True, path="/home"), "has a field path"),
        (fact("node.profiled", measured={"hostname": "x"}), "measured has a field hostname"),
        (fact("node.profiled", hardware={"accelerators": [{"uuid": "x"}]}), "accelerators has a field uuid"),
        (fact(header="x-secret: 1"), "has the headers"),
        (b'CONNECT {"name": "site-a", "user": "bob"}\r\n', "CONNECT says"),
        (b"LMSG windfall.secret 3\r\nabc\r\n", "a message on windfall.secret"),
        (b"LS+ windfall.>\r\n", "interest in windfall.>"),
        (b"BLOB 3\r\nabc\r\n", "no frame at byte 0"),
        (b"LMSG _INBOX.a 9\r\nabc\r\n", "is cut"),
    ],
)
def test_what_is_not_on_the_list_is_found_on_the_bus(leaf: bytes, why: str) -> None:
    assert check_leaf(fact(delivered=True), b"") == Counter({"site.drained": 1})
    with pytest.raises((AssertionError, Undecodable), match=re.escape(why)):
        check_leaf(leaf, b"")


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (call("/windfall.contracts.v1.Training/Photograph"), "a call of /windfall"),
        (call(JOIN, header=("x-user", "bob")), "has the headers"),
        (call(JOIN, b"\xfa\x01\x03bob"), "with a field that nobody knows"),
        (
            call("/windfall.contracts.v1.Training/Push", b"\x0a\x09\x39\x01\x02\x03\x04\x05\x06\x07\x40"),
            "an exact loss",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "no HTTP/2"),
        (call(JOIN) + b"left over", "a frame of kind"),
        (call(JOIN) + b"over", "no frame at byte"),
    ],
)
def test_what_is_not_on_the_list_is_found_in_calls(talk: bytes, why: str) -> None:
    assert check_rpc(call(JOIN, training_pb2.JoinRequest(site=SITE).SerializeToString()), b"") == {"JoinRequest": 1}
    with pytest.raises((AssertionError, Undecodable), match=re.escape(why)):
        check_rpc(talk, b"")


def test_marks_are_found_where_they_are_encoded() -> None:
    mark = MARKS["the environment"].encode()
    for hidden in (base64.b64encode(b"x" * 9 + mark + b"y" * 30), zlib.compress(mark), gzip.compress(mark)):
        assert any(mark in whole for whole in unpacked(b"before " + hidden + b" after"))
