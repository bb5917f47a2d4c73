"""The compose file's hub and one of its sites as real NATS servers: who has no key says nothing, and who has one says
what is its own, at home and across the leaf."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats.errors
import pytest
from nats.aio.client import Client

from deploy.compose.__main__ import SITES, rendered
from tests.charts.nats_fleet import server
from windfall.cli.fleet_nkeys import laid_out, main
from windfall.cli.keys import issued, place_of
from windfall.contracts.subjects import COMMANDS_STREAM, EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.servicekit.jetstream import declare_stream
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.natsserver import free_port

pytestmark = pytest.mark.timeout(240)

SECONDS = 120
SITE = "site-a"
FACT = f"windfall.v1.window.opened.{SITE}"


@dataclass(frozen=True)
class Fleet:
    """A hub and a site that has joined it."""

    folder: Path
    urls: dict[str, str]
    monitor: str

    async def connect(self, domain: str, service: str, user: str = "", **options: Any) -> Client:
        """As a service does, with the seed that lies in its folder."""
        tls = NatsTls(*(self.folder / "tls" / name for name in ("ca.crt", "tls.crt", "tls.key")))
        seed = self.folder / domain / service / f"{user or service}.nk"
        access = Access(tls, nkey=seed, inbox=f"_INBOX.{domain}")
        name = user or service
        return await connected(self.urls[domain], access if name == "admin" else access.of(name), **options)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    list(issued(tmp_path, [place_of("tls=localhost")], timedelta(days=1), datetime.now(UTC)))
    laid_out(tmp_path, SITES)
    ports = {domain: free_port() for domain in (HUB, SITE)}
    leaf, monitor = free_port(), free_port()
    async with AsyncExitStack() as running:
        for domain, port in ports.items():
            home = tmp_path / "servers" / domain
            (home / "etc" / "nats").mkdir(parents=True)
            (home / "data").mkdir()
            (home / "data" / "nkeys.conf").write_text((tmp_path / domain / "nats" / "nkeys.conf").read_text())
            text = rendered(domain)
            for there, here in {
                "/etc/windfall/tls": f"{tmp_path}/tls",
                "nats-of-the-hub:4222": f"127.0.0.1:{port}",
                "0.0.0.0:4222": f"127.0.0.1:{port}",
                "0.0.0.0:7422": f"127.0.0.1:{leaf}",
                "nats-hub:7422": f"localhost:{leaf}",
                "127.0.0.1:8222": f"127.0.0.1:{monitor if domain == HUB else free_port()}",
                'store_dir: "/data"': f'store_dir: "{home}/data"',
            }.items():
                text = text.replace(there, here)
            config = home / "etc" / "nats" / "nats.conf"
            config.write_text(text)
            await running.enter_async_context(server(config, domain))
        urls = {domain: f"tls://localhost:{port}" for domain, port in ports.items()}
        yield Fleet(tmp_path, urls, f"http://127.0.0.1:{monitor}")


async def test_a_site_joins_by_its_own_seed_and_its_facts_reach_the_hub(fleet: Fleet) -> None:
    async with asyncio.timeout(SECONDS):
        admin = await fleet.connect(HUB, "admin")
        watcher = await fleet.connect(SITE, "energy-watcher")
        for spec in site_streams(SITE):
            await declare_stream(watcher.jetstream(), spec)
        for spec in hub_streams((SITE,)):
            await declare_stream(admin.jetstream(), spec)
        await watcher.jetstream().publish(FACT, b"{}")
        while (await admin.jetstream().stream_info(EVENTS_STREAM)).state.messages < 1:  # noqa: ASYNC110  sourcing has none
            await asyncio.sleep(0.1)
        joined = json.loads(await asyncio.to_thread(lambda: urlopen(f"{fleet.monitor}/leafz").read()))
        assert [one["account"] for one in joined["leafs"]] == ["WINDFALL"]
        for client in (admin, watcher):
            await client.close()
        await the_command_is_let_in(fleet)


async def the_command_is_let_in(fleet: Fleet) -> None:
    """As `docker compose run --rm windfall get sites`."""
    tls = fleet.folder / "tls"
    told = {
        "WINDFALL_NATS_URL": fleet.urls[HUB],
        "WINDFALL_NATS_AUTHORITY": str(tls / "ca.crt"),
        "WINDFALL_NATS_CERTIFICATE": str(tls / "tls.crt"),
        "WINDFALL_NATS_KEY": str(tls / "tls.key"),
        "WINDFALL_NATS_NKEY_FILE": str(fleet.folder / HUB / "admin" / "admin.nk"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "get", "sites"),
        env={**os.environ, **told},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.mark.parametrize(
    ("domain", "service", "user", "subject"),
    [
        (SITE, "energy-watcher", "", "windfall.v1.round.completed.demo"),
        (SITE, "energy-watcher", "", "windfall.v1.window.opened.site-b"),
        (SITE, "profiler", "", FACT),
        (SITE, "provisioner", "site-trainer", FACT),
        (SITE, "provisioner", "", f"$JS.API.STREAM.DELETE.{COMMANDS_STREAM}"),
        (HUB, "federation-coordinator", "", FACT),
    ],
)
async def test_nobody_says_what_is_somebody_else_s(
    fleet: Fleet, domain: str, service: str, user: str, subject: str
) -> None:
    refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def told(error: Exception) -> None:
        if not refused.done():
            refused.set_result(error)

    async with asyncio.timeout(SECONDS):
        client = await fleet.connect(domain, service, user, error_cb=told)
        await client.publish(subject, b"{}")
        assert "permissions violation" in str(await refused).lower()
        await client.close()


@pytest.mark.parametrize("domain", [HUB, SITE])
async def test_a_certificate_alone_lets_nobody_in(fleet: Fleet, domain: str) -> None:
    tls = NatsTls(*(fleet.folder / "tls" / name for name in ("ca.crt", "tls.crt", "tls.key")))
    with pytest.raises((nats.errors.Error, OSError)):
        await connected(fleet.urls[domain], Access(tls), allow_reconnect=False, connect_timeout=SECONDS)


def test_what_is_there_stays_and_seeds_are_for_one_user_alone(tmp_path: Path) -> None:
    assert main([str(tmp_path), *SITES]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([str(tmp_path), *SITES]) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert {oct(path.stat().st_mode & 0o777) for path in before} == {"0o600"}
    seeds = [path.read_bytes() for path in before if path.suffix == ".nk"]
    assert len(seeds) == len(set(seeds)) == 2 + 5 * len(SITES)


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path), "Site!"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "say FOLDER SITE..." in lines[0] and "Site!" in lines[1]
