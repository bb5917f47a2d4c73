"""Mutual TLS towards a real NATS server: the bus, the lease's register, and what a wrong file is told in one line."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.contracts.envelope import seal
from windfall.contracts.events import SignalRecovered
from windfall.contracts.subjects import site_streams
from windfall.servicekit.errors import Mistake
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_register import NatsRegister
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.settings import Settings, load
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.testing.fixtures import started_server

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[NatsServer]:
    async with started_server(tmp_path / "nats", tls=authority.issue("server")) as server:
        yield server


def of(authority: Authority) -> NatsTls:
    ours = authority.issue("service")
    return NatsTls(ours.authority, ours.certificate, ours.key)


def bus(server: NatsServer, tls: NatsTls) -> NatsBus:
    return NatsBus(server.url, "profiler", site_streams("site-a"), lambda mistake: None, access=Access(tls))


async def test_whoever_shows_a_certificate_of_the_authority_is_heard(
    server: NatsServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.servicekit.nats_register._TIMEOUT", timedelta(minutes=1))
    ours = bus(server, of(authority))
    await ours.start()
    event = SignalRecovered(id=uuid4(), at=NOON, site="site-a", point_time=NOON)
    await ours.publish(seal(event, "/windfall/test"))
    assert ours.ready
    await ours.stop()
    register = await NatsRegister.connected(server.url, "somebody", Access(of(authority)))
    assert await register.read() is None
    await register.close()


@pytest.mark.parametrize("stranger", ["without a certificate", "of another authority"])
async def test_nobody_else_is(server: NatsServer, authority: Authority, tmp_path: Path, stranger: str) -> None:
    tls = NatsTls(authority.path) if stranger == "without a certificate" else of(Authority(tmp_path, "theirs"))
    theirs = bus(server, tls)
    starting = asyncio.ensure_future(theirs.start())
    done, _ = await asyncio.wait([starting], timeout=2)
    assert not done
    assert not theirs.ready
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await theirs.stop()


def test_files_that_cannot_be_used_are_one_line(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"the certificates for tls://hub:4222 cannot be used .*gone\.pem"):
        NatsTls(tmp_path / "gone.pem").context("tls://hub:4222")
    with pytest.raises(Mistake, match="Write tls:// in WINDFALL_NATS_URL"):
        of(authority).context("nats://hub:4222")
    assert of(authority).context("nats://127.0.0.1:4222") is None
    with pytest.raises(Mistake, match="WINDFALL_NATS_CERTIFICATE and WINDFALL_NATS_KEY go together"):
        load(Settings, {"WINDFALL_STATE_DIR": str(tmp_path), "WINDFALL_NATS_KEY": "key.pem"})


def test_a_plain_word_over_a_network_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        NatsBus("nats://127.0.0.1:4222", "profiler", (), lambda mistake: None)
        assert not caplog.records
        NatsBus("nats://hub:4222", "profiler", (), lambda mistake: None)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["INSECURE"]
