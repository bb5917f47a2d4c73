"""What drives the browser says when there is none any more."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.browser import Broken, Browser


async def test_whoever_waits_for_a_browser_that_dies_is_told() -> None:
    async with Browser() as browser:
        tab = await browser.tab()
        waiting = asyncio.ensure_future(tab.value("new Promise(() => {})"))
        assert await tab.value("1 + 1") == 2
        for pid in map(int, filter(str.isdigit, (entry.name for entry in Path("/proc").iterdir()))):
            if _child_of(pid, os.getpid()):
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(Broken, match="Chromium has ended"):
            await waiting
        with pytest.raises(Broken):
            await tab.value("1 + 1")


def _child_of(pid: int, parent: int) -> bool:
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(told[1]) == parent and "chrom" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
