"""gRPC in memory, under the generated stubs: a channel and a server in one process, without a socket.

Requests and replies still pass through the generated serialisers, statuses are gRPC's own errors, streams have
back-pressure (a queue of two), metadata, deadlines and cancellation arrive. What it does not do: limit sizes, and
cancel a call that was dropped without a word.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing, suppress
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
        self.status: grpc.StatusCode | None = None
        self.details = ""
        self.initial: tuple[tuple[str, str], ...] = ()
        self.begun = asyncio.Event()
        """The client has its initial metadata, or will have none."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> NoReturn:
        raise _Abort(code, details)

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.initial = metadata
        self.begun.set()

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.details = details

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

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
        return self._method(method, request_serializer, response_deserializer, _one)

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self._method(method, request_serializer, response_deserializer, _each)

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self._method(method, request_serializer, response_deserializer, _one)

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self._method(method, request_serializer, response_deserializer, _each)

    def _method(self, method: str, write: Any, read: Any, spread: Callable[[Any], AsyncIterator[Any]]) -> Any:
        def start(request: Any, *, timeout: float | None = None, metadata: Any = ()) -> _Call:
            return _Call(self, method, spread(request), write, read, tuple(metadata or ()), timeout)

        return start

    def handler(self, method: str) -> Any:
        """What serves a method.

        Raises:
            AioRpcError: nobody does.
        """
        if self._broken:
            raise _error(grpc.StatusCode.UNAVAILABLE, "the link is cut")
        return self._server.handler(method)

    def running(self, call: "_Call", task: "asyncio.Task[None]") -> None:
        self._calls[call] = None
        self._server.running(task)
        task.add_done_callback(lambda _: self._forget(call))

    def _forget(self, call: "_Call") -> None:
        self._calls.pop(call, None)


class _Call:
    """One call in flight: awaited for a single reply, iterated for a stream of them. It can be cancelled."""

    def __init__(
        self,
        channel: MemoryChannel,
        method: str,
        requests: AsyncIterator[Any],
        write: Callable[[Any], bytes],
        read: Callable[[bytes], Any],
        metadata: tuple[tuple[str, str], ...],
        timeout: float | None,
    ) -> None:
        self._channel = channel
        self._read = read
        self._replies: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: grpc.aio.AioRpcError | None = None
        self._cancelled = False
        self._over = False
        loop = asyncio.get_running_loop()
        self._context = _Context(metadata)
        self._task = loop.create_task(self._serve(method, requests, write, self._context))
        self._task.add_done_callback(self._finished)
        self._deadline = None if timeout is None else loop.call_later(timeout, self._expire)
        channel.running(self, self._task)

    def cancel(self) -> bool:
        self._cancelled = self._cancelled or not self._task.done()
        return self._task.cancel()

    def break_off(self) -> None:
        self._fail(_error(grpc.StatusCode.UNAVAILABLE, "the link was cut"))

    async def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        """Waits for the servicer to send it, or for the end of the call."""
        await self._context.begun.wait()
        return self._context.initial

    async def code(self) -> grpc.StatusCode:
        """Waits for the end of the call."""
        await asyncio.wait([self._task])
        return grpc.StatusCode.OK if self._failure is None else self._failure.code()

    def __aiter__(self) -> "_Call":
        return self

    async def __anext__(self) -> Any:
        try:
            while not self._replies and not self._over:
                self._arrived.clear()
                await self._arrived.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._cancelled:
            raise asyncio.CancelledError
        if self._replies:
            self._room.set()
            return self._read(self._replies.popleft())
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    def __await__(self) -> Generator[Any, None, Any]:
        return self._single().__await__()

    async def _single(self) -> Any:
        async for reply in self:
            return reply
        raise _error(grpc.StatusCode.INTERNAL, "no reply")

    async def _serve(
        self, method: str, requests: AsyncIterator[Any], write: Callable[[Any], bytes], context: _Context
    ) -> None:
        try:
            handler = self._channel.handler(method)
        except grpc.aio.AioRpcError as refusal:
            self._failure = refusal
            return
        incoming = _through(requests, write, handler.request_deserializer)
        try:
            await self._answer(handler, incoming, context)
        except _Abort as abort:
            self._failure = _error(abort.code, abort.details)
        except NotImplementedError:
            # What the generated servicer does for a method that is not there.
            if context.status is not grpc.StatusCode.UNIMPLEMENTED:
                raise
        finally:
            with suppress(RuntimeError):
                # Unless a task of the servicer's own still reads: then it ends with that one.
                await cast(Any, incoming).aclose()
        if self._failure is None and context.status not in (None, grpc.StatusCode.OK):
            self._failure = _error(context.status, context.details)

    async def _answer(self, handler: Any, incoming: AsyncIterator[Any], context: _Context) -> None:
        if handler.request_streaming:
            answer, request = handler.stream_stream or handler.stream_unary, incoming
        else:
            answer, request = handler.unary_stream or handler.unary_unary, await anext(incoming)
        if not handler.response_streaming:
            await self._put(handler.response_serializer(await answer(request, context)))
            return
        async with aclosing(answer(request, context)) as replies:
            async for reply in replies:
                await self._put(handler.response_serializer(reply))

    async def _put(self, reply: bytes) -> None:
        while len(self._replies) >= _QUEUE:
            self._room.clear()
            await self._room.wait()
        self._replies.append(reply)
        self._arrived.set()

    def _expire(self) -> None:
        self._fail(_error(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"))

    def _fail(self, error: grpc.aio.AioRpcError) -> None:
        self._failure = self._failure or error
        self._task.cancel()

    def _finished(self, task: "asyncio.Task[None]") -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if task.cancelled():
            self._failure = self._failure or _error(grpc.StatusCode.UNAVAILABLE, "the call was cut")
        elif (error := task.exception()) is not None:
            self._failure = _error(grpc.StatusCode.UNKNOWN, repr(error))
        self._over = True
        self._context.begun.set()
        self._arrived.set()


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


async def _each(requests: Any) -> AsyncIterator[Any]:
    """Requests of a client's stream, which may be a plain iterable; the client's generator ends with the call."""
    if not hasattr(requests, "__aiter__"):
        for request in requests:
            yield request
        return
    try:
        async for request in requests:
            yield request
    finally:
        if hasattr(requests, "aclose"):
            await requests.aclose()


async def _through(
    requests: AsyncIterator[Any], write: Callable[[Any], bytes], read: Callable[[bytes], Any]
) -> AsyncIterator[Any]:
    """Requests as they arrive at the other end."""
    try:
        async for request in requests:
            yield read(write(request))
    finally:
        await cast(Any, requests).aclose()


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def memory_channel(server: MemoryServer) -> grpc.aio.Channel:
    """A channel for a stub, typed as what the stub asks for."""
    return cast(grpc.aio.Channel, MemoryChannel(server))
