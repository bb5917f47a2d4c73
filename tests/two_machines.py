"""A hub and a site as on two machines: process trees of their own that share no folder. The site joins by a token,
trains, and is revoked while it trains. ``make two-machines`` runs it.

Where it may be, the site's machine has a network of its own, and the only link to the hub's is cut for a while: what is
sent then is lost, and nobody is told. Otherwise the hub's doors are at another address of the loopback range.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.hub_and_site import DOORS, HubProcess, hub, told, windfall
from tests.machine import Machine, NoNamespace, machine
from windfall.cli.identity.folders import COORDINATOR as COORDINATED
from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.events import RoundCompleted, SiteLeft, TrainingStarted
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM

SECONDS = 240.0
COORDINATOR = {
    "task": "gpt-neox",
    "task_settings": '{"preset": "tiny"}',
    "round_length": "PT2S",
    "straggler_grace": "PT2S",
    "alone": "PT3S",
}
WATCHER = {"signal": "static", "static_intensity": "20", "dwell": "PT0S", "minimum_window": "PT0S",
           "forecast_horizon": "PT0S", "learn": "false", "payback": "0"}  # fmt: skip
SITE = {
    **{f"energy-watcher.{name}": value for name, value in WATCHER.items()},
    "profiler.probe": "fixed",
    "site-trainer.torch_threads": "1",
}


def settings(values: dict[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


class Heard:
    """What the hub's events say, as they come."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self._more = asyncio.Event()

    async def listen(self, at: HubProcess) -> None:
        async with at.admin() as admin:
            stream = admin.jetstream()
            await _there(stream)
            pulled = await stream.pull_subscribe("windfall.v1.>", stream=EVENTS_STREAM)
            while True:
                with contextlib.suppress(TimeoutError):
                    for message in await pulled.fetch(100, timeout=1):
                        letter = Letter(message.subject, dict(message.headers or {}), message.data)
                        self.said.append(unseal(letter))
                        await message.ack()
                        self._more.set()

    async def until(self, kind: type[Message], after: int = 0) -> Any:
        """The first sentence of a kind among those that follow so many others."""
        async with asyncio.timeout(SECONDS):
            while True:
                self._more.clear()
                for message in self.said[after:]:
                    if isinstance(message, kind):
                        return message
                await self._more.wait()


async def _there(stream: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while EVENTS_STREAM not in {info.config.name for info in await stream.streams_info()}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.fixture(params=["loopback", "network of its own"])
async def elsewhere(request: pytest.FixtureRequest) -> AsyncIterator[Machine | None]:
    """The site's machine; none where it is the hub's."""
    if request.param == "loopback":
        yield None
        return
    try:
        async with machine() as made:
            yield made
    except NoNamespace as error:
        pytest.skip(f"no network namespace here: {error}")


@pytest.mark.timeout(400)
async def test_a_site_joins_trains_and_is_shut_out(tmp_path: Path, elsewhere: Machine | None) -> None:
    data = tmp_path / "data"
    data.mkdir()
    text = files("windfall.cli").joinpath("data/tinyshakespeare.txt").read_text(encoding="utf-8")
    (data / "text.txt").write_text(text[:100_000], encoding="utf-8")
    own = settings({f"federation-coordinator.{name}": value for name, value in COORDINATOR.items()})
    doors, before = (DOORS, ()) if elsewhere is None else (elsewhere.here, elsewhere.command)
    async with hub(tmp_path / "hub", *own, doors=doors) as at:
        token = await at.site("token", "quebec")
        where = ("--dir", str(tmp_path / "site"), "--data", str(data))
        join = ("site", "join", at.enrolment, *where, *settings(SITE))
        async with windfall(*join, environ={"WINDFALL_TOKEN": token}, before=before) as site:
            await site.says("site approve quebec")
            await at.site("approve", "quebec")
            await at.running.says("demo trains at quebec")
            heard = Heard()
            listening = asyncio.create_task(heard.listen(at))
            try:
                await heard.until(TrainingStarted)
                done = await heard.until(RoundCompleted)
                assert done.contributors == ("quebec",)
                kept, authority = at.folder.state(COORDINATED), at.folder.authority / "ca.crt"
                code, said, _ = await told("contributions", kept, "--authority", authority)
                assert code == 0 and "signed by the sites that they name: quebec" in said
                if elsewhere is not None:
                    await elsewhere.cut()
                    left = await heard.until(SiteLeft)
                    assert left.site == "quebec"
                    await elsewhere.mend()
                    again = await heard.until(RoundCompleted, after=len(heard.said))
                    assert again.contributors == ("quebec",) and again.round > done.round
                await at.site("revoke", "quebec", "--reason", "sold", "--yes")
                await at.running.says("demo rests")
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        assert site.process.returncode == 0, site.lines
    assert at.running.process.returncode == 0, at.running.lines
