"""``windfall keys`` and ``windfall stage``: what a fleet in containers stands on."""

import asyncio
import os
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from windfall.cli.keys import as_sites, issued, place_of
from windfall.cli.preparation import Asked
from windfall.cli.staging import staged
from windfall.energy.signals import sites_of
from windfall.servicekit.clock import ReplayClock, parse_clock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.signing import authorities, proven, signer_of
from windfall.servicekit.tls import Tls

NOW = datetime.now(UTC)
LASTS = timedelta(days=90)


def make(folder: Path, *places: str, now: datetime = NOW) -> list[str]:
    return list(issued(folder, [place_of(place) for place in places], LASTS, now))


def of(folder: Path, place: str) -> Tls:
    return Tls(folder / place / "tls.crt", folder / place / "tls.key", folder / place / "ca.crt")


def serial(folder: Path, place: str) -> int:
    return x509.load_pem_x509_certificate(of(folder, place).certificate.read_bytes()).serial_number


async def test_both_ends_of_grpc_and_of_nats_believe_each_other(tmp_path: Path) -> None:
    make(tmp_path, "hub=coordinator", "site-a")
    server = await serve("127.0.0.1:0", [], of(tmp_path, "hub"))
    async with connect(f"localhost:{server.port}", of(tmp_path, "site-a")) as channel:
        await channel.channel_ready()
    await server.stop()
    plan = ServerPlan("hub", free_port(), tmp_path / "store", tls=of(tmp_path, "hub"))
    nats = NatsServer(plan, tmp_path / "nats")
    await nats.start()
    await nats.stop()


def test_the_certificate_of_a_site_names_it_and_signs(tmp_path: Path) -> None:
    def made(*names: str) -> list[str]:
        places = as_sites([place_of("hub=coordinator"), place_of("quebec")], names)
        return list(issued(tmp_path, places, LASTS, NOW))

    made()
    assert signer_of(of(tmp_path, "quebec"), "quebec") is None
    before = serial(tmp_path, "quebec"), serial(tmp_path, "hub")
    made("quebec")
    assert serial(tmp_path, "quebec") != before[0] and serial(tmp_path, "hub") == before[1]
    signer = signer_of(of(tmp_path, "quebec"), "quebec")
    assert signer is not None
    certificate, signature = signer.sign(b"said")
    trusted = authorities(of(tmp_path, "hub").authority)
    assert proven(b"said", signature, certificate, trusted, NOW + timedelta(days=1)) == "quebec"
    assert all("good until" in line and "made" not in line for line in made("quebec"))
    with pytest.raises(Mistake, match="'texas' is said to be a site, and is none of the places"):
        made("texas")


def test_a_strict_client_finds_nothing_to_refuse(tmp_path: Path) -> None:
    make(tmp_path, "hub=coordinator,10.0.0.7")
    theirs = ssl.create_default_context(cafile=of(tmp_path, "hub").authority)
    theirs.verify_flags |= ssl.VERIFY_X509_STRICT
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(of(tmp_path, "hub").certificate, of(tmp_path, "hub").key)
    for name in ("coordinator", "localhost", "10.0.0.7", "127.0.0.1"):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = theirs.wrap_bio(there, back, server_hostname=name)
        server = ours.wrap_bio(back, there, server_side=True)
        for _ in range(4):
            for end in (client, server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert client.version() == "TLSv1.3"


def test_a_key_is_its_owners_alone(tmp_path: Path) -> None:
    make(tmp_path, "site-a")
    for key in (tmp_path / "site-a" / "tls.key", tmp_path / "authority" / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_what_is_good_stays_and_the_rest_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path, "hub", "site-a=one")
    hub, site = serial(tmp_path, "hub"), serial(tmp_path, "site-a")
    said = make(tmp_path, "hub", "site-a=two")
    assert ("good until" in said[0], "made" in said[1]) == (True, True)
    assert serial(tmp_path, "hub") == hub
    assert serial(tmp_path, "site-a") != site
    make(tmp_path, "hub", now=NOW + LASTS * 0.6)
    assert serial(tmp_path, "hub") == hub
    make(tmp_path, "hub", now=NOW + LASTS * 0.7)
    assert serial(tmp_path, "hub") != hub


def test_another_authority_signs_everything_anew(tmp_path: Path) -> None:
    make(tmp_path, "hub")
    hub = serial(tmp_path, "hub")
    for left in (tmp_path / "authority").iterdir():
        left.unlink()
    make(tmp_path, "hub")
    assert serial(tmp_path, "hub") != hub
    (tmp_path / "authority" / "ca.key").write_text("no key")
    with pytest.raises(Mistake, match=r"the authority in .* cannot be used"):
        make(tmp_path, "hub")


@pytest.mark.parametrize("text", ["", "=host", "Site A", "authority"])
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(Mistake, match=r"no place|the authority lies"):
        place_of(text)


def test_a_replay_is_laid_out_once(tmp_path: Path) -> None:
    first = staged(tmp_path, Asked(), 120, NOW)
    clock = parse_clock(f"file:{tmp_path / 'clock'}")
    assert isinstance(clock, ReplayClock)
    assert (clock.wall_start, clock.speed) == (NOW, 120)
    sites = sites_of((tmp_path / "trace.csv").read_text().splitlines())
    texts = [(tmp_path / "data" / name / "text.txt").read_text() for name in (*sites, "held-out")]
    assert len(set(texts)) == len(sites) + 1
    assert first.startswith(f"{', '.join(sites)}: 12 minutes of replay")
    assert "goes on" in staged(tmp_path, Asked(), 60, NOW + timedelta(hours=1))
    assert parse_clock(f"file:{tmp_path / 'clock'}") == clock


def test_a_clock_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        parse_clock(f"file:{tmp_path / 'clock'}")
    (tmp_path / "clock").write_text(f"file:{tmp_path / 'clock'}")
    with pytest.raises(ValueError, match="is neither"):
        parse_clock(f"file:{tmp_path / 'clock'}")


async def test_the_command_speaks_tls_and_says_nothing_of_its_end(tmp_path: Path) -> None:
    make(tmp_path, "hub")
    ours = of(tmp_path, "hub")
    server = NatsServer(ServerPlan("hub", free_port(), tmp_path / "store", tls=ours), tmp_path / "nats")
    await server.start()
    files = {"AUTHORITY": ours.authority, "CERTIFICATE": ours.certificate, "KEY": ours.key}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "dlq", "list", "--server", server.url),
        env={**os.environ, **{f"WINDFALL_NATS_{name}": str(path) for name, path in files.items()}},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    await server.stop()
    assert said.decode().startswith("windfall: the server has no stream DEAD")
