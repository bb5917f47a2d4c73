"""A real service is scraped and pushes: both ways tell the same series, and Prometheus answers what alerts ask."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.charts.value_sets import of_kind
from tests.prometheus import prometheus
from tests.test_dashboards import RULES
from windfall.servicekit import instruments as m
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.collector import Collector, collecting

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 60
AGAIN_S = 0.1
Series = tuple[str, frozenset[tuple[str, str]]]
"""Name, and labels but for those that say where it comes from."""


@asynccontextmanager
async def watcher(server: NatsServer, folder: Path, collector: Collector) -> AsyncIterator[str]:
    """Where the metrics of an energy-watcher are."""
    told = {
        "WINDFALL_SITE": "site-a",
        "WINDFALL_STATE_DIR": str(folder),
        "WINDFALL_NATS_URL": server.url,
        "WINDFALL_SIGNAL": "static",
        "WINDFALL_STATIC_INTENSITY": "20",
        "WINDFALL_OPEN_BELOW": "100",
        "WINDFALL_CLOSE_ABOVE": "150",
        "WINDFALL_DWELL": "0",
        "OTEL_METRICS_EXPORTER": "otlp,prometheus",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.energy_watcher"),
        env={**os.environ, **told},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            # Another process writes them; the second one last.
            while not ((folder / "metrics.json").exists() and (folder / "health.json").exists()):
                assert process.returncode is None
                await asyncio.sleep(AGAIN_S)
        yield f"127.0.0.1:{json.loads((folder / 'metrics.json').read_text())['port']}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def scraped(address: str) -> set[Series]:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        text = (await client.get(f"http://{address}/metrics")).text
    return {
        series(sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name != "target_info"
    }


def series(name: str, labels: dict[str, str]) -> Series:
    kept = {key: value for key, value in labels.items() if key not in ("job", "instance")}
    if "le" in kept:
        kept["le"] = str(float(kept["le"]))
    return name, frozenset(kept.items())


async def test_what_is_scraped_is_what_is_pushed(nats_server: NatsServer, tmp_path: Path) -> None:
    async with collecting() as collector, watcher(nats_server, tmp_path / "state", collector) as address:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                pulled = await scraped(address)
                pushed = {series(one.name, dict(one.labels)) for one in collector.series()}
                names = {name for name, _ in pulled}
                # The last one is what nothing was lost is told by.
                expected = {m.WINDOW_OPEN.prometheus, f"{m.PUBLISHED.prometheus}_bucket", m.CONSUMERS_LOST.prometheus}
                if pulled == pushed and expected <= names:
                    break
                await asyncio.sleep(AGAIN_S)
        assert not collector.undeclared
        if shutil.which("prometheus"):
            async with prometheus(tmp_path, relabelled(address), [RULES]) as url:
                await answers_what_alerts_ask(url)


def relabelled(address: str) -> dict[str, Any]:
    """Scraped as the site's PodMonitor says."""
    (monitor,) = (
        one for one in of_kind("site/prometheus", "PodMonitor") if one["metadata"]["name"] == "one-energy-watcher"
    )
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    relabelings = [
        {"target_label": one["targetLabel"], "replacement": one["replacement"]} for one in endpoint["relabelings"]
    ]
    return {"job_name": "pods", "static_configs": [{"targets": [address]}], "relabel_configs": relabelings}


async def answers_what_alerts_ask(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        lag = f"sum by (job, windfall_stream) ({m.LAG.prometheus})"
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await result(client, lag)):  # noqa: ASYNC110  it has no event to wait for
                await asyncio.sleep(AGAIN_S)
        assert {one["metric"]["job"] for one in found} == {"windfall/energy-watcher"}
        for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                await result(client, rule["expr"])
        about = await result(client, 'target_info{job="windfall/energy-watcher"}')
        assert [one["metric"]["service_name"] for one in about] == ["energy-watcher"]


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
