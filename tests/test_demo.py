"""``windfall demo`` as a person runs it: real servers, processes and training; and the same under ``kill -9``."""

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from tests import invariants
from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    NodeReleased,
    RoundCompleted,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, type_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FIELDS = {
    "rounds",
    "sites",
    "tokens",
    "loss_first",
    "loss_final",
    "bytes_up",
    "bytes_down",
    "bytes_dense_sync",
    "energy_kwh",
    "emissions_kg",
    "emissions_always_on_kg",
    "clean_energy_share",
    "duration_s",
    "model_sha256",
    "trace_ids",
}


@asynccontextmanager
async def demo(out: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A running ``windfall demo --fast`` and the URL of its hub."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "windfall.cli",
        "demo",
        "--fast",
        "--plain",
        "--out",
        str(out),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    try:
        url = ""
        while not url:
            line = (await process.stderr.readline()).decode()
            assert line, "the demo ended before it said where its hub is"
            if found := re.search(r"nats://127\.0\.0\.1:\d+", line):
                url = found[0]
        yield process, url
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


async def heard(url: str, kind: type[Message]) -> None:
    """Return when the hub has heard one more event of this kind."""
    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=1)
    try:
        jetstream = client.jetstream()
        while True:
            try:
                await jetstream.stream_info(EVENTS_STREAM)
                break
            except nats.errors.Error:
                await asyncio.sleep(0.1)
        subscription = await jetstream.subscribe(
            f"{type_of(kind)}.*",
            stream=EVENTS_STREAM,
            ordered_consumer=True,
            deliver_policy=nats.js.api.DeliverPolicy.NEW,
        )
        await subscription.next_msg(timeout=400)
    finally:
        await client.close()


def events_of(out: Path) -> list[Message]:
    """What the run folder says that happened."""
    lines = (out / "events.jsonl").read_text().splitlines()
    return [unseal(Letter("", {"content-type": "application/cloudevents+json"}, line.encode())) for line in lines]


def left_running(out: Path) -> list[str]:
    """Processes whose environment or command line names the run folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            about = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(out).encode() in about:
            found.append(entry.name)
    return found


def check(out: Path) -> dict[str, Any]:
    """Everything that must hold of every run, whatever happened to it."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert set(summary) >= FIELDS
    events = events_of(out)
    invariants.check(events)
    # What comes after its round was merged without it is refused, and that is said: a step that a site took while it
    # was still starting up, when the coordinator's death has made everybody late. Nothing else may be lost.
    late = {event.site for event in events if isinstance(event, ContributionRefused) and event.reason == "round"}
    assert {event.site for event in invariants.undelivered(events)} <= late
    rounds = [event for event in events if isinstance(event, RoundCompleted)]
    opened = [event for event in events if isinstance(event, WindowOpened)]
    assert sum(isinstance(event, NodeReleased) for event in events) == len(opened)

    (finished,) = [event for event in events if isinstance(event, FederationFinished)]
    weights = (out / "model.safetensors").read_bytes()
    header = int.from_bytes(weights[:8], "little")
    assert hashlib.sha256(weights[8 + header :]).hexdigest() == finished.model_digest == rounds[-1].model_digest
    assert hashlib.sha256(weights).hexdigest() == summary["model_sha256"]
    assert summary["loss_final"] < summary["loss_first"] - 1
    assert len(set(summary["trace_ids"])) == len(opened)
    for name in ("report.html", "run.png", "loss.png", "windows.png", "traces.jsonl"):
        assert (out / name).stat().st_size > 0
    assert not left_running(out)
    return summary


async def test_the_demo_tells_its_story(tmp_path: Path) -> None:
    out = tmp_path / "run"
    async with demo(out) as (process, _):
        assert await process.wait() == 0
    summary = check(out)
    spans = [json.loads(line) for line in (out / "traces.jsonl").read_text().splitlines()]
    for trace_id in summary["trace_ids"]:
        services = {span["resource"]["service.name"] for span in spans if span["trace_id"] == trace_id}
        assert services == {
            "energy-watcher",
            "provisioner",
            "profiler",
            "site-trainer",
            "federation-coordinator",
        }, "one window is one trace, from the signal to the model"
    named = {span["name"] for span in spans if span["resource"]["service.name"] == "site-trainer"}
    assert {"join", "pull", "train", "contribution"} <= named


async def test_nothing_is_lost_when_coordinator_and_hub_are_killed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    async with demo(out) as (process, url):
        await heard(url, ContributionAccepted)
        health = json.loads((out / "state/hub/federation-coordinator/health.json").read_text())
        os.kill(health["pid"], signal.SIGKILL)
        await heard(url, ContributionAccepted)
        (server,) = [
            pid for pid in left_running(out / "nats/hub") if b"nats-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(int(server), signal.SIGKILL)
        assert await process.wait() == 0
    check(out)
