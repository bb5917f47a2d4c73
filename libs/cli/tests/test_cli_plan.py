"""``windfall plan --dry-run``: the coordinator's planner over what a server's sites have told, and nothing said."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.commanded import ran
from windfall.cli.server import connection, declared, last_sequence, store
from windfall.contracts.envelope import seal
from windfall.contracts.events import SignalForecast, SignalKind
from windfall.contracts.subjects import EVENTS_STREAM, HUB
from windfall.energy.power import PUBLISHED
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLEAN_FROM, CLEAN_UNTIL = 2, 6
"""Hours after noon."""
PLAN = (
    *("plan", "demo", "--dry-run", "--at", NOON.isoformat(), "--deadline", (NOON + timedelta(hours=12)).isoformat()),
    *("--work-tokens", "3000", "--tokens-per-hour", "1000"),
)


@pytest.fixture
async def hub(nats_server: NatsServer) -> AsyncIterator[str]:
    """A hub that sources one site."""
    here = replace(nats_server.plan, domain=HUB)
    site = NatsServer(ServerPlan("site-a", free_port(), here.store.parent / "a"), here.store.parent / "nats-a")
    await site.start()
    await declared([here, site.plan])
    yield nats_server.url
    await site.stop()


async def tell(url: str, kind: SignalKind, values: list[float]) -> None:
    said = SignalForecast(
        id=uuid4(), at=NOON, site="site-a", kind=kind, issued_at=NOON, step_s=3600, values=tuple(values)
    )
    async with connection(url) as client:
        await store(client, seal(said, "/test"))


async def test_the_clean_hours_are_planned_and_nothing_is_said(hub: str) -> None:
    grams = [30.0 if CLEAN_FROM <= hour < CLEAN_UNTIL else 600.0 for hour in range(12)]
    await tell(hub, SignalKind.AVERAGE, grams)
    await tell(hub, SignalKind.PRICE, [100.0] * 12)
    async with connection(hub) as client:
        before = await last_sequence(client, EVENTS_STREAM)
    code, out, err = await ran(*PLAN, "-o", "json", url=hub)
    assert (code, err) == (0, "")
    (stretch,) = json.loads(out)["items"]
    starts, ends = datetime.fromisoformat(stretch["starts_at"]), datetime.fromisoformat(stretch["ends_at"])
    assert NOON + timedelta(hours=CLEAN_FROM) <= starts < ends <= NOON + timedelta(hours=CLEAN_UNTIL)
    kwh = PUBLISHED.training_kw * ((ends - starts) / timedelta(hours=1))
    assert stretch["site"] == "site-a"
    assert stretch["energy_kwh"] == pytest.approx(kwh)
    assert stretch["emissions_g"] == pytest.approx(30 * kwh)
    assert stretch["cost_eur"] == pytest.approx(kwh * 0.1)
    code, out, _ = await ran(*PLAN, url=hub)
    head, *_ = out.splitlines()
    assert (code, head.split()) == (0, ["SITE", "STARTS", "ENDS", "KWH", "GCO2", "EUR"])
    async with connection(hub) as client:
        assert await last_sequence(client, EVENTS_STREAM) == before


async def test_what_keeps_it_from_planning_is_one_line(hub: str) -> None:
    code, _, err = await ran(*PLAN, url=hub)
    assert (code, err) == (2, "windfall: nothing was said yet. Start energy-watchers that have a forecast\n")
    await tell(hub, SignalKind.AVERAGE, [30.0])
    code, _, err = await ran(*PLAN, url=hub)
    assert code == 0
    late = [NOON.replace(day=9).isoformat() if one == NOON.isoformat() else one for one in PLAN]
    code, _, err = await ran(*late, url=hub)
    assert (code, "no forecast counts (site-a: its forecast is" in err) == (2, True)
    code, _, err = await ran(*PLAN[:-2], url=hub)
    assert (code, err.count("Say --tokens-per-hour")) == (2, 1)
    code, _, err = await ran(*(one for one in PLAN if one != "--dry-run"), url=hub)
    assert (code, "--dry-run" in err, err.count("\n")) == (2, True, 1)
