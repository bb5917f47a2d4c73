"""The way down: what the others said instead of a model, kept bases, and logs that lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer_field import BY_STEPS, INT4, LARGE, SITES, TOPK, Field, play
from windfall.contracts.events import ContributionRefused, RoundCompleted
from windfall.federation_coordinator.outer_step import Stretch
from windfall.federation_coordinator.training import TrainingService
from windfall.lowcomm.rule import Rule


@pytest.mark.parametrize("codec", ["topk-ef", "int4-block", "q2-ef", "dct-momentum"])
def test_sites_that_hold_a_base_download_what_the_others_said_and_no_more_models(codec: str, tmp_path: Path) -> None:
    rule, elements = Rule.parse(codec), LARGE.split
    full = LARGE.nbytes + 4 * sum(rule.outer.sizes(elements.trained))
    noise = torch.randn(4096, generator=torch.Generator().manual_seed(1))
    message = len(rule.encode(rule.codec.init(4000), noise, elements, base=0, tokens=1, steps=1)[1])

    async def story(field: Field) -> None:
        stays, leaves = [await field.start(site) for site in SITES]
        await field.until(RoundCompleted, 4)
        await field.drain(leaves)
        await field.until(RoundCompleted, 6)
        # What it held when its window closed lies on its disk: it takes the rounds that it has missed from there.
        again = await field.start("site-b", token=2)
        await field.until(RoundCompleted, 10)
        await field.drain(stays, again)
        field.check_replicas()
        field.check_each_step_counted_once()
        assert [node.link.models for node in (stays, leaves, again)] == [1, 1, 0]
        assert stays.link.logs >= 9
        assert again.link.logs >= 3
        # A site's own message does not come back to it.
        assert stays.link.bytes_down <= full + stays.link.logs * (message + 300)
        assert again.link.bytes_down <= 3 * (message + 300) + again.link.logs * (message + 300)

    play(story, Field(tmp_path, BY_STEPS, LARGE, rule))


def test_killed_with_a_base_of_long_ago_on_its_disk_it_goes_on_from_there(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        await field.drain(first := await field.start())
        assert first.link.models == 0, "there was nothing to train for yet"
        first = await field.start(token=2)
        await field.until(RoundCompleted, 2)
        await field.drain(first)
        second = await field.start(token=3)
        await field.until(RoundCompleted, 5)
        await second.kill()
        third = await field.start(token=4)
        await field.until(RoundCompleted, 7)
        await field.drain(third)
        assert [node.link.models for node in (first, second, third)] == [1, 0, 0]
        assert third.link.logs >= 2
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, LARGE, TOPK))


@pytest.mark.parametrize("spoil", ["a bit", "shortened", "of another rule"])
def test_a_base_on_its_disk_that_is_not_what_it_was_is_left_aside(spoil: str, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start()
        await field.until(RoundCompleted, 2)
        await field.drain(first)
        held = tmp_path / "site-a" / "base.safetensors"
        data = bytearray(held.read_bytes())
        data[-40] ^= 1
        held.write_bytes(bytes(data) if spoil == "a bit" else bytes(data[:-50]))
        if spoil == "of another rule":
            field.rule = Rule.parse("topk-ef:keep=32")
            await field.kill_coordinator()
            await field.start_coordinator()
        second = await field.start(token=2)
        await field.until(RoundCompleted, 4)
        await field.drain(second)
        assert second.link.models == 1
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, LARGE, TOPK))


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a bit of a message": lambda log: log[:-20] + bytes([log[-20] ^ 1]) + log[-19:],
    "a bit of the list": lambda log: log[:100] + bytes([log[100] ^ 1]) + log[101:],
    "cut short": lambda log: log[:-1],
    "nothing": lambda log: b"",
    "twice the same round": lambda log: log + log,
    "zeros": lambda log: bytes(len(log)),
}


def _bytes(stretch: Stretch) -> bytes:
    if isinstance(stretch, bytes):
        return stretch
    return stretch.path.read_bytes()[stretch.data_start : stretch.data_start + stretch.nbytes]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_log_that_lies_leads_to_a_model_in_full_and_never_to_a_wrong_one(
    lie: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    class Lying(TrainingService):
        async def _log(self, *arguments: Any) -> list[Stretch] | None:
            log = await super()._log(*arguments)
            return None if log is None else [lie(b"".join(map(_bytes, log)))]

    async def story(field: Field) -> None:
        nodes = [await field.start(site) for site in SITES]
        await field.until(RoundCompleted, 3)
        await field.drain(*nodes)
        # From its disk as well: once, not for ever.
        again = await field.start(token=2)
        await field.until(RoundCompleted, 6)
        await field.drain(again)
        field.check_replicas()
        assert all(node.link.models >= node.link.logs > 0 for node in (*nodes, again))
        assert not field.events(ContributionRefused)

    play(story, Field(tmp_path, BY_STEPS, LARGE, TOPK, service=Lying))


@pytest.mark.parametrize("rule", [TOPK, INT4], ids=lambda rule: rule.codec.name)
def test_a_download_that_is_cut_goes_on_where_it_stopped(
    rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.federation_coordinator.wire.CHUNK_BYTES", 1024)
    full = LARGE.nbytes * (1 if rule is TOPK else 2) - 4 * 96 * (rule is INT4)

    async def story(field: Field) -> None:
        node = await field.start()
        node.link.cut_at = {5 * 1024, LARGE.nbytes + 2048}
        await field.until(RoundCompleted)
        await field.drain(node)
        assert node.link.models == 1
        assert node.link.calls["Pull"] >= 2
        assert node.link.bytes_down - full < 4 * 1024, "what had arrived did not come again"
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, LARGE, rule))
