"""``windfall doctor``: each look by itself, and all of them on a real server."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from windfall.cli.doctor import bus, fleet, machine
from windfall.cli.doctor.examining import examined
from windfall.cli.doctor.finding import Finding, Level, for_machines, good, in_words, warning, worst
from windfall.cli.links import Measured
from windfall.cli.recording import Said
from windfall.cli.resources.sites import Site
from windfall.cli.server import connection, declared, store
from windfall.contracts.envelope import Letter
from windfall.contracts.hardware import Hardware
from windfall.contracts.subjects import DEAD_PREFIX, HUB
from windfall.servicekit.natsserver import NatsServer, free_port

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = 1_000_000_000


def source(**fields: Any) -> dict[str, Any]:
    return {"name": "EVENTS", "external": {"api": "$JS.site-a.API"}, "active": SECOND, "lag": 0, **fields}


@pytest.mark.parametrize(
    ("found", "level", "says"),
    [
        (machine.disk(100 * 2**30, "here"), Level.OK, "100.0 GiB free here"),
        (machine.disk(2**30, "here"), Level.WARNING, "1.0 GiB free here"),
        (machine.disk(2**20, "here"), Level.FAILURE, "0.0 GiB free here"),
        (machine.certificate("ours", NOON + timedelta(days=90), NOON), Level.OK, "ours is valid until 2026-04-01"),
        (machine.certificate("ours", NOON + timedelta(days=3), NOON), Level.WARNING, "valid until 2026-01-04, 3 days"),
        (machine.certificate("ours", NOON - timedelta(days=1), NOON), Level.FAILURE, "ours ran out on 2025-12-31"),
        (bus.of_clock(NOON, NOON + timedelta(seconds=0.2)), Level.OK, "200 ms apart"),
        (bus.of_clock(NOON, NOON - timedelta(seconds=9)), Level.WARNING, "this machine is 9.0 s behind the server"),
        (bus.of_source(source(), HUB), Level.OK, "heard 1 s ago"),
        (bus.of_source(source(active=-1), HUB), Level.WARNING, "has never been heard"),
        (bus.of_source(source(active=90 * SECOND), HUB), Level.WARNING, "not heard for 90 s"),
        (bus.of_source(source(lag=5000), HUB), Level.WARNING, "5,000 events behind"),
    ],
)
def test_one_look(found: Finding, level: Level, says: str) -> None:
    assert (found.level, bool(found.cure)) == (level, level is not Level.OK)
    assert says in found.says


def test_a_stream_that_fills_up_and_one_that_is_not_there() -> None:
    info = {"state": {"bytes": 80, "messages": 3}, "config": {"max_bytes": 100}}
    assert [one.level for one in bus.of_stream("EVENTS", info, HUB, NOON)] == [Level.WARNING]
    assert [one.level for one in bus.of_stream("EVENTS", {"error": {}}, HUB, NOON)] == [Level.FAILURE]
    assert [one.about for one in bus.of_stream("DEAD", info, HUB, NOON)] == ["bus", "dead letters"]


def test_services_that_do_not_keep_up() -> None:
    def consumer(name: str, waiting: int, again: int, durable: bool = True) -> dict[str, Any]:
        config = {"durable_name": name} if durable else {}
        return {"name": name, "config": config, "num_pending": waiting, "num_redelivered": again}

    listed = {
        "consumers": [
            consumer("well", 3, 0),
            consumer("late", 5000, 0),
            consumer("stuck", 0, 1),
            consumer("me", 0, 0, durable=False),
        ]
    }
    found = list(bus.of_consumers("EVENTS", listed))
    assert [one.level for one in found] == [Level.OK, Level.WARNING, Level.WARNING]
    assert "takes 1 message of EVENTS again and again" in found[2].says


@pytest.mark.parametrize(
    ("site", "level"),
    [
        (Site("a"), Level.WARNING),
        (Site("a", "on", heard_at=NOON), Level.OK),
        (Site("a", "stale", heard_at=NOON), Level.FAILURE),
        (Site("a", "on", node="hindered", trouble="0 of 1 workers fit", heard_at=NOON), Level.FAILURE),
        (Site("a", "on", training="refused", trouble="US is not within CA", heard_at=NOON), Level.WARNING),
    ],
)
def test_what_a_site_says_of_itself(site: Site, level: Level) -> None:
    (found,) = fleet.of_site(site)
    assert (found.level, found.about) == (level, "a")


def test_links_and_vendor_stacks() -> None:
    (link,) = fleet.of_links({("a", HUB): Measured("a", HUB, NOON, degraded=("rtt_ms",))})
    assert (link.level, link.says) == (Level.WARNING, "its link to hub is worse than usual (rtt)")
    (stack,) = fleet.of_hardware({"a": Hardware(missing={"nvidia": "driver present, device unreachable"})})
    assert "nvidia cannot be read: driver present" in stack.says
    (well,) = fleet.of_links({("a", HUB): Measured("a", HUB, NOON)})
    assert (well.level, well.says) == (Level.OK, "1 link, as wide and as near as usual")
    (whole,) = fleet.of_hardware({"a": Hardware()})
    assert whole.level is Level.OK and whole.says.startswith("0 accelerators")


def test_keys_that_others_may_use_or_that_are_not_there(tmp_path: Path) -> None:
    key = tmp_path / "tls.key"
    assert machine.secret("our key", key).level is Level.FAILURE
    key.touch(mode=0o644)
    open_to_all = machine.secret("our key", key)
    assert (open_to_all.level, open_to_all.cure) == (Level.WARNING, f"Run `chmod 600 {key}`")
    key.chmod(0o600)
    found = list(machine.look({"our certificate": tmp_path / "tls.crt", "none": None}, {"our key": key}, NOON))
    assert [one.about for one in found] == ["versions", "disk", "keys", "keys"]
    assert [one.level for one in found[2:]] == [Level.FAILURE, Level.OK]


def test_how_findings_are_shown() -> None:
    found = [good("bus", "well"), warning("disk", "1.0 GiB free here", "Free space")]
    assert in_words(found) == (
        "✓ bus   well\n! disk  1.0 GiB free here\n        → Free space\n0 failed, 1 to look at, 1 well"
    )
    document = json.loads(for_machines(found, "json"))
    assert (document["apiVersion"], document["kind"]) == ("windfall.dev/cli/v1", "FindingList")
    assert [item["level"] for item in document["items"]] == ["ok", "warning"]
    assert yaml.safe_load(for_machines(found, "yaml")) == document
    assert [json.loads(each)["kind"] for each in for_machines(found, "jsonl").splitlines()] == ["Finding"] * 2
    assert (worst(found), worst([])) == (Level.WARNING, Level.OK)


async def test_a_hub_is_looked_at(nats_server: NatsServer, recorded: Sequence[Said]) -> None:
    await declared([replace(nats_server.plan, domain=HUB)])
    async with connection(nats_server.url) as client:
        for said in recorded:
            await store(client, said.letter())
        await store(client, Letter(f"{DEAD_PREFIX}.provisioner.windfall.v1.window.opened.site-a", {}, b"nonsense"))
    found = await examined(nats_server.url)
    text = in_words(found)
    assert worst(found) is Level.WARNING
    assert "1 could not be handled" in text
    assert "EVENTS holds" in text
    assert [one.says for one in found if one.about == "site-a"] == ["window off, drained"]
    assert [one.about for one in found].count("clock") == 1


async def test_a_server_that_is_away_is_a_finding_and_ends_with_1(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "doctor"),
        env={
            **os.environ,
            "WINDFALL_NATS_URL": f"nats://127.0.0.1:{free_port()}",
            "WINDFALL_COORDINATOR": (gone := f"127.0.0.1:{free_port()}"),
        },
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 1
    text = " ".join(out.decode().split())
    assert "✗ server no NATS server at" in text
    assert "→ Start one, or give its address with --server" in text
    assert f"✗ coordinator no coordinator answers at {gone}" in text
