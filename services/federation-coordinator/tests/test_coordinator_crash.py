"""The coordinator as a process, killed with -9 between two contributions and again inside its merge."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import grpc.aio
import nats
import pytest
import torch
from torch import Tensor

from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.events import ContributionAccepted, RoundCompleted, SiteJoined, SiteLeft
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator.checks import described
from windfall.lowcomm.layout import digest, flatten, layout_of_model
from windfall.lowcomm.outer import parse_outer
from windfall.lowcomm.rule import Rule, Said
from windfall.servicekit.natsserver import NatsServer, free_port
from windfall.servicekit.rpc import connect
from windfall.servicekit.testing.fixtures import started_server
from windfall.tasks.registry import load_task

SETTINGS = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}'
RULES = {
    "fp32": Rule.parse("fp32", "nesterov:lr=0.7,momentum=0.9"),
    "topk-ef": Rule.parse("topk-ef"),
    "int4-block": Rule.parse("int4-block"),
}
SECONDS = 120.0
FRAME = 128

MODEL = load_task("gpt-neox", SETTINGS).model(seed=11)
LAYOUT = layout_of_model(MODEL)
FIRST = flatten(MODEL.state_dict(), LAYOUT)
TOKENS = {"site-a": 300, "site-b": 100}

SOUND = "import runpy; runpy.run_module('windfall.federation_coordinator', run_name='__main__')"
DIES_IN_ITS_MERGE = """
import os, signal, sys

def watch(event, arguments):
    if event == "os.rename" and "{PLACE}" in str(arguments[1]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
"""
PLACES = {"fp32": "outer-000001", "topk-ef": "log-000000", "int4-block": "base-000001"}
"""The file that is about to appear when it dies."""


def gradient(site: str) -> Tensor:
    seed = sorted(TOKENS).index(site)
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


def message(rule: Rule, site: str) -> bytes:
    elements = LAYOUT.split
    state = rule.codec.init(elements.trained)
    return rule.encode(state, gradient(site), elements, base=0, tokens=TOKENS[site], steps=1)[1]


def uninterrupted(rule: Rule) -> str:
    """The digest after round 0, computed in memory."""
    elements = LAYOUT.split
    said = [Said(site, 1, tokens, rule.decode(message(rule, site), elements)[1]) for site, tokens in TOKENS.items()]
    return digest(rule.step(rule.init(elements), FIRST, rule.merge(said, elements), elements)[1])


def test_what_is_expected_of_fp32_is_the_plain_computation() -> None:
    mean = torch.zeros(LAYOUT.elements)
    for site, tokens in TOKENS.items():
        mean += gradient(site) * (tokens / 400)
    outer = parse_outer("nesterov:lr=0.7,momentum=0.9")
    assert uninterrupted(RULES["fp32"]) == digest(outer.apply(outer.init(LAYOUT.elements), FIRST, mean)[1])


@asynccontextmanager
async def coordinator(
    root: str, server: NatsServer, folder: Path, port: int, rule: Rule, **environ: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "WINDFALL_NATS_URL": server.url,
        "WINDFALL_STATE_DIR": str(folder),
        "WINDFALL_LISTEN": f"127.0.0.1:{port}",
        "WINDFALL_SITES": ",".join(TOKENS),
        "WINDFALL_TASK_SETTINGS": SETTINGS,
        "WINDFALL_SEED": "11",
        "WINDFALL_CODEC": rule.settings[0],
        "WINDFALL_OUTER": rule.settings[1],
        "WINDFALL_ROUND_LENGTH": "PT1H",
        "WINDFALL_SILENCE": "600",
        **environ,
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", root, env=environment)
    channel = connect(f"127.0.0.1:{port}")
    try:
        async with asyncio.timeout(SECONDS):
            await channel.channel_ready()
        yield process, cast(Any, TrainingStub)(channel)
    finally:
        await channel.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def join(stub: Any, site: str) -> str:
    """Be admitted; the digest of the base to train from."""
    request = pb.JoinRequest(federation="demo", site=site, window_id=str(uuid4()), lease_token=1, protocol=1)
    assert (await stub.Join(request)).attempt == 1
    return (await opened(stub, site)).base_digest


async def opened(stub: Any, site: str) -> pb.RoundOpened:
    """The round that a stream is told of when it opens, or as soon as there is one."""

    async def beats() -> AsyncIterator[pb.Beat]:
        yield pb.Beat(federation="demo", site=site, attempt=1)
        await asyncio.Event().wait()

    call = stub.Heartbeat(beats())
    async with asyncio.timeout(SECONDS):
        directive: pb.Directive = await call.read()
    call.cancel()
    return directive.round_opened


def key(site: str) -> pb.ContributionKey:
    return pb.ContributionKey(federation="demo", site=site, round=0, attempt=1)


async def push(stub: Any, rule: Rule, site: str, base: str, offset: int = 0, end: int | None = None) -> bool:
    """Send a contribution, or a part of it; whether it had been accepted before."""
    data = message(rule, site)
    manifest = pb.Manifest(
        key=key(site),
        lease_token=1,
        base_digest=base,
        codec=rule.codec.name,
        tokens=TOKENS[site],
        steps=1,
        loss=2.5,
        total_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tensors=described(LAYOUT),
        offset=offset,
    )

    async def frames() -> AsyncIterator[pb.PushFrame]:
        yield pb.PushFrame(manifest=manifest)
        for start in range(offset, end or len(data), FRAME):
            yield pb.PushFrame(data=data[start : start + FRAME])

    return bool((await stub.Push(frames())).duplicate)


async def history(server: NatsServer, until: type[Message]) -> list[Message]:
    """What the hub's stream holds, once it holds a sentence of this kind."""
    client = await nats.connect(server.url)
    try:
        subscription = await client.jetstream().subscribe("windfall.v1.>", stream=EVENTS_STREAM, ordered_consumer=True)
        said: list[Message] = []
        while not any(isinstance(one, until) for one in said):
            raw = await subscription.next_msg(timeout=SECONDS)
            said.append(unseal(Letter(raw.subject, raw.headers or {}, raw.data)))
        return said
    finally:
        await client.close()


@pytest.mark.slow
@pytest.mark.parametrize("codec", RULES)
async def test_killed_between_contributions_and_while_merging_it_gives_the_same_model(
    codec: str, tmp_path: Path
) -> None:
    folder, port, rule = tmp_path / "state", free_port(), RULES[codec]
    dies = DIES_IN_ITS_MERGE.replace("{PLACE}", PLACES[codec]) + SOUND
    async with started_server(tmp_path / "nats", HUB) as server:
        async with coordinator(SOUND, server, folder, port, rule, PYTHONHASHSEED="1") as (process, stub):
            base = await join(stub, "site-a")
            assert await join(stub, "site-b") == base == digest(FIRST)
            assert not await push(stub, rule, "site-a", base)
            with pytest.raises(grpc.aio.AioRpcError, match="bytes arrived"):
                await push(stub, rule, "site-b", base, end=2 * FRAME)
            process.send_signal(signal.SIGKILL)

        async with coordinator(dies, server, folder, port, rule, PYTHONHASHSEED="2") as (process, stub):
            assert (await stub.Progress(key("site-a"))).accepted
            assert await opened(stub, "site-b") == pb.RoundOpened(
                round=0, base_digest=base, base_bytes=LAYOUT.nbytes, sites=2
            )
            arrived = (await stub.Progress(key("site-b"))).received_bytes
            assert arrived == 2 * FRAME
            # The receipt comes or it does not: the merge that follows ends the process.
            await asyncio.gather(push(stub, rule, "site-b", base, offset=arrived), return_exceptions=True)
            assert await process.wait() == -signal.SIGKILL

        async with coordinator(SOUND, server, folder, port, rule, OMP_NUM_THREADS="2") as (process, stub):
            assert (await stub.Progress(key("site-b"))).accepted
            after = await opened(stub, "site-a")
            assert (after.round, after.base_digest) == (1, uninterrupted(rule))
            assert [await push(stub, rule, site, base) for site in TOKENS] == [True, True]
            said = await history(server, RoundCompleted)
            assert sorted(one.site for one in said if isinstance(one, ContributionAccepted)) == ["site-a", "site-b"]
            (completed,) = [one for one in said if isinstance(one, RoundCompleted)]
            assert (completed.tokens_total, completed.model_digest) == (400, uninterrupted(rule))
            assert len([one for one in said if isinstance(one, SiteJoined)]) == 2
            assert not [one for one in said if isinstance(one, SiteLeft)]
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SECONDS):
                assert await process.wait() == 0
