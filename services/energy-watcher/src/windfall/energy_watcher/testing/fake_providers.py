"""All the providers that are asked by HTTP, on one loopback port: their recorded shapes, their errors, made-up values.

``async with FakeProviders(clock) as there`` serves WattTime, Electricity Maps (v3 and v4), the UK Carbon Intensity API,
Vessim and Prometheus until the block ends; ``there.url`` is the base URL of each. Values are a curve over time, so that
whoever asks can know what to expect.
"""

import asyncio
import hashlib
import json
import math
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from windfall.energy_watcher.testing.recorded_shapes import Asked, answer_of

USERNAME, PASSWORD, TOKEN = "rehearsal-user", "rehearsal-pass-phrase", "rehearsal-token-6b1f"
"""What the fake accepts: WattTime's login, and the token of Electricity Maps and Prometheus."""
FORBIDDEN_PAGE = (
    "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Trouble(Enum):
    """What is no answer at all."""

    SILENCE = auto()
    """The connection stays open and nothing comes."""
    HANG_UP = auto()
    """The connection ends in the middle of the answer."""


Reaction = Reply | Trouble | Callable[[Asked], Reply]
"""What a request gets in place of its answer; it may depend on the request."""


def in_json(status: int, body: object, **headers: str) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})


def page(status: int, text: str = FORBIDDEN_PAGE) -> Reply:
    """What a proxy or a broken server sends in place of JSON."""
    return Reply(status, text.encode(), {"Content-Type": "text/html"})


def too_many(retry_after: str | None = None) -> Reply:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return in_json(429, {"error": "Too many requests"}, **headers)


def curve(at: datetime) -> float:
    """From 60 to 540 within a day, lowest at 12:00 UTC: gCO2/kWh, EUR/MWh or W, as whoever asks takes it."""
    return round(300.0 + 240.0 * math.cos(2 * math.pi * (at.timestamp() % 86_400) / 86_400), 3)


class FakeProviders:
    """The server, what it was asked, and what it is to do wrong."""

    def __init__(self, clock: Callable[[], datetime], values: Callable[[datetime], float] = curve) -> None:
        self._clock = clock
        self._values = values
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._lines: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.asked: list[Asked] = []
        """Every request, oldest first."""
        self.next: deque[Reaction] = deque()
        """What the next requests get in place of their answer."""
        self.down: Reaction | None = None
        """What every request gets until this is none again."""
        self.lag = timedelta(0)
        """How far behind the clock the values are."""
        self.change: Callable[[dict[str, Any]], object] | None = None
        """Spoils the body of each answer, except a login's, before it is sent."""
        self.etags = False
        self.expired: Reply = page(403)
        """What WattTime says to a token that is not, or no longer, good."""
        self._token, self._token_until, self._logins = "", datetime.min.replace(tzinfo=UTC), 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        # A talk that was cancelled before it began has closed nothing.
        for line in self._lines:
            line.close()
        await asyncio.gather(*(line.wait_closed() for line in self._lines), return_exceptions=True)
        await self._server.wait_closed()

    def expire(self) -> None:
        """WattTime's token ends now, before its time."""
        self._token = ""

    def paths(self) -> list[str]:
        """The paths that were asked for."""
        return [asked.path for asked in self.asked]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(talk)
        self._lines.add(writer)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _heard(reader)) is not None:
                self.asked.append(asked)
                reply = self._reply(asked)
                if reply is Trouble.SILENCE:
                    await reader.read()
                    return
                if isinstance(reply, Trouble):
                    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"da')
                    await writer.drain()
                    return
                writer.write(_written(reply))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._lines.discard(writer)

    def _reply(self, asked: Asked) -> Reply | Trouble:
        reaction = self.next.popleft() if self.next else self.down
        if reaction is not None:
            return reaction(asked) if callable(reaction) else reaction
        if asked.path == "/login":
            return self._log_in(asked)
        refused = self._refused(asked)
        if refused is not None:
            return refused
        status, body = answer_of(asked, self._clock() - self.lag, self._values)
        spoilt = self.change(json.loads(json.dumps(body))) if self.change and status == HTTPStatus.OK else body
        return self._tagged(asked, in_json(status, spoilt))

    def _log_in(self, asked: Asked) -> Reply:
        pair = b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {pair}":
            return page(403)
        self._logins += 1
        self._token = f"rehearsal.jwt.{self._logins}"
        self._token_until = self._clock() + timedelta(minutes=30)
        return in_json(200, {"token": self._token})

    def _refused(self, asked: Asked) -> Reply | None:
        if asked.path.startswith(("/v3/forecast", "/v3/historical", "/v3/signal-index")):
            good = self._token and self._clock() < self._token_until
            return None if good and asked.headers.get("authorization") == f"Bearer {self._token}" else self.expired
        if asked.path.startswith(("/v3/", "/v4/")) and asked.headers.get("auth-token") != TOKEN:
            return in_json(401, {"error": "Invalid auth-token"})
        given = asked.headers.get("authorization")
        if asked.path.startswith("/api/v1/") and given not in (None, f"Bearer {TOKEN}"):
            return Reply(401, b"Unauthorized\n", {"Content-Type": "text/plain"})
        return None

    def _tagged(self, asked: Asked, reply: Reply) -> Reply:
        if not self.etags:
            return reply
        tag = f'"{hashlib.sha256(reply.body).hexdigest()[:16]}"'
        if asked.headers.get("if-none-match") == tag:
            return Reply(304, headers={"ETag": tag})
        return Reply(reply.status, reply.body, {**reply.headers, "ETag": tag})


async def _heard(reader: asyncio.StreamReader) -> Asked | None:
    """The next request on a connection; none when there is no more."""
    line = await reader.readline()
    if not line:
        return None
    _, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (header := (await reader.readline()).decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    url = urlsplit(target)
    return Asked(unquote(url.path), {name: values[-1] for name, values in parse_qs(url.query).items()}, headers)


def _written(reply: Reply) -> bytes:
    headers = {"Content-Length": str(len(reply.body)), **reply.headers}
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + reply.body
