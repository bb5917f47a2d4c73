"""One service that says and one that hears, in this process, on a real server: what a sentence costs on its way.

Its way is a service's: journaled in a transaction with an fsync, laid out, said, acknowledged by the stream, delivered,
handled within a span and acknowledged. Run it as a process: telemetry is set up once in each.
"""

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from windfall.contracts.events import WindowOpened
from windfall.contracts.subjects import site_streams
from windfall.servicekit import metrics, telemetry
from windfall.servicekit.journal import Journal
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.outbox import Outbox

SITE = "site-a"
_TOGETHER = 100
"""Sentences that are journaled at once, as after a decision that many sites hear of."""


def sentence() -> WindowOpened:
    now = datetime.now(UTC)
    return WindowOpened(
        id=uuid4(), at=now, site=SITE, window_id=uuid4(), intensity_g_per_kwh=20.0, expected_close_at=None
    )


async def run(url: str, folder: Path, together: int, alone: int) -> dict[str, object]:
    """Say many at once, and then some one by one."""
    heard: asyncio.Queue[float] = asyncio.Queue()
    fatal: list[Exception] = []

    async def hear(_: WindowOpened) -> None:
        heard.put_nowait(time.perf_counter())

    journal = Journal(folder / "speaker.sqlite", f"/windfall/energy-watcher/{SITE}")
    speaker = NatsBus(url, "energy-watcher", site_streams(SITE), fatal.append)
    hearer = NatsBus(url, "provisioner", site_streams(SITE), fatal.append)
    hearer.hears(WindowOpened, SITE, hear)
    await speaker.start()
    await hearer.start()
    outbox = Outbox(journal, speaker)
    pump = asyncio.create_task(outbox.run())

    def say(count: int) -> None:
        with telemetry.span("decide", root=True):
            journal.commit(say=[sentence() for _ in range(count)])
        outbox.wake()

    async def all_heard(count: int) -> float:
        return max([await heard.get() for _ in range(count)])

    say(_TOGETHER)
    await all_heard(_TOGETHER)
    begun = time.perf_counter()
    for _ in range(together // _TOGETHER):
        say(_TOGETHER)
    ended = await all_heard(together)
    waits = []
    for _ in range(alone):
        said = time.perf_counter()
        say(1)
        waits.append(await all_heard(1) - said)
    pump.cancel()
    await speaker.stop()
    await hearer.stop()
    journal.close()
    if fatal:
        raise fatal[0]
    return {"seconds": ended - begun, "events": together, "latencies_s": waits}


def main() -> None:
    url, together, alone = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    telemetry.set_up("bench", SITE, None)
    metrics.set_up("bench", SITE)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        seen = asyncio.run(run(url, Path(folder), together, alone))
    metrics.tear_down()
    telemetry.tear_down()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
