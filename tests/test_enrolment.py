"""Enrolment at a real hub: how a site gets in, every way in which it does not, and how it is shut out."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import nats.errors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.hub_and_site import COMMAND, HubProcess, hub, told
from tests.keyed_servers import running as nats_server
from windfall.cli.identity import token
from windfall.cli.identity.folders import SiteFolder
from windfall.cli.identity.hub_keeping import SERVED
from windfall.cli.identity.joining import enrol
from windfall.cli.identity.keeping import mend, renew
from windfall.cli.identity.signing import CERTIFIED, LEAF, requested
from windfall.contracts.subjects import HUB, SITE_SERVICES
from windfall.contracts.v1 import enrolment_pb2 as pb
from windfall.contracts.v1 import link_probe_pb2 as probe
from windfall.contracts.v1.enrolment_pb2_grpc import EnrolmentStub
from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeStub, add_LinkProbeServicer_to_server
from windfall.servicekit import nkey
from windfall.servicekit.errors import Mistake
from windfall.servicekit.keyed_server import Hub, KeyedServer
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.testing.proxy import Proxy
from windfall.servicekit.tls import Tls

SECONDS = 120.0


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[HubProcess]:
    async with hub(tmp_path / "hub", "--approve") as made:
        yield made


async def joined(at: HubProcess, folder: Path, shown: str) -> tuple[int, str]:
    """Enrol as `windfall site join` does, and start nothing: exit code, and what was said."""
    settings = {"WINDFALL_SITE_DIR": str(folder), "WINDFALL_HUB": at.enrolment, "WINDFALL_TOKEN": shown}
    process = await asyncio.create_subprocess_exec(
        COMMAND[0],
        *("-m", "windfall.cli.identity.joining"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **settings},
    )
    async with asyncio.timeout(SECONDS):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode().strip()


async def test_a_site_is_enrolled_renewed_and_shut_out(fleet: HubProcess, tmp_path: Path) -> None:
    site = SiteFolder(tmp_path / "quebec")
    code, said = await joined(fleet, site.path, await fleet.site("token", "quebec"))
    assert (code, said) == (0, "windfall: quebec is enrolled in demo")
    assert [one["site"] for one in (await fleet.ask("roster"))["members"]] == ["quebec"]

    # Private keys and seeds lie at the site alone.
    own = [path for pattern in ("keys/*/tls.key", "nkeys/*.nk") for path in site.path.glob(pattern)]
    assert len(own) == len(CERTIFIED) + len(SITE_SERVICES) + 2
    # The last line of a key in PEM is its public half.
    secrets = {line for path in own for line in path.read_bytes().split(b"\n") if len(line) in (58, 64)}
    assert len(secrets) == 2 * len(CERTIFIED) + len(SITE_SERVICES) + 2
    kept = [path.read_bytes() for path in fleet.folder.path.rglob("*") if path.is_file()]
    assert not any(secret in content for secret in secrets for content in kept)
    assert all(path.stat().st_mode & 0o077 == 0 for path in own)

    # Its NATS server joins, and its gRPC is believed, by what it got.
    found = site.read()
    tls = site.tls(LEAF)
    seed = nkey.read(site.nkeys / "leaf.nk").seed
    server = KeyedServer("quebec", free_port(), tmp_path / "nats", _users(site), tls, Hub(found.leaf, seed))
    guarded = fleet.folder.tls("federation-coordinator", fleet.folder.revoked)
    added = partial(add_LinkProbeServicer_to_server, LinkProbeServicer())
    door = await serve("127.0.0.1:0", [added], guarded)
    channel = connect(f"localhost:{door.port}", site.tls("site-trainer"))
    stub: Any = LinkProbeStub(channel)
    async with nats_server(server), fleet.admin() as admin:
        reached = partial(_leaf_answers, admin, "quebec")
        await _until(reached, True)
        await stub.Echo(probe.EchoMessage(), timeout=SECONDS)

        before = _shown(site.tls("site-trainer"))
        await renew(site, found, "site-trainer")
        after = _shown(site.tls("site-trainer"))
        assert before.serial_number != after.serial_number and before.public_key() != after.public_key()
        # The same channel, and no restart.
        await stub.Echo(probe.EchoMessage(), timeout=SECONDS)

        await fleet.site("revoke", "quebec", "--reason", "sold", "--yes")
        await _until(reached, False)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Echo(probe.EchoMessage(), timeout=SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED and "revoked" in str(refused.value.details())
    with pytest.raises(Mistake, match="revoked"):
        await renew(site, found, "site-trainer")
    await channel.close()
    await door.stop()
    told = [entry["what"] for entry in (await fleet.ask("roster"))["history"]]
    assert told == ["token", "asked", "enrolled", "renewed", "revoked"]


@pytest.mark.timeout(600)
async def test_certificates_of_seconds_are_renewed_at_both_ends_while_everything_runs(tmp_path: Path) -> None:
    """The keepers of a site and of the hub, and what reads their files: each connection that is made anew shows a
    certificate of which the first has long run out."""
    seconds = 75
    async with hub(tmp_path / "hub", "--approve", "--days", str(seconds / 86400)) as fleet:
        site = SiteFolder(tmp_path / "quebec")
        code, _ = await joined(fleet, site.path, await fleet.token("quebec"))
        assert code == 0
        found = site.read()
        first = {place: _shown(place) for place in (*map(site.tls, CERTIFIED), *map(fleet.folder.tls, SERVED))}
        seed = nkey.read(site.nkeys / "leaf.nk").seed
        async with Proxy(found.leaf) as link, _keeper(site) as keeper:
            way = Hub(f"localhost:{link.address.rpartition(':')[2]}", seed)
            server = KeyedServer("quebec", free_port(), site.nats, _users(site), site.tls(LEAF), way)
            async with nats_server(server), fleet.admin() as admin:
                reached = partial(_leaf_answers, admin, "quebec")
                await _until(reached, True)
                last = max(one.not_valid_after_utc for one in first.values())

                async def renewed() -> bool:
                    return datetime.now(UTC) > last and all(
                        _shown(place).serial_number != before.serial_number for place, before in first.items()
                    )

                await _until(renewed, True)
                # The leaf must show what its keeper was given, and believes only what the hub's keeper made.
                for _ in range(2):
                    before = link.connections
                    link.cut()
                    await _until(partial(_more, link, before), True)
                    await _until(reached, True)
                assert keeper.returncode is None
                await enrol(SiteFolder(tmp_path / "texas"), fleet.enrolment, token.read(await fleet.token("texas")))


async def test_a_tenant_comes_with_a_site_and_goes_and_nobody_else_notices(fleet: HubProcess, tmp_path: Path) -> None:
    here = ("--dir", str(fleet.folder.path))
    async with fleet.admin() as admin:
        line = admin.stats["reconnects"], admin.client_id
        code, out, err = await told(
            *("tenant", "add", "lab", "--federation", "gcn", "--coordinator", "lab.example.org:9500", *here)
        )
        assert code == 0 and "site token SITE --tenant lab" in out, err
        site = SiteFolder(tmp_path / "texas")
        await enrol(site, fleet.enrolment, token.read(await fleet.site("token", "texas", "--tenant", "lab")))
        found = site.read()
        assert (found.federation, found.coordinator) == ("gcn", "lab.example.org:9500")
        # The default tenant's coordinator is told of its own sites, and of what they lend.
        lent = {"fact": "window.opened.quebec", "lender": "default", "borrower": "lab"}
        await fleet.ask("lend", lent=lent, ends=False)
        assert fleet.folder.sites.read_text(encoding="utf-8") == ""
        assert fleet.folder.lends.read_text(encoding="utf-8") == "lab:window.opened.quebec\n"
        way = Hub(found.leaf, nkey.read(site.nkeys / "leaf.nk").seed)
        server = KeyedServer("texas", free_port(), tmp_path / "nats", _users(site), site.tls(LEAF), way)
        access = Access(nkey=fleet.folder.tenant("lab") / "admin.nk", inbox=f"_INBOX.{HUB}")
        lab = await connected(
            f"nats://127.0.0.1:{fleet.nats_port}", access, allow_reconnect=False, connect_timeout=SECONDS
        )
        async with nats_server(server):
            await _until(partial(_leaf_answers, lab, "texas"), True)
            assert not await _leaf_answers(admin, "texas")
        code, out, _ = await told("tenant", "list", *here)
        row = next(one.split() for one in out.splitlines() if one.startswith("lab"))
        told_of_it = ["lab", "texas", "gcn", "lab.example.org:9500", "1", "GiB", "default:window.opened.quebec"]
        assert (code, row) == (0, told_of_it), out
        await fleet.ask("revoke", site="texas", reason="over")
        code, out, err = await told("tenant", "remove", "lab", "--yes", *here)
        assert code == 0, err

        async def there() -> bool:
            return bool(lab.is_connected)

        await _until(there, False)
        await admin.flush()
        assert (admin.stats["reconnects"], admin.client_id) == line
        code, _, err = await told("tenant", "remove", "lab", "--yes", *here)
        assert code != 0 and "no tenant lab is here" in err


async def test_who_died_between_the_two_files_of_a_renewal_goes_on_with_the_pair_before(
    fleet: HubProcess, tmp_path: Path
) -> None:
    site = SiteFolder(tmp_path / "quebec")
    await enrol(site, fleet.enrolment, token.read(await fleet.token("quebec")))
    files = site.tls("profiler")
    key, shown = files.key.read_bytes(), _shown(files).serial_number
    files.key.with_name("tls.before.key").write_bytes(key)
    files.key.write_bytes(site.tls("site-trainer").key.read_bytes())
    mend(site)
    assert files.key.read_bytes() == key
    await renew(site, site.read(), "profiler")
    assert _shown(files).serial_number != shown
    assert sorted(path.name for path in files.key.parent.glob("tls*")) == ["tls.crt", "tls.key"]


def _shown(files: Tls) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


@asynccontextmanager
async def _keeper(site: SiteFolder) -> AsyncIterator[asyncio.subprocess.Process]:
    """What `windfall site join` starts beside a site's services."""
    process = await asyncio.create_subprocess_exec(
        COMMAND[0],
        *("-m", "windfall.cli.identity.keeping"),
        env={**os.environ, "WINDFALL_SITE_DIR": str(site.path)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _leaf_answers(admin: Any, site: str) -> bool:
    try:
        return bool((await admin.request(f"$JS.{site}.API.INFO", b"", timeout=1)).data)
    except (TimeoutError, nats.errors.Error):
        return False


async def _more(link: Proxy, before: int) -> bool:
    return link.connections > before


def _users(site: SiteFolder) -> dict[str, str]:
    return {name: nkey.read(site.nkeys / f"{name}.nk").public for name in SITE_SERVICES}


async def _until(what: Callable[[], Awaitable[bool]], wanted: bool) -> None:
    async with asyncio.timeout(SECONDS):
        while await what() is not wanted:  # noqa: ASYNC110 - a server says nothing when a leaf comes or goes
            await asyncio.sleep(0.05)


async def test_every_mistake_is_one_line_with_its_cure(fleet: HubProcess, tmp_path: Path) -> None:
    good = await fleet.token("quebec")
    shown = token.read(good)

    async def refused(text: str, *parts: str, at: str = fleet.enrolment) -> None:
        with pytest.raises(Mistake) as mistake:
            await enrol(SiteFolder(tmp_path / "refused"), at, token.read(text))
        said = str(mistake.value)
        assert "\n" not in said and all(part in said for part in parts), said

    await refused(good[:-5], "no token, or only a part", "Copy all")
    await refused(token.new("quebec", shown.fingerprint).written(), "gave no such token", "site token quebec")
    await refused(token.OneTime("texas", shown.secret, shown.fingerprint).written(), "for quebec, not for texas")
    await refused(
        token.OneTime("quebec", shown.secret, b"x" * 32).written(), "another fingerprint", "Check the address"
    )
    await refused(await fleet.token("late", 1e-6), "expired at", "another one")
    await enrol(SiteFolder(tmp_path / "quebec"), fleet.enrolment, shown)
    await refused(good, "used already, with other keys")
    await refused(good, "no hub answers at 127.0.0.2", at=f"127.0.0.2:{free_port()}")

    for words, parts in (
        (("revoke", "texas", "--yes"), ("no site texas is enrolled", "site list")),
        (("token", "Texas!"), ("names no site",)),
    ):
        code, _, said = await told("site", *words, "--dir", fleet.folder.path)
        assert code != 0 and said.count("\n") == 0 and all(part in said for part in parts), said
    code, _, said = await told("site", "list", "--dir", tmp_path / "nowhere")
    assert code == 3 and "there is no hub in" in said
    code, _, said = await told("site", "join", fleet.enrolment, "--dir", tmp_path / "fresh")
    assert code == 3 and "no enrolled site" in said and "--token" in said


async def test_what_no_windfall_would_send_is_refused(fleet: HubProcess) -> None:
    shown = token.read(await fleet.token("quebec"))
    root = (fleet.folder.authority / "ca.crt").read_bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    public = nkey.new().public

    def asked(**changed: Any) -> pb.EnrolRequest:
        mine = pb.SigningRequest(service=LEAF, request=requested("quebec", LEAF, key))
        told = {"site": "quebec", "secret": shown.secret, "requests": [mine], "leaf_nkey": public}
        return pb.EnrolRequest(**{**told, "at_unix_ms": round(time.time() * 1000), **changed})

    texas = pb.SigningRequest(service=LEAF, request=requested("texas", LEAF, key))
    forged = bytearray(requested("quebec", LEAF, key))
    forged[-1] ^= 1
    tries = {
        "is for texas, and the token for quebec": asked(requests=[texas]),
        "60 min behind the hub's": asked(at_unix_ms=round((time.time() - 3600) * 1000)),
        "is no service of a site": asked(requests=[pb.SigningRequest(service="root", request=b"")]),
        "cannot be read": asked(requests=[pb.SigningRequest(service=LEAF, request=b"\x30\x00")]),
        "not signed with the key": asked(requests=[pb.SigningRequest(service=LEAF, request=bytes(forged))]),
        "too many or too large": asked(requests=[pb.SigningRequest(service=LEAF, request=b"x" * 5000)]),
        "no signing requests": asked(requests=[]),
        "no public nkey": asked(leaf_nkey='U" } ] }'),
        "names no site": asked(site="a.b"),
        "no instant": asked(at_unix_ms=2**62),
    }
    async with grpc.aio.secure_channel(fleet.enrolment, grpc.ssl_channel_credentials(root)) as channel:
        stub = EnrolmentStub(channel)
        for part, request in tries.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in stub.Enrol(request):
                    pass
            assert part in str(refused.value.details()), (part, refused.value.details())
        # The token is as good as before.
        (admission,) = [reply.admission async for reply in stub.Enrol(asked())]
        made = x509.load_der_x509_certificate(admission.certificates[0].certificate)
        usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [one.dotted_string for one in usage] == ["1.3.6.1.5.5.7.3.2"], "it opens connections, and serves none"
        # Whoever holds a certificate, and not its key, renews nothing.
        other = ec.generate_private_key(ec.SECP256R1())
        theirs, wanted = admission.certificates[0].certificate, requested("quebec", LEAF, other)
        wrong = pb.RenewRequest(certificate=theirs, request=wanted, signature=b"no")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Renew(wrong)
        assert "does not hold the certificate" in str(refused.value.details())


async def test_a_person_approves_and_a_hub_that_was_killed_goes_on(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(4)]
    async with _hub(tmp_path, ports) as before:
        waiting = asyncio.create_task(joined(before, tmp_path / "quebec", await before.token("quebec")))

        async def asks() -> bool:
            return bool((await before.ask("roster"))["waiting"])

        await _until(asks, True)
        assert not (await before.ask("roster"))["members"]
        assert "quebec" in await before.site("requests")
        await before.site("approve", "quebec")
        assert (await waiting)[0] == 0
        before.running.process.kill()
        await before.running.process.wait()
    page = free_port()
    async with _hub(tmp_path, ports, "--web", "--web-port", str(page)) as after:
        assert "quebec" in await after.site("list")
        await after.running.says(f"the page is at http://127.0.0.1:{page}/")
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{page}/") as shown:
            assert shown.status == 200 and "<title>Windfall" in await shown.text()
        assert '"allowed_connection_types": ["LEAFNODE"]' in (after.folder.nats / "nats.conf").read_text()


@asynccontextmanager
async def _hub(tmp_path: Path, ports: list[int], *words: str) -> AsyncIterator[HubProcess]:
    async with hub(tmp_path / "hub", *words, ports=ports) as made:
        yield made
