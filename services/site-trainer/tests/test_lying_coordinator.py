"""Whatever a coordinator says, a trainer takes it as refused or to be tried again, in one line and bounded memory."""

import asyncio
import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final
from uuid import uuid4

import pytest
import torch

from tests.spoil import MIB, batches, spoil
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingServicer, add_TrainingServicer_to_server
from windfall.lowcomm.layout import Layout, TensorSpec, digest
from windfall.lowcomm.outerlog import Accepted, write_entry
from windfall.lowcomm.rule import Rule
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import Refused
from windfall.servicekit.testing.memory_rpc import MemoryServer, memory_channel
from windfall.site_trainer import session as sessions
from windfall.site_trainer.claims import LONGEST_HEARTBEAT_S, MOST_TENSORS, unbelievable
from windfall.site_trainer.coordinator import CoordinatorLink
from windfall.site_trainer.replica import Replica, follow, of_snapshot, snapshot_bytes
from windfall.site_trainer.session import Opening, Session

BATCH: Final = 25
EXAMPLES: Final = 16
LAYOUT = Layout((TensorSpec("embed", (40, 20)), TensorSpec("bias", (7,)), TensorSpec("seen", (3,), exact=True)))
RULE = Rule.parse("topk-ef")
HELD = Replica("0" * 64, torch.zeros(LAYOUT.elements), RULE.outer.init(LAYOUT.split.trained))


class Liar(TrainingServicer):
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.reply = pb.JoinReply()
        self.frames: Sequence[pb.PullFrame] = ()
        self.directives: Sequence[pb.Directive] = ()

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:  # noqa: N802
        return self.reply

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullFrame]:  # noqa: N802
        for frame in self.frames:
            yield frame

    async def Heartbeat(self, beats: Any, context: Any) -> AsyncIterator[pb.Directive]:  # noqa: N802
        for directive in self.directives:
            yield directive


class Site:
    """A trainer's way to a liar."""

    def __init__(self) -> None:
        self.liar, self.heard = Liar(), Counter[str]()
        server = MemoryServer()
        add_TrainingServicer_to_server(self.liar, server)  # type: ignore[arg-type]
        self.link = CoordinatorLink(memory_channel(server), "demo", "site-a")

    async def asked(self, call: Callable[[], Awaitable[object]]) -> None:
        """One case: it is believed, refused, or to be tried again, in one line."""
        try:
            async with asyncio.timeout(60):
                await call()
            self.heard["believed"] += 1
        except (Transient, Refused, ValueError) as error:
            # A ValueError is what a log that leads nowhere raises: the base is downloaded in full.
            assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:3000]
            self.heard[type(error).__name__] += 1


def reply() -> pb.JoinReply:
    codec, outer, clip, merge = RULE.settings
    return pb.JoinReply(
        attempt=1,
        task="toy",
        task_settings_json="{}",
        tensors=[pb.Tensor(name=one.name, shape=one.shape, dtype=one.dtype, exact=one.exact) for one in LAYOUT.tensors],
        codec=codec,
        outer=outer,
        clip=clip,
        merge=merge,
        heartbeat_interval_ms=1000,
    )


async def strange_reply(site: Site, dice: random.Random) -> None:
    site.liar.reply = reply()
    spoil(site.liar.reply, dice, dice.choice((1, 1, 2, 5)))

    async def joined() -> None:
        membership = await site.link.join(uuid4(), 1)
        assert 0.1 <= membership.heartbeat_s <= LONGEST_HEARTBEAT_S
        assert membership.layout.nbytes < 2**50

    await site.asked(joined)


def _log(dice: random.Random) -> bytearray:
    """The outer log of a round that one other site has trained."""
    gradient = torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(dice.randrange(3)))
    said = RULE.encode(RULE.codec.init(LAYOUT.split.trained), gradient, LAYOUT.split, base=0, tokens=9, steps=1)[1]
    return bytearray(write_entry(0, HELD.digest, "1" * 64, [Accepted.of("site-b", 1, 9, said)]))


async def strange_download(site: Site, dice: random.Random) -> None:
    """A model or a log that is not what it says: bits, lengths and counts."""
    whole, log = snapshot_bytes(RULE, LAYOUT.split), dice.random() < 0.6
    data = _log(dice) if log else bytearray(HELD.base.numpy().tobytes())
    for _ in range(dice.choice((0, 1, 1, 3))):
        at = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                data[at : at + 4] = dice.choice((0, 1, 2**31, 2**32 - 1)).to_bytes(4, "little")
            case 2:
                del data[at:]
                data += b"x"
            case _:
                data += bytes(dice.choice((1, 9, 4096)))
    size = dice.choice((len(data), len(data), whole, 0, 1, whole + 1, 2**31, 2**63, 2**64 - 1))
    pieces = [pb.PullFrame(data=bytes(data[start : start + 999])) for start in range(0, len(data), 999)]
    frames = [pb.PullFrame(head=pb.PullHead(total_bytes=size, log=log)), *pieces]
    for _ in range(dice.choice((0, 0, 1, 2))):
        at = dice.randrange(len(frames) + 1)
        match dice.randrange(4):
            case 0:
                del frames[at:]
            case 1:
                frames.insert(at, pb.PullFrame())
            case 2:
                frames.insert(
                    at, pb.PullFrame(head=pb.PullHead(total_bytes=dice.choice((0, whole, 2**40)), log=not log))
                )
            case _:
                frames.insert(at, pb.PullFrame(data=bytes(dice.choice((0, MIB)))))
    site.liar.frames = frames
    model = digest(HELD.base) if dice.random() < 0.5 else "1" * 64

    async def downloaded() -> None:
        bytes_ = dice.choice((LAYOUT.nbytes, LAYOUT.nbytes, 0, 2**40))
        found = await site.link.pull(1, model, bytes_, whole, held=HELD.digest if log else "")
        if found.log:
            follow(HELD, found.data, model, RULE, LAYOUT.split, {})
        else:
            of_snapshot(found.data, model, RULE, LAYOUT.split)

    await site.asked(downloaded)


async def strange_directives(site: Site, dice: random.Random) -> None:
    said = []
    for number in range(dice.randrange(1, 6)):
        directive = pb.Directive(
            round_opened=pb.RoundOpened(round=number, base_digest="0" * 64, base_bytes=LAYOUT.nbytes)
        )
        if dice.random() < 0.3:
            directive = pb.Directive(finish_round=pb.FinishRound(round=number))
        spoil(directive, dice, dice.choice((1, 2)))
        said.append(directive)
    site.liar.directives = said
    session = sessions.joined(Session(), 1)

    async def heeded() -> None:
        nonlocal session
        async with aclosing(site.link.directives(lambda: pb.Beat(site="site-a"), 60)) as directives:
            async for one in directives:
                if one.HasField("round_opened"):
                    word = one.round_opened
                    opening = Opening(word.round, word.base_digest, word.base_bytes, word.local_steps, 1)
                    session = sessions.opened(session, opening)
                elif one.HasField("finish_round"):
                    session = sessions.finish(session, one.finish_round.round)

    await site.asked(heeded)
    assert session.heard is None or session.round == session.heard or session.round is None


Lie = Callable[[Site, random.Random], Awaitable[None]]


@pytest.mark.parametrize("lie", [strange_reply, strange_download, strange_directives], ids=lambda lie: lie.__name__)
def test_a_liar_is_refused_or_asked_again(lie: Lie) -> None:
    with asyncio.Runner() as runner:

        async def made() -> Site:
            return Site()

        site = runner.run(made())

        async def lied(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(BATCH):
                await lie(site, dice)

        batches(EXAMPLES, lambda seed: runner.run(lied(seed)))
        assert site.heard.total() == EXAMPLES * BATCH
        assert len(site.heard) > 1 or lie is strange_directives, site.heard
        gc.collect()
        tracemalloc.start()
        try:
            runner.run(lied(7))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 24 * MIB, peak
        runner.run(site.link.close())


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ([pb.Tensor(name="w", shape=(2**40, 2**40))], "a model of"),
        (
            [pb.Tensor(name="w", shape=(10**9,))],
            "a model of 1000000000 elements, which takes 12000000000 bytes at least",
        ),
        ([pb.Tensor(name="w" * 301)], "a tensor 'wwww"),
        ([pb.Tensor(name="\u202ew")], "a tensor '\\u202ew' of 0 dimensions"),
        ([pb.Tensor(name="w", shape=[1] * 9)], "a tensor 'w' of 9 dimensions"),
        ([pb.Tensor(name="w")] * (MOST_TENSORS + 1), "100001 tensors"),
        ([pb.Tensor(name="w", shape=(1000, 1000))], ""),
    ],
)
def test_a_model_that_this_node_cannot_hold_is_not_believed(tensors: list[pb.Tensor], why: str) -> None:
    said = unbelievable(pb.JoinReply(task="toy", tensors=tensors), 8 * 10**9)
    assert said.startswith(why) and bool(said) == bool(why)


def test_settings_of_a_megabyte_are_not_believed() -> None:
    assert unbelievable(pb.JoinReply(task="toy", task_settings_json="[" * MIB), 2**40).startswith("a task of 3 and")
