"""What drives the browser says when there is none any more."""

import asyncio
import os
import signal

import pytest

from tests.browser import Broken, Browser


async def test_whoever_waits_for_a_browser_that_dies_is_told() -> None:
    async with Browser() as browser:
        tab = await browser.tab()
        waiting = asyncio.ensure_future(tab.value("new Promise(() => {})"))
        assert await tab.value("1 + 1") == 2
        os.kill(browser.pid, signal.SIGKILL)
        with pytest.raises(Broken, match="Chromium has ended"):
            await waiting
        with pytest.raises(Broken):
            await tab.value("1 + 1")
