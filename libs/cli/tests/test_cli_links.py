"""The link matrix: a fold over events, and the command that reads them from a real server."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from windfall.cli.events import publish
from windfall.cli.links import matrix_of, read
from windfall.cli.resources.links import LINKS
from windfall.cli.resources.showing import shown
from windfall.cli.server import declared
from windfall.contracts.events import (
    LinkDegraded,
    LinkMeasured,
    LinkPart,
    LinkRecovered,
    Measured,
    NodeProfiled,
    Recommendation,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.servicekit.natsserver import NatsServer

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def measured(site: str, target: str, minute: int = 0, **parts: float) -> LinkMeasured:
    at = NOON + timedelta(minutes=minute)
    return LinkMeasured.model_validate(
        {"id": uuid4(), "at": at, "site": site, "target": target, "moved_bytes": 0, **parts}
    )


def turned(kind: type[LinkDegraded] | type[LinkRecovered], part: LinkPart = "rtt_ms") -> Message:
    return kind(id=uuid4(), at=NOON, site="a", target="hub", part=part, value=9, low=1, high=2, because="x")


PROFILED = NodeProfiled(
    id=uuid4(),
    at=NOON,
    site="a",
    window_id=uuid4(),
    lease_token=1,
    node="a-1",
    measured=Measured(fingerprint="x", cpu_model="x", cpu_cores=1, memory_bytes=1, link_rtt_ms=35, link_up_mb_per_s=5),
    recommendation=Recommendation(micro_batch=1, local_steps=1, because="x"),
)


def test_a_profile_and_what_is_measured_later_are_one_link() -> None:
    matrix = matrix_of([PROFILED, measured("a", "hub", 5, rtt_ms=36, jitter_ms=1), measured("a", "b", rtt_ms=80)])
    assert sorted(matrix) == [("a", "b"), ("a", "hub")]
    hub = matrix["a", "hub"]
    assert (hub.rtt_ms, hub.jitter_ms, hub.up_mb_per_s, hub.down_mb_per_s) == (36, 1, 5, None)
    assert hub.at == NOON + timedelta(minutes=5)


def test_what_is_out_of_its_band_is_shown_until_it_is_within() -> None:
    out = [PROFILED, turned(LinkDegraded), turned(LinkDegraded, "up_mb_per_s"), turned(LinkDegraded)]
    assert matrix_of(out)["a", "hub"].degraded == ("rtt_ms", "up_mb_per_s")
    assert matrix_of([*out, turned(LinkRecovered)])["a", "hub"].degraded == ("up_mb_per_s",)


@given(st.lists(st.sampled_from([PROFILED, measured("a", "b"), turned(LinkDegraded), turned(LinkRecovered)])))
def test_the_same_events_are_the_same_matrix_told_once_or_twice(said: list[Message]) -> None:
    assert matrix_of(said) == matrix_of(said)
    twice = [message for message in said for _ in range(2)]
    assert matrix_of(twice) == matrix_of(said)


def test_it_is_a_table_and_json() -> None:
    said = [PROFILED, measured("b", "hub", rtt_ms=80.25), turned(LinkDegraded)]
    rows = [one for _, one in sorted(matrix_of(said).items())]
    document = json.loads(shown(LINKS, rows, "json"))
    assert (document["kind"], [row["site"] for row in document["items"]]) == ("LinkList", ["a", "b"])
    head, first, second = shown(LINKS, rows, "table").splitlines()
    assert "UP MB/S" in head and "rtt_ms" in first and "80.25" in second and "–" in second
    assert " s " not in first, "a rate is no span of time"
    assert shown(LINKS, [], "table").startswith("No link has been measured yet")


def test_other_events_change_nothing() -> None:
    opened = WindowOpened(
        id=uuid4(), at=NOON, site="a", window_id=uuid4(), intensity_g_per_kwh=1.0, expected_close_at=None
    )
    assert matrix_of([opened]) == {}


async def test_a_server_is_read_up_to_now(nats_server: NatsServer) -> None:
    await declared([replace(nats_server.plan, domain=HUB)])
    assert await read(nats_server.url) == {}
    said: list[Message] = [PROFILED, measured("b", "hub", rtt_ms=80), turned(LinkDegraded)]
    for message in said:
        await publish(nats_server.url, message)
    assert await read(nats_server.url) == matrix_of(said)
