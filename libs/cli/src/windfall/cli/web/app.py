"""The page over HTTP: a few files that never change while it runs, and one stream of server-sent events."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.resources import files
from typing import Final

from aiohttp import web

from windfall.cli.web.feed import BEAT, Feed, Full

PATIENCE: Final = timedelta(seconds=30)
"""A page that takes nothing for so long is cut off; it comes back by itself."""
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing from elsewhere, nothing inline, and no text becomes a script."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_KINDS: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(feed: Feed, *, loopback: bool, beat: timedelta = BEAT) -> web.Application:
    """Everything that is served; nothing of it changes anything.

    Args:
        loopback: only this machine's own names are answered to, so that no other site's page can reach it by a name
            that it makes point here.
    """

    @web.middleware
    async def own_name(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if loopback and host not in _LOCAL:
            raise web.HTTPMisdirectedRequest(text="this page answers to localhost alone\n")
        return await handler(request)

    async def events(request: web.Request) -> web.StreamResponse:
        return await _stream(request, feed, beat)

    app = web.Application(middlewares=[own_name])
    app.on_response_prepare.append(_protect)
    app.router.add_get("/events", events)
    for one in files("windfall.cli.web").joinpath("static").iterdir():
        kind = _KINDS.get(one.name.rpartition(".")[2])
        if kind is not None:
            path = "/" if one.name == "index.html" else f"/{one.name}"
            app.router.add_get(path, _file(one.read_bytes(), kind))
    return app


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _file(body: bytes, kind: str) -> Handler:
    etag = hashlib.sha256(body).hexdigest()[:32]

    async def answer(request: web.Request) -> web.StreamResponse:
        known = request.if_none_match
        fresh = known is not None and any(one.value == etag for one in known)
        response = web.Response(status=304) if fresh else web.Response(body=body, content_type=kind, charset="utf-8")
        response.etag = etag
        # Asked for again each time, and sent again when another version is installed.
        response.headers["Cache-Control"] = "no-cache"
        return response

    return answer


async def _stream(request: web.Request, feed: Feed, beat: timedelta) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    try:
        with feed.reader(request.headers.get("Last-Event-ID") or request.query.get("after")) as reader:
            await response.prepare(request)
            while not feed.ended:
                await _sent(response, await reader.frame(beat))
            await _sent(response, feed.last())
    except Full:
        raise web.HTTPServiceUnavailable(
            text="as many pages are open as may be; close one\n", headers={"Retry-After": "30"}
        ) from None
    except (ConnectionError, TimeoutError):
        # Gone, or as good as gone: it asks for what it missed when it comes back.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _sent(response: web.StreamResponse, frame: bytes) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        await response.write(frame)
