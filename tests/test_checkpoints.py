"""``windfall checkpoint``: models seen, taken home and verified, from a coordinator's own service over real gRPC."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.torch import load_file
from torch import Tensor

from tests.commanded import ran
from windfall.cli.checkpoints import fetching
from windfall.cli.checkpoints.exporting import exported
from windfall.cli.checkpoints.listing import CHECKPOINTS, listed, meant
from windfall.cli.checkpoints.tensors import read
from windfall.cli.checkpoints.verifying import verified_file, verified_round
from windfall.cli.doctor.examining import examined
from windfall.cli.doctor.finding import Level
from windfall.cli.identity.authority import Signed, authority_in, certify, write
from windfall.cli.identity.folders import HubFolder
from windfall.cli.keys import issued, place_of
from windfall.cli.resources.showing import shown
from windfall.cli.server import connection, declared, store
from windfall.contracts.envelope import seal
from windfall.contracts.events import FederationFinished, RoundCompleted, RoundStarted
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB, hub_streams
from windfall.contracts.v1.checkpoints_pb2_grpc import add_CheckpointsServicer_to_server
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.checkpoint_service import CheckpointService
from windfall.federation_coordinator.checkpoints import KEY, Checkpoint, Kept
from windfall.federation_coordinator.federation import Best, Contribution, Federation, Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule
from windfall.servicekit.admission import identity
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.natsserver import NatsServer, free_port
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.rpc import serve
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.proxy import Proxy
from windfall.servicekit.tls import Tls

LAYOUT = Layout((TensorSpec("embed", (1024, 700)), TensorSpec("bias", (140,))))
RULE = Rule.parse("fp32", "average")
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")
ROUNDS = 4


def flat(seed: int) -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Hub:
    """A coordinator that has merged some rounds; the best model is the one that the first of them left."""

    coordinator: Coordinator
    digests: tuple[str, ...]
    """By the round that starts from it."""
    stand: Stand


def trained(folder: Path) -> Hub:
    store_ = ModelStore(folder / "models", LAYOUT, RULE)
    digests = [store_.initialise(flat(0))]
    for number in range(ROUNDS):
        message = RULE.encode(
            RULE.codec.init(LAYOUT.elements), flat(number + 1), LAYOUT.split, base=number, tokens=100, steps=1
        )[1]
        store_.contribution_path(number, "site-a", 1).write_bytes(message)
        told = {"site": "site-a", "attempt": 1, "base_round": number, "tokens": 100, "steps": 1, "loss_nats": 2.0}
        told |= {"bytes_up": len(message), "partial": False, "sha256": "0" * 64, "codec": "fp32"}
        digests.append(store_.merge(number, [Contribution.model_validate(told)]))
        if number == 0:
            assert store_.keep_best(1)
    store_.prune(ROUNDS, ())
    state = Federation(
        name="demo",
        base_digest=digests[-1],
        round=ROUNDS,
        attempts={"site-a": 1},
        best=Best(round=1, digest=digests[1], loss_nats=1.5, made_at=NOW, tokens_total=100),
    )
    current, previous = (
        Checkpoint(round=one, digest=digests[one], made_at=NOW + timedelta(hours=one), tokens_total=100 * one)
        for one in (ROUNDS, ROUNDS - 1)
    )
    journal = Journal(folder / "journal.sqlite", "/test")
    journal.commit(state={"federation": state, KEY: Kept(current=current, previous=previous)})
    bus = MemoryBus(MemoryDomain(HUB), "federation-coordinator", hub_streams(SITES))
    stand = Stand("federation-coordinator", "demo", SystemClock(), journal, bus, Outbox(journal, bus))
    coordinator = Coordinator(
        stand,
        "demo",
        Model("toy", "{}", LAYOUT),
        Policy(None, 1, timedelta(0), None),
        store_,
        digests[0],
        timedelta(minutes=1),
        asyncio.to_thread,
    )
    return Hub(coordinator, tuple(digests), stand)


@asynccontextmanager
async def served(hub: Hub, tls: Tls | None = None) -> AsyncIterator[str]:
    service = CheckpointService(hub.coordinator, SITES)
    server = await serve("127.0.0.1:0", [partial(add_CheckpointsServicer_to_server, service)], tls)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(timedelta(0))


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have contexts and keys of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("WINDFALL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return trained(tmp_path / "hub")


def quiet(_: str) -> None:
    """Nobody waits."""


async def test_a_person_sees_what_is_kept_takes_it_home_and_verifies_it(
    hub: Hub, tmp_path: Path, nats_server: NatsServer
) -> None:
    file = tmp_path / "model.safetensors"
    await _said(nats_server, hub)
    async with served(hub) as target:
        told = await ran("checkpoint", "list", "-o", "json", WINDFALL_COORDINATOR=target)
        rows = json.loads(told[1])["items"]
        assert [(row["name"], row["which"], row["tokens_total"], row["held_out_nats"]) for row in rows] == [
            ("demo/3", ["newest"], 400, None),
            ("demo/2", [], 300, None),
            ("demo/0", ["best"], 100, 1.5),
        ]
        assert [row["digest"] for row in rows] == [hub.digests[4], hub.digests[3], hub.digests[1]]
        assert {row["bytes_model"] for row in rows} == {LAYOUT.nbytes}
        assert rows[-1]["made_at"] == "2026-03-04T05:06:07+00:00"
        table = shown(CHECKPOINTS, await listed(target, ""), "table")
        assert hub.digests[4] in table and "ROUND" in table.splitlines()[0]

        wish = ("checkpoint", "export", "--coordinator", target, "--round", "best", "-o", str(file))
        code, out, err = await ran(*wish)
        assert (code, out, err) == (0, f"{file} holds demo/0: {hub.digests[1]}\n", "")
        code, _, err = await ran(*wish)
        assert code == ExitCode.USAGE and "stands already" in err and "--force" in err
        assert (await exported(target, "", "best", file, quiet, force=True)).round == 0
        said = await verified_file(nats_server.url, file)
        assert f"{file} is the model that round 0 of demo left, as round.completed said" in said
        code, out, err = await ran(
            "checkpoint", "verify", "--round", "newest", "--coordinator", target, url=nats_server.url
        )
        assert code == 0, err
        assert "as round.completed and federation.finished said" in out
    best = hub.coordinator.store.best()
    assert file.read_bytes()[-LAYOUT.nbytes :] == best.path.read_bytes()[best.data_start :]
    loaded = load_file(file)
    assert {name: tuple(one.shape) for name, one in loaded.items()} == {"embed": (1024, 700), "bias": (140,)}
    assert [one.name for one in tmp_path.glob(".*")] == []


async def test_a_bit_that_flips_is_seen_on_the_way_at_home_and_at_the_coordinator(
    hub: Hub, tmp_path: Path, nats_server: NatsServer
) -> None:
    file = tmp_path / "model.safetensors"
    await _said(nats_server, hub)
    async with served(hub) as target:
        await exported(target, "demo", "newest", file, quiet, force=False)
        assert hub.digests[4] in await verified_file(nats_server.url, file)
        _flip(file, -5)
        code, out, err = await ran("checkpoint", "verify", str(file), url=nats_server.url)
        assert (code, out) == (ExitCode.DIFFERENT, "")
        assert err.count("\n") == 1 and f"round.completed said {hub.digests[4]}" in err
        _flip(hub.coordinator.store.base(ROUNDS).path, -5)
        with pytest.raises(Mistake, match=r"and round\.completed said") as differs:
            await verified_round(nats_server.url, target, "", "newest", quiet)
        assert differs.value.exit_code is ExitCode.DIFFERENT
        with pytest.raises(Mistake, match=r"what arrived is not demo/3: .* Nothing was written") as spoilt:
            await exported(target, "demo", "3", tmp_path / "other.safetensors", quiet, force=False)
        assert spoilt.value.exit_code is ExitCode.DIFFERENT
    assert not list(tmp_path.glob("*other*")) + list(tmp_path.glob(".*other*"))


async def test_a_connection_that_breaks_midway_is_gone_on_from_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    async with served(hub) as target, Proxy(target) as link:
        link.down.cut_at = 4096 + LAYOUT.nbytes // 2
        one = await exported(link.address, "", "newest", file, quiet, force=False)
        assert one.digest == hub.digests[4] == read(file).digest
        assert link.down.cut_at is None, "it was cut"
        # What had arrived was not sent again: a little more than one model went down, and not one and a half.
        assert link.down.nbytes < LAYOUT.nbytes * 1.35


async def test_a_command_that_gave_up_goes_on_when_it_is_given_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_PATIENCE_S", 0.2)
    file, half = tmp_path / "model.safetensors", asyncio.Event()

    def held(data: bytes) -> bytes:
        if link.down.nbytes > LAYOUT.nbytes // 2:
            link.down.open.clear()
            half.set()
        return data

    async with AsyncExitStack() as life:
        target = await life.enter_async_context(served(hub))
        link = await life.enter_async_context(Proxy(target))
        link.down.spoil = held
        command = asyncio.create_task(exported(link.address, "", "newest", file, quiet, force=False))
        async with asyncio.timeout(60):
            await half.wait()
    with pytest.raises(Mistake, match="bytes are here: the same command goes on from there") as away:
        async with asyncio.timeout(60):
            await command
    assert away.value.exit_code is ExitCode.SERVER
    (part,) = tmp_path.glob(".model.safetensors.*.part")
    assert not file.exists()
    arrived = part.stat().st_size
    async with served(hub) as target, Proxy(target) as link:
        await exported(link.address, "", "newest", file, quiet, force=False)
        assert link.down.nbytes < LAYOUT.nbytes - arrived + 100_000
    assert read(file).digest == hub.digests[4]
    assert not part.exists()


async def test_who_waits_is_told_how_far_it_is(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_QUIET_S", 0.0)
    monkeypatch.setattr(fetching, "_LINES_S", 0.0)
    told: list[str] = []
    async with served(hub) as target:
        await exported(target, "", "newest", tmp_path / "model.safetensors", told.append, force=False)
    assert told[0].startswith("demo/3: 0.5 of 2.9 MB, 18%")
    assert told[-1] == "demo/3: 2.9 of 2.9 MB, 100%\n"


async def test_a_part_of_another_model_is_not_gone_on_from(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    async with served(hub) as target:
        wanted = meant(await listed(target, ""), "newest")
        part = tmp_path / f".model.safetensors.{wanted.digest[:12]}.part"
        for left in (b"", b"\x10\0", b"\x08\0\0\0\0\0\0\0{}      and more", b"\xff" * 4096):
            part.write_bytes(left)
            await exported(target, "", "newest", file, quiet, force=True)
            assert read(file).digest == hub.digests[4]


async def test_a_round_that_was_pruned_names_those_that_are_nearest(hub: Hub, tmp_path: Path) -> None:
    async with served(hub) as target:
        wish = ("checkpoint", "export", "--coordinator", target, "-o", str(tmp_path / "m"), "--round")
        code, _, err = await ran(*wish, "1")
        assert code == ExitCode.RESOURCE
        assert err == (
            "windfall: the model that round 1 left is not kept. The nearest that is kept is --round 0;"
            " there is also 2, 3\n"
        )
        code, _, err = await ran(*wish, "latest")
        assert code == ExitCode.USAGE and "write its number, best or newest" in err
        with pytest.raises(Mistake, match="there is no federation 'other' here; there is demo"):
            await listed(target, "other")


async def test_the_doctor_asks_the_coordinator(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(hub) as target:
        monkeypatch.setenv("WINDFALL_COORDINATOR", target)
        found = await examined(f"nats://127.0.0.1:{free_port()}")
    (told,) = [one for one in found if one.about == "coordinator"]
    assert told.level is Level.OK and told.says.endswith(f"models kept at {target}")


async def test_a_coordinator_that_is_away_or_nowhere_is_told_in_one_line(tmp_path: Path) -> None:
    gone = f"127.0.0.1:{free_port()}"
    code, out, err = await ran("checkpoint", "list", WINDFALL_COORDINATOR=gone)
    assert (code, out, err.count("\n")) == (ExitCode.SERVER, "", 1)
    assert f"no coordinator answers at {gone}" in err and "--coordinator" in err
    with pytest.raises(Mistake, match="nobody said where the coordinator is"):
        await listed("", "")
    with pytest.raises(Mistake, match="a model does not travel without TLS"):
        await listed("hub.example.org:9500", "")
    with pytest.raises(Mistake, match="is no address of a coordinator"):
        await listed("hub", "")
    with pytest.raises(Mistake, match="there is no file"):
        await verified_file("nats://127.0.0.1:1", tmp_path / "none")
    strange = tmp_path / "strange"
    for text in (b"", b"nonsense", b'\x0d\0\0\0\0\0\0\0{"a": [1, 2]}'):
        strange.write_bytes(text)
        with pytest.raises(Mistake, match="is no safetensors file"):
            read(strange)


async def test_who_may_read_a_model_is_who_may_train_and_an_operator(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    now = datetime.now(UTC)
    # As `windfall keys hub/keys operator` does at a hub, whose authority lies there.
    assert HubFolder(tmp_path).authority == keys / "authority"
    assert len(list(issued(keys, [place_of("hub"), place_of("operator")], timedelta(days=1), now))) == 2
    authority = authority_in(keys / "authority", now)
    for site in (*SITES[:2], "stranger"):
        write(keys / site, "tls", _of_site(site, authority, now))

    def keys_of(name: str) -> Tls:
        return Tls(keys / name / "tls.crt", keys / name / "tls.key", keys / "authority" / "ca.crt")

    def told(name: str) -> dict[str, str]:
        files = keys_of(name)
        named = {"certificate": files.certificate, "key": files.key, "authority": files.authority}
        return {f"WINDFALL_TLS_{what.upper()}": str(path) for what, path in named.items()}

    async with served(hub, keys_of("hub")) as target:
        for name, cause in (
            ("operator", ""),
            ("site-a", ""),
            ("site-b", "site-b was never admitted to demo"),
            ("stranger", "stranger is not a site of demo"),
        ):
            for variable, value in told(name).items():
                monkeypatch.setenv(variable, value)
            if not cause:
                assert len(await listed(target, "")) == 3
                continue
            with pytest.raises(Mistake, match=cause) as refused:
                await listed(target, "")
            assert refused.value.exit_code is ExitCode.SERVER
        for variable in told("operator"):
            monkeypatch.delenv(variable)
        with pytest.raises(Mistake, match="no coordinator answers"):
            await listed(target, "")

        # A context says it once; the keys for NATS hold at the coordinator, too, where it names no others.
        config = {"XDG_CONFIG_HOME": str(tmp_path / "contexts")}
        flags = [
            *("--certificate", str(keys_of("operator").certificate), "--key", str(keys_of("operator").key)),
            *("--authority", str(keys_of("operator").authority), "--server", "tls://localhost:4222"),
        ]
        code, _, err = await ran("context", "set", "hub", "--coordinator", target, *flags, **config)
        assert code == 0, err
        code, _, err = await ran("checkpoint", "list", **config)
        assert code == 0, err


def _of_site(site: str, authority: Signed, now: datetime) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(identity(site, "site-trainer"))]
    return Signed(key, certify(key.public_key(), site, names, authority, now, timedelta(days=1), serves=False))


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    # The best model shares its bytes with a base: only this name gets others.
    draft = path.with_suffix(".flipped")
    draft.write_bytes(data)
    draft.replace(path)


async def _said(server: NatsServer, hub: Hub) -> None:
    await declared([replace(server.plan, domain=HUB)])

    def event(kind: Callable[..., Message], **told: object) -> Message:
        return kind(id=uuid4(), at=NOW, federation="demo", **told)

    said = [event(RoundStarted, round=0, base_digest=hub.digests[0], members=("site-a",), ends_at=None)]
    said += [
        event(
            RoundCompleted,
            round=number,
            base_digest=hub.digests[number],
            model_digest=hub.digests[number + 1],
            contributors=("site-a",),
            tokens=100,
            tokens_total=100 * (number + 1),
            steps=1,
            loss_nats=2.0,
            bytes_up=1,
            bytes_down=1,
        )
        for number in range(ROUNDS)
    ]
    said.append(event(FederationFinished, rounds=ROUNDS, tokens_total=400, model_digest=hub.digests[ROUNDS]))
    async with connection(server.url) as client:
        for one in said:
            await store(client, seal(one, "/test"))
