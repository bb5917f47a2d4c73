"""A ClientApp that is loaded once and runs message after message in a warm process, in a thread of its own.

Its ``context.state`` stays at the site: it is kept on the site's disk and outlives the process, the lease and the
window. It is kept together with the state before the last message, so that a message which comes once more, because the
process died before its reply arrived, is run from where it was run before.
"""

import asyncio
import json
import logging
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from windfall.contracts.v1 import messages_pb2 as pb
from windfall.flower_adapter import shim
from windfall.flower_adapter.app_folder import RunConfig
from windfall.flower_adapter.content import Packed, Unreadable, pack, unpack

log = logging.getLogger(__name__)

T = TypeVar("T")
_LENGTH: Final = 8


@dataclass(frozen=True)
class Outcome:
    """What a message came to: a content, or an error with Flower's number."""

    packed: Packed | None
    code: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Identity:
    """Who this node is in the run, as the coordinator says."""

    run_id: int
    node_id: int
    run_config: RunConfig


def warm_up() -> None:
    """Where the app trains with torch: load now what its first optimizer step would load, seconds of it."""
    if (torch := sys.modules.get("torch")) is not None:
        weights = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weights], lr=0.0)
        weights.sum().backward()
        optimizer.step()


class Worker:
    """One thread for everything that an app does, so that what it keeps per thread stays; it ends with the process."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._live, name="client-app", daemon=True).start()

    def run(self, work: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        """Begin it behind what was given before; the future belongs to the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            future.set_result(result) if error is None else future.set_exception(error)  # type: ignore[arg-type]

        def do() -> None:
            result, error = None, None
            try:
                result = work(*arguments)
            except Exception as raised:  # noqa: BLE001 - it belongs to whoever waits for the future
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._work.put(do)
        return future

    def _live(self) -> None:
        while True:
            self._work.get()()


class ClientHost:
    """One site's ClientApp.

    Args:
        node_config: what the app is told of the node: its partition, its data.
        folder: where ``context.state`` is kept.
    """

    def __init__(self, app: ClientApp, node_config: RunConfig, folder: Path) -> None:
        self._app = app
        self._node_config = node_config
        self._folder = folder

    def run(self, identity: Identity, notice: pb.MessageNotice, body: memoryview | bytes) -> Outcome:
        """Run one message; whatever the app raises becomes an error reply, as Flower has it."""
        shim.take_identity(identity.run_id, identity.node_id)
        path = self._folder / f"context-{identity.run_id}.state"
        before = _read(path, notice.message_id)
        context = Context(identity.run_id, identity.node_id, dict(self._node_config), before, dict(identity.run_config))
        kept = pack(before)
        try:
            message = shim.arrived(
                unpack(notice.header, body),
                run_id=identity.run_id,
                message_id=notice.message_id,
                message_type=notice.message_type,
                group_id=notice.group_id,
                src_node_id=notice.src_node_id,
                dst_node_id=identity.node_id,
                created_at_s=notice.created_at_s,
                ttl_s=notice.ttl_s,
            )
            reply: Any = self._app(message, context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned a {type(reply).__name__}, not a Message")
            outcome = (
                Outcome(None, reply.error.code, reply.error.reason or "")
                if reply.has_error()
                else Outcome(pack(reply.content))
            )
        except Exception as error:
            log.exception("the ClientApp broke on %s", notice.message_type)
            return Outcome(None, shim.APP_FAILED, f"{type(error)}:<'{error}'>")
        if context.state or before:
            _write(path, notice.message_id, kept, pack(context.state))
        return outcome


def _read(path: Path, message_id: str) -> RecordDict:
    """The state before a message: the newest, or the one before when this is the message that made the newest."""
    if not path.exists():
        return RecordDict()
    data = memoryview(path.read_bytes())
    try:
        length = int.from_bytes(data[:_LENGTH], "little")
        head = json.loads(bytes(data[_LENGTH : _LENGTH + length]))
        body = data[_LENGTH + length :]
        middle = head["before_bytes"]
        if head["message"] == message_id:
            return unpack(head["before"].encode(), body[:middle])
        return unpack(head["after"].encode(), body[middle:])
    except (Unreadable, ValueError, KeyError) as error:
        log.error("the context's state in %s cannot be read (%s): it begins empty", path, error)
        return RecordDict()


def _write(path: Path, message_id: str, before: Packed, after: Packed) -> None:
    head = json.dumps(
        {
            "message": message_id,
            "before": before.header.decode(),
            "before_bytes": before.body_bytes,
            "after": after.header.decode(),
        }
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(len(head).to_bytes(_LENGTH, "little"))
        file.write(head)
        file.writelines((*before.pieces, *after.pieces))
    draft.replace(path)
