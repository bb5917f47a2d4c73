"""``make bench-ui``: how soon a person sees what: the live page in a real Chromium, a command, the lines of a demo.

The page follows a real hub that holds half a day of a thousand sites; browser, server and hub share the cores.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from nats.aio.client import Client

from tests.bench.figures import Figure, percentile, report
from tests.browser import Browser, Tab
from tests.many_sites import ManySites
from windfall.cli.server import connection, declared, store
from windfall.cli.web.listening import Door
from windfall.cli.web.serving import page
from windfall.contracts.subjects import HUB
from windfall.servicekit.testing.fixtures import started_server

SITES = 1000
OPENED = 5
UPDATES = 200
GAP_S = 0.05
SECONDS = 5
COMMANDS = 9
LINES = 40
WATCH = """
globalThis.seen = {};
new MutationObserver((all) => {
  const now = Date.now();
  for (const { addedNodes } of all) for (const row of addedNodes) globalThis.seen[row.dataset.id] ??= now;
}).observe(document.getElementById("events"), { childList: true });
"""
FRAMES = f"""
new Promise((done) => {{
  const lanes = document.getElementById("lanes"), began = performance.now(), gaps = [];
  let last = began;
  const next = (now) => {{
    gaps.push(now - last);
    last = now;
    lanes.scrollTop += 97;
    if (lanes.scrollTop + lanes.clientHeight >= lanes.scrollHeight - 1) lanes.scrollTop = 0;
    if (performance.now() - began > {SECONDS * 1000}) done(gaps.slice(1));
    else requestAnimationFrame(next);
  }};
  requestAnimationFrame(next);
}})
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
ALL_THERE = f"document.querySelector('#sites-count').textContent === '{SITES}' && performance.now()"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report("ui", asyncio.run(_all(Path(folder))))


async def _all(folder: Path) -> list[Figure]:
    async with started_server(folder / "hub", HUB) as server, connection(server.url) as client:
        await declared([server.plan])
        many = ManySites(SITES, datetime.now(UTC))
        for said in many.history():
            await store(client, said.letter())
        figures = [await starts(server.url)]
        if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
            async with page(client, Door("127.0.0.1", 0)) as (url, _), Browser() as browser:
                tab = await browser.tab()
                await tab.size(1440, 1000)
                figures += [await paints(tab, url), await updates(tab, client, many), await frames(tab, client, many)]
        else:
            print("no Chromium here: the page is not measured", file=sys.stderr)
    return [*figures, await demo_lines(folder / "run")]


async def paints(tab: Tab, url: str) -> Figure:
    """From the navigation to the first text, and to all sites."""
    first, whole = [], []
    # The server has read its history before the first of them counts.
    for number in range(OPENED + 1):
        await tab.open(url)
        there = float(await tab.until(ALL_THERE))
        if number:
            first.append(float(await tab.until(PAINT)))
            whole.append(there)
    beside: dict[str, float | str] = {"worst": max(first), f"{SITES} sites there": statistics.median(whole)}
    return Figure("page first paint ms", statistics.median(first), "ms", "at most 1000", beside, f"{OPENED} openings")


async def updates(tab: Tab, client: Client, many: ManySites) -> Figure:
    """From before an event is stored at the hub to its row on the page."""
    await tab.value(WATCH)
    sent = {}
    for said in islice(many.on(), UPDATES):
        sent[str(said.message.id)] = time.time() * 1000
        await store(client, said.letter())
        await asyncio.sleep(GAP_S)
    await tab.until(f"globalThis.seen['{list(sent)[-1]}']")
    seen = await tab.value("globalThis.seen")
    took = [seen[name] - at for name, at in sent.items() if name in seen]
    beside: dict[str, float | str] = {"median": statistics.median(took), "seen": f"{len(took)} of {len(sent)}"}
    return Figure("page update latency p99 ms", percentile(took, 0.99), "ms", "at most 250", beside, f"{SITES} sites")


async def frames(tab: Tab, client: Client, many: ManySites) -> Figure:
    """Frames while the lanes are scrolled and events come."""
    still = [float(gap) for gap in await tab.value(FRAMES)]
    async with _talking(client, many) as said:
        gaps = [float(gap) for gap in await tab.value(FRAMES)]
        rate = len(said) / SECONDS
    beside: dict[str, float | str] = {
        "p99 frame ms": percentile(gaps, 0.99),
        "without events": 1000 * len(still) / sum(still),
    }
    conditions = f"{rate:.0f} events/s, scrolling, drawn by the processor"
    return Figure("page 1000 sites fps", 1000 * len(gaps) / sum(gaps), "fps", "at least 30", beside, conditions)


@asynccontextmanager
async def _talking(client: Client, many: ManySites) -> AsyncIterator[list[str]]:
    said: list[str] = []

    async def talk() -> None:
        for one in many.on():
            await store(client, one.letter())
            said.append(str(one.message.id))
            await asyncio.sleep(GAP_S / 5)

    talking = asyncio.ensure_future(talk())
    try:
        yield said
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def starts(url: str) -> Figure:
    """``windfall get sites``, from its start to its end."""
    took = []
    for _ in range(COMMANDS):
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "windfall.cli", "get", "sites", "site-0001"),
            env={**os.environ, "WINDFALL_NATS_URL": url},
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
        took.append(1000 * (time.perf_counter() - began))
    quick = await _bare()
    beside: dict[str, float | str] = {"best": min(took), "worst": max(took), "python -c pass": quick}
    return Figure("command start ms", statistics.median(took), "ms", "at most 300", beside, f"{SITES} sites at the hub")


async def _bare() -> float:
    took = []
    for _ in range(COMMANDS):
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        await process.wait()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


async def demo_lines(out: Path) -> Figure:
    """Everything that a demo prints where there is no terminal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "demo", "--fast", "--web", "--out", str(out)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return Figure("demo lines printed", printed.count(b"\n"), "lines", f"at most {LINES}", {}, "--fast --web")


if __name__ == "__main__":
    main()
