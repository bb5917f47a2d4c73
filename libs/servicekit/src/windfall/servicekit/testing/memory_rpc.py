"""gRPC in memory, under the generated stubs: a channel and a server in one process, without a socket.

Requests and replies still pass through the generated serialisers, statuses are gRPC's own errors, streams have
back-pressure (a queue of two), metadata and cancellation arrive. What it does not do: deadlines on the wire, sizes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, cast

import grpc
import grpc.aio

_QUEUE = 2


class _Abort(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class _Context:
    """The server's view of one call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> NoReturn:
        raise _Abort(code, details)

    def peer(self) -> str:
        return "memory:client"


class MemoryServer:
    """Takes what ``add_…Servicer_to_server`` gives it. ``down`` refuses every call, as a dead server does."""

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._calls: dict[asyncio.Task[None], None] = {}
        self.down = False

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Nothing: the registered handlers say the same."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        for method, handler in handlers.items():
            self._handlers[f"/{service}/{method}"] = handler

    async def kill(self) -> None:
        """Cut every call at once, as a crash does, and refuse new ones until ``down`` is false again."""
        self.down = True
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def handler(self, method: str) -> Any:
        if self.down:
            raise _error(grpc.StatusCode.UNAVAILABLE, "the server is away")
        if method not in self._handlers:
            raise _error(grpc.StatusCode.UNIMPLEMENTED, f"no {method}")
        return self._handlers[method]

    def running(self, call: "asyncio.Task[None]") -> None:
        self._calls[call] = None
        call.add_done_callback(self._forget)

    def _forget(self, call: "asyncio.Task[None]") -> None:
        self._calls.pop(call, None)


class MemoryChannel:
    """What a stub takes for a channel. ``cut`` breaks running calls and refuses new ones; ``heal`` mends it."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._calls: dict[_Call, None] = {}
        self._broken = False

    def cut(self) -> None:
        self._broken = True
        for call in list(self._calls):
            call.break_off()

    def heal(self) -> None:
        self._broken = False

    async def close(self, grace: float | None = None) -> None:
        self.cut()

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, *, timeout: float | None = None, metadata: Any = ()) -> Any:
            started = self._start(method, _one(request), request_serializer, response_deserializer, metadata)
            return started.single(timeout)

        return call

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(requests: Any, *, timeout: float | None = None, metadata: Any = ()) -> Any:
            started = self._start(method, requests, request_serializer, response_deserializer, metadata)
            return started.single(timeout)

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, *, timeout: float | None = None, metadata: Any = ()) -> Any:
            return self._start(method, _one(request), request_serializer, response_deserializer, metadata)

        return call

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(requests: Any, *, timeout: float | None = None, metadata: Any = ()) -> Any:
            return self._start(method, requests, request_serializer, response_deserializer, metadata)

        return call

    def _start(self, method: str, requests: Any, write: Any, read: Any, metadata: Any) -> "_Call":
        if self._broken:
            raise _error(grpc.StatusCode.UNAVAILABLE, "the link is cut")
        call = _Call(self._server, method, requests, write, read, tuple(metadata or ()), self._forget)
        self._calls[call] = None
        return call

    def _forget(self, call: "_Call") -> None:
        self._calls.pop(call, None)


class _Call:
    """One call in flight: an async iterator of replies that can be cancelled."""

    def __init__(
        self,
        server: MemoryServer,
        method: str,
        requests: Any,
        write: Any,
        read: Any,
        metadata: tuple[tuple[str, str], ...],
        ended: Callable[["_Call"], None],
    ) -> None:
        self._replies: asyncio.Queue[Any] = asyncio.Queue(_QUEUE)
        self._read = read
        self._ended = ended
        self._failure: grpc.aio.AioRpcError | None = None
        handler = server.handler(method)
        self._task = asyncio.get_running_loop().create_task(self._serve(handler, requests, write, metadata))
        server.running(self._task)
        self._task.add_done_callback(self._finished)
        self._over = asyncio.Event()

    def cancel(self) -> bool:
        return self._task.cancel()

    def break_off(self) -> None:
        self._failure = self._failure or _error(grpc.StatusCode.UNAVAILABLE, "the link was cut")
        self._task.cancel()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterate()

    async def single(self, timeout: float | None) -> Any:
        try:
            async with asyncio.timeout(timeout):
                async for reply in self._iterate():
                    return reply
        except TimeoutError:
            raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed") from None
        raise _error(grpc.StatusCode.INTERNAL, "no reply")

    async def _iterate(self) -> AsyncIterator[Any]:
        try:
            while True:
                if self._replies.empty() and self._over.is_set():
                    break
                get = asyncio.ensure_future(self._replies.get())
                over = asyncio.ensure_future(self._over.wait())
                try:
                    await asyncio.wait([get, over], return_when=asyncio.FIRST_COMPLETED)
                    if get.done():
                        yield self._read(get.result())
                finally:
                    get.cancel()
                    over.cancel()
            if self._failure is not None:
                raise self._failure
        finally:
            self._task.cancel()

    async def _serve(self, handler: Any, requests: Any, write: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        context = _Context(metadata)
        try:
            incoming = _received(requests, write, handler.request_deserializer)
            if handler.request_streaming:
                answer = handler.stream_stream if handler.response_streaming else handler.stream_unary
                replies = answer(incoming, context)
            else:
                answer = handler.unary_stream if handler.response_streaming else handler.unary_unary
                replies = answer(await anext(incoming), context)
            if handler.response_streaming:
                async for reply in replies:
                    await self._replies.put(handler.response_serializer(reply))
            else:
                await self._replies.put(handler.response_serializer(await replies))
        except _Abort as abort:
            self._failure = _error(abort.code, abort.details)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            self._failure = self._failure or _error(grpc.StatusCode.UNAVAILABLE, "the call was cut")
        elif (error := task.exception()) is not None:
            self._failure = _error(grpc.StatusCode.UNKNOWN, repr(error))
        self._over.set()
        self._ended(self)


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


async def _received(requests: Any, write: Any, read: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield read(write(request))


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def memory_channel(server: MemoryServer) -> grpc.aio.Channel:
    """A channel for a stub, typed as what the stub asks for."""
    return cast(grpc.aio.Channel, MemoryChannel(server))
