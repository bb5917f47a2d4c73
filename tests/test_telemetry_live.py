"""A whole fleet tells a collector what it does: one trace from wind to weights, and data for every dashboard."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.grafana.source.__main__ import BOARDS, rendered
from tests.prometheus import prometheus
from tests.test_dashboards import KNOWN, expressions, strip_labels
from windfall.contracts.events import RoundCompleted
from windfall.servicekit import instruments as m
from windfall.servicekit.instruments import ALL
from windfall.servicekit.testing.collector import Collector, collecting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SELDOM = {
    m.CERTIFICATE,
    m.CHECKPOINTS_DAMAGED,
    m.CONTRIBUTIONS_REFUSED,
    m.EPSILON,
    m.LEDGER_BROKEN,
    m.LINK_BANDWIDTH,
    m.LINK_JITTER,
    m.LINK_RTT,
    m.LINK_DEGRADED,
    m.REDELIVERED,
    m.SIGNALS_REFUSED,
    m.SIGNAL_STALE,
    m.SPANS_DROPPED,
    m.STEPS_SKIPPED,
    *(one for one in ALL if one.name.startswith("hw.")),
}
"""What a day without faults, on loopback and without a GPU, may not measure: links wait for the benchmark of a node,
and no site asks for noise."""


async def a_day(collector: Collector, out: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "demo", "--fast", "--plain", "--out", str(out)),
        env={
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()[-2000:]


async def test_a_day_reaches_the_collector_whole(tmp_path: Path) -> None:
    async with collecting() as collector:
        await a_day(collector, tmp_path / "run")
        assert not collector.undeclared
        found = {one.name for one in collector.series()}
        silent = {
            one.name for one in ALL if one not in SELDOM and not found & {one.prometheus, f"{one.prometheus}_count"}
        }
        assert sorted(silent) == []
        one_trace_from_the_wind_to_the_weights(collector)
        every_duration_of_a_round_leads_to_a_trace(collector)
        for expression in asked():
            has_data(expression, collector)
        if shutil.which("prometheus"):
            async with exposing(collector) as job, prometheus(tmp_path, job) as url:
                await answers(url)


def one_trace_from_the_wind_to_the_weights(collector: Collector) -> None:
    merged = {span.trace_id for span in collector.spans if span.name == "merge"}
    opened = {span.trace_id for span in collector.spans if span.name == "window"}
    assert merged and merged <= opened
    for trace_id in merged:
        spans = [span for span in collector.spans if span.trace_id == trace_id]
        assert {span.service for span in spans} >= {
            "energy-watcher",
            "provisioner",
            "profiler",
            "site-trainer",
            "federation-coordinator",
        }
        assert {span.attributes.get("windfall.site") for span in spans} - {None}
        assert {span.name for span in spans} >= {"window", "lease", "join", "pull", "train", "contribution", "check"}
    rounds = [span for span in collector.spans if span.name == "round"]
    assert rounds and all(set(span.links) <= opened for span in rounds)
    for one in rounds:
        parts = {span.name for span in collector.spans if span.trace_id == one.trace_id}
        published = f"send windfall.v1.{RoundCompleted.topic}"
        assert parts >= {"verify", "aggregate", "outer step", "commit", published}, parts


def every_duration_of_a_round_leads_to_a_trace(collector: Collector) -> None:
    known = {span.trace_id for span in collector.spans}
    found = [one for one in collector.series(f"{m.ROUND_PART.prometheus}_count") if one.exemplars]
    assert found
    assert {trace_id for one in found for trace_id in one.exemplars} <= known


def asked() -> Iterator[str]:
    for name in BOARDS:
        yield from expressions(json.loads(rendered(name)))


def has_data(expression: str, collector: Collector) -> None:
    names = {name for name in re.findall(r"\b\w+", strip_labels(expression)) if name in KNOWN}
    for name in names:
        if KNOWN[name] not in SELDOM:
            assert collector.series(name), f"no series for {expression}"


# --- with a real Prometheus -------------------------------------------------------------------------------------------


@asynccontextmanager
async def exposing(collector: Collector) -> AsyncIterator[dict[str, Any]]:
    """How to scrape what the collector holds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = collector.exposition().encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    source = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = f"127.0.0.1:{source.sockets[0].getsockname()[1]}"
    try:
        yield {"job_name": "windfall", "honor_labels": True, "static_configs": [{"targets": [target]}]}
    finally:
        source.close()


async def answers(url: str) -> None:
    """Every query is one that Prometheus understands, and what is not seldom has an answer."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await scraped(client)
        for expression in asked():
            names = {name for name in re.findall(r"\b\w+", strip_labels(expression)) if name in KNOWN}
            plain = re.sub(r"\$windfall_\w+", ".+", expression)
            plain = plain.replace("$__rate_interval", "1m").replace("$__range", "1h")
            got = await result(client, plain)
            if not {KNOWN[name] for name in names} & SELDOM:
                assert got, f"no data for {plain}"


async def scraped(client: httpx.AsyncClient) -> None:
    """Return once a rate can be told: after some scrapes."""
    clock = asyncio.get_running_loop()
    ends = clock.time() + 90
    while not await result(client, f"count_over_time({m.ROUND.prometheus}[1m]) > 4"):
        assert clock.time() < ends, "Prometheus scrapes nothing"
        await asyncio.sleep(0.5)  # it has no event to wait for


async def result(client: httpx.AsyncClient, expression: str) -> list[Any]:
    try:
        response = await client.get("/api/v1/query", params={"query": expression})
    except httpx.TransportError:
        return []  # it is not up yet
    if response.status_code == 503:
        return []
    body = response.json()
    assert body["status"] == "success", f"{expression}: {body}"
    found: list[Any] = body["data"]["result"]
    return found
