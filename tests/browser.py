"""A real headless Chromium, driven by its DevTools protocol over a WebSocket: what a test of a page needs, no more."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest

_PATIENCE_S = 120.0
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Broken(Exception):
    """The browser refuses, or a script in it has thrown."""


def found() -> str:
    """The browser's program; a test skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    pytest.skip("no Chromium here: apt-get install -y --no-install-recommends chromium")


class Tab:
    """One page in the browser.

    Attributes:
        complaints: what its console said that is an error or a warning, and exceptions that nobody caught.
    """

    def __init__(self, browser: "Browser", session: str) -> None:
        self.complaints: list[str] = []
        self.asked_for: list[str] = []
        """Every address that was requested."""
        self._browser = browser
        self.session = session

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol."""
        return await self._browser.call(method, self.session, **parameters)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def value(self, script: str) -> Any:
        """What an expression (or a promise of it) comes to, as JSON."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if broken := told.get("exceptionDetails"):
            raise Broken(broken.get("exception", {}).get("description", broken["text"]))
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """Return once an expression is true; the page itself looks, once per frame."""
        look = (
            "new Promise((done) => { const look = () => { let found; try { found = "
            f"({script}) }} catch {{}} found ? done(found) : setTimeout(look, 16) }}; look(); }})"
        )
        try:
            # It ends before the call does, which knows less of why.
            async with asyncio.timeout(_PATIENCE_S - 1):
                return await self.value(look)
        except TimeoutError as error:
            raise Broken(f"never came true: {script}; {self.complaints}") from error

    async def size(self, width: int, height: int) -> None:
        """Of the page, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def scheme(self, name: str) -> None:
        """What the system prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def click(self, selector: str) -> None:
        """As a mouse does, in the middle of the element."""
        box = await self.until(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return b.width && {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    async def press(self, key: str) -> None:
        """One key."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowDown": 40, "End": 35}.get(key, 0)
        text = {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    async def choose(self, selector: str, value: str) -> None:
        """A value of a field, as if a person had entered it."""
        await self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change')); })()"
        )

    async def picture(self, path: Path) -> None:
        """What is on the screen, once what is due is drawn, as a PNG."""
        await self.value(
            "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))).then(() => 1)"
        )
        told = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))


class Browser:
    """Enter it to start it; it ends with the block, and its profile with it."""

    async def __aenter__(self) -> Self:
        program = found()
        self._profile = tempfile.TemporaryDirectory(prefix="windfall-chromium-", ignore_cleanup_errors=True)
        # Without a sandbox only where root runs it, which Chromium refuses otherwise.
        flags = (*_FLAGS, *(("--no-sandbox",) if os.geteuid() == 0 else ()), f"--user-data-dir={self._profile.name}")
        self._process = await asyncio.create_subprocess_exec(
            program, *flags, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        self._session = aiohttp.ClientSession()
        async with asyncio.timeout(_PATIENCE_S):
            address = await self._address()
            self._socket = await self._session.ws_connect(address, max_msg_size=0)
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._drain())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._socket.close()
        await self._session.close()
        self._process.terminate()
        await self._process.wait()
        self._profile.cleanup()

    @property
    def pid(self) -> int:
        """Of the process that all its others end with."""
        return self._process.pid

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol; raises ``Broken`` when it is refused, or nobody answers."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        about = {} if session is None else {"sessionId": session}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._socket.send_json({"id": number, "method": method, "params": parameters, **about})
                return await self._waiting[number]
        except TimeoutError as error:
            raise Broken(f"no answer to {method} {json.dumps(parameters)[:200]}") from error
        except ConnectionError as error:
            raise Broken(f"Chromium has ended: {error}") from error
        finally:
            del self._waiting[number]

    async def tab(self) -> Tab:
        """A new page."""
        target = await self.call("Target.createTarget", url="about:blank")
        told = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, told["sessionId"])
        self._tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            await tab.call(f"{domain}.enable")
        return tab

    async def _address(self) -> str:
        assert self._process.stderr is not None
        while line := (await self._process.stderr.readline()).decode():
            if line.startswith("DevTools listening on "):
                return line.removeprefix("DevTools listening on ").strip()
        raise Broken("Chromium ended before it listened")

    async def _drain(self) -> None:
        assert self._process.stderr is not None
        while await self._process.stderr.readline():
            pass

    async def _listen(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if (waiting := self._waiting.get(told.get("id", 0))) is not None and not waiting.done():
                if "error" in told:
                    waiting.set_exception(Broken(told["error"]["message"]))
                else:
                    waiting.set_result(told["result"])
            elif (tab := self._tabs.get(told.get("sessionId", ""))) is not None:
                _note(tab, told["method"], told["params"])
        # Nobody answers any more, and whoever waits is told.
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Broken("Chromium has ended"))


def _note(tab: Tab, method: str, told: dict[str, Any]) -> None:
    if method == "Runtime.exceptionThrown":
        tab.complaints.append(json.dumps(told["exceptionDetails"])[:500])
    elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
        tab.complaints.append(json.dumps(told["args"])[:500])
    elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
        tab.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
    elif method == "Network.requestWillBeSent":
        tab.asked_for.append(told["request"]["url"])


@asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """One page in a browser of its own."""
    async with Browser() as browser:
        yield await browser.tab()
