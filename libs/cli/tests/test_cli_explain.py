"""Why a site is on or off: from words alone, and from a real server."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml

from windfall.cli import explain_federation
from windfall.cli.events import publish
from windfall.cli.explain import explain, explained, for_machines, in_words
from windfall.cli.resources.federations import Federation
from windfall.cli.server import connection, declared, store
from windfall.contracts.envelope import Letter
from windfall.contracts.events import (
    NodeFailed,
    NodeHindered,
    NodeReady,
    PlanMade,
    SignalStale,
    SiteRefused,
    SiteWithheld,
    WindowClosed,
    WindowExpected,
    WindowJudged,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import NatsServer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = {"site": "site-a", "window_id": UUID(int=5)}


def said(kind: type[Message], minute: float, **fields: Any) -> Message:
    return kind.model_validate({"id": uuid4(), "at": NOON + timedelta(minutes=minute), "site": "site-a", **fields})


def judged(minute: float, state: str, because: str, would_change: str, **fields: Any) -> Message:
    return said(WindowJudged, minute, state=state, because=because, would_change=would_change, **fields)


OPENED = said(WindowOpened, 0, **WINDOW, intensity_g_per_kwh=45, expected_close_at=None, because="45 is below 100")
CLOSED = said(WindowClosed, 60, **WINDOW, reason="dirty", crossed_at=NOON, because="200 gCO2/kWh is above 150")
STALE = said(SignalStale, 60, last_point_time=NOON, limit_s=900)
ON = judged(0, "on", "45 gCO2/kWh is not above 150", "off when carbon is above 150 gCO2/kWh", next_change_at=NOON)
OFF = judged(60, "off", "200 gCO2/kWh is not below 100", "on when carbon is below 100 gCO2/kWh")
PLAN = said(
    PlanMade,
    0,
    federation="demo",
    objective="carbon",
    deadline=None,
    remaining_site_hours=9,
    finishes_at=None,
    emissions_kg=1,
    reserve_site_hours=0,
    site_hours={"site-a": 2.5},
    because="the cleanest hours come first",
)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            [OPENED, ON],
            "site-a is on since 2026-01-01 12:00 UTC: 45 gCO2/kWh is not above 150.\n"
            "It goes off when carbon is above 150 gCO2/kWh; foreseen for 2026-01-01 12:00 UTC.",
        ),
        (
            [OPENED, CLOSED, OFF, PLAN],
            "site-a is off since 2026-01-01 13:00 UTC: 200 gCO2/kWh is not below 100; "
            "the plan of demo gives it 2.5 site-hours.\n"
            "It goes on when carbon is below 100 gCO2/kWh.",
        ),
        (
            [OPENED, CLOSED, ON],
            "site-a is off since 2026-01-01 13:00 UTC: 200 gCO2/kWh is above 150.\n"
            "Its watcher has not said yet what would change it.",
        ),
        (
            [judged(0, "on", "160 gCO2/kWh is above 150", "stays on when carbon is not above 150 gCO2/kWh")],
            "site-a is on since 2026-01-01 12:00 UTC: 160 gCO2/kWh is above 150.\n"
            "It stays on when carbon is not above 150 gCO2/kWh.",
        ),
        (
            [OPENED, STALE, judged(60, "stale", "nothing fresh is known of carbon", "on when carbon is known")],
            "site-a is off, because its signal is silent, since 2026-01-01 13:00 UTC: "
            "nothing fresh is known of carbon.\nIt goes on when carbon is known.",
        ),
        (
            [
                said(
                    WindowExpected,
                    0,
                    **WINDOW,
                    opens_at=NOON,
                    expected_close_at=None,
                    confidence=0.5,
                    because="clean from 12:30 UTC on by the forecast",
                )
            ],
            "site-a is off, with a window that is expected since 2026-01-01 12:00 UTC: "
            "clean from 12:30 UTC on by the forecast.\nIts watcher has not said yet what would change it.",
        ),
        (
            [said(WindowWithdrawn, 0, **WINDOW)],
            "site-a is off since 2026-01-01 12:00 UTC: its watcher said window.withdrawn.\n"
            "Its watcher has not said yet what would change it.",
        ),
    ],
    ids=["on", "off-with-a-plan", "moved-since", "in-the-grace", "stale", "expected", "withdrawn"],
)
def test_two_sentences(words: list[Message], text: str) -> None:
    told = explained("site-a", words)
    assert told is not None
    assert in_words(told) == text
    machine = json.loads(for_machines(told, "json"))
    assert (machine["apiVersion"], machine["kind"], machine["site"]) == ("windfall.dev/cli/v1", "Explanation", "site-a")
    assert yaml.safe_load(for_machines(told, "yaml")) == json.loads(for_machines(told, "jsonl")) == machine


def test_who_kept_a_trainer_out_is_told() -> None:
    words: list[Message] = [OPENED, ON]
    lease = {"window_id": WINDOW["window_id"], "lease_token": 1}
    withheld = said(SiteWithheld, 5, federation="demo", before="join", because="quiet: nothing leaves now", **lease)
    refused = said(SiteRefused, 9, federation="demo", reason="jurisdiction", detail="US is not within CA")
    for word, text in (
        (withheld, "Its own policy kept its trainer from demo at 2026-01-01 12:05 UTC: quiet: nothing leaves now."),
        (refused, "The federation demo did not admit it at 2026-01-01 12:09 UTC: US is not within CA."),
    ):
        words.append(word)
        told = explained("site-a", words)
        assert told is not None
        assert in_words(told).splitlines()[-1] == text


def test_why_no_node_comes_is_told_until_it_does() -> None:
    lease = {"window_id": WINDOW["window_id"], "lease_id": UUID(int=7), "lease_token": 1}
    full = said(NodeHindered, 5, because="has room for 0 of 1 workers", **lease)
    gone = said(NodeHindered, 6, because="", **lease)
    ready = said(NodeReady, 7, node="site-a-1", backend="kubernetes", **lease)
    failed = said(NodeFailed, 9, reason="site-a may not be used: jurisdiction: US-GA is not within CA", **lease)
    words: list[Message] = [OPENED, ON]
    for word, text in (
        (full, "Its node does not come since 2026-01-01 12:05 UTC: has room for 0 of 1 workers."),
        (gone, ""),
        (ready, ""),
        (
            failed,
            "Its window of 2026-01-01 12:09 UTC had no node: "
            "site-a may not be used: jurisdiction: US-GA is not within CA.",
        ),
    ):
        words.append(word)
        told = explained("site-a", words)
        assert told is not None
        assert in_words(told).splitlines()[2:] == ([text] if text else [])


def test_without_a_word_there_is_nothing_to_explain() -> None:
    assert explained("site-a", []) is None
    assert explained("site-a", [PLAN]) is None


@pytest.fixture
async def url(nats_server: NatsServer) -> AsyncIterator[str]:
    await declared([nats_server.plan])
    yield nats_server.url


@pytest.fixture
async def hub_url(nats_server: NatsServer) -> AsyncIterator[str]:
    """A server that also takes what federations say."""
    await declared([replace(nats_server.plan, domain=HUB)])
    yield nats_server.url


async def test_a_server_is_asked_for_the_last_words(hub_url: str) -> None:
    for word in (OPENED, ON, CLOSED, OFF, PLAN):
        await publish(hub_url, word)
    async with connection(hub_url) as client:
        await store(client, Letter("windfall.v1.window.withdrawn.site-a", {}, b"nonsense"))
    told = await explain(hub_url, "site-a")
    assert (told.state, told.because) == ("off", "200 gCO2/kWh is not below 100")
    assert told.plan == "the plan of demo gives it 2.5 site-hours"


async def test_a_site_of_which_nothing_was_said(url: str) -> None:
    with pytest.raises(Mistake, match=r"nothing was said yet about the windows of 'site-a'. Start its energy-watcher"):
        await explain(url, "site-a")


async def test_a_site_that_the_server_does_not_know(url: str) -> None:
    with pytest.raises(Mistake, match=r"unknown site 'site-z'. Did you mean site-a\?") as refused:
        await explain(url, "site-z")
    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Federation("demo"), "demo is waiting: no round has started.\nThe next round opens when"),
        (Federation("demo", completed=3), "demo is waiting: round 3 is completed.\n"),
        (
            Federation("demo", "training", 4, ("oslo", "quebec"), plan="40 % less carbon"),
            "demo is training: round 4 runs with oslo, quebec.\n`windfall watch rounds` shows when it is",
        ),
        (
            Federation("demo", "paused", because="new disks", changed_at=datetime(2026, 1, 1, tzinfo=UTC)),
            "demo is paused since 2026-01-01 00:00 UTC: new disks.\n`windfall resume demo` goes on",
        ),
        (Federation("demo", "finished"), "demo is finished: it has come to its end.\nIts model is kept"),
    ],
)
def test_a_federation_is_explained_from_its_last_words(row: Federation, text: str) -> None:
    told = explain_federation.explained(row, None)
    assert explain_federation.in_words(told).startswith(text)
    machine = json.loads(explain_federation.for_machines(told, "json"))
    assert (machine["kind"], machine["federation"], machine["state"]) == ("FederationExplanation", "demo", row.state)
