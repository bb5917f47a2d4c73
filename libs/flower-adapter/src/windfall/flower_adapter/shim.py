"""Everything here that Flower does not promise: what it keeps private, and therefore which versions are supported.

flwr 1.41.0 is supported. 1.38 to 1.40 hold the same privates and have not been tried; before 1.38 a ``Message`` has no
task identity. Another version is refused at start, in one line, before it fails somewhere inside.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

from flwr.app import Message, Metadata, RecordDict
from flwr.app.error import Error
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from windfall.servicekit.errors import ExitCode, Mistake

SUPPORTED: Final = ("1.41.0",)
COORDINATOR_NODE: Final = SUPERLINK_NODE_ID
"""The node id of whoever runs the ServerApp."""
NODE_UNAVAILABLE: Final = ErrorCode.NODE_UNAVAILABLE
APP_FAILED: Final = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
MESSAGE_UNAVAILABLE: Final = ErrorCode.MESSAGE_UNAVAILABLE
REPLY_UNAVAILABLE: Final = ErrorCode.REPLY_MESSAGE_UNAVAILABLE

__all__ = ["Error", "Result", "Run"]


def check_version(found: str | None = None) -> None:
    """Raises ``Mistake`` under a version of Flower that this adapter was not tried with."""
    found = found or version("flwr")
    if found not in SUPPORTED:
        raise Mistake(
            f"flwr {found} is installed; this adapter supports flwr {', '.join(SUPPORTED)}",
            "Install that one: pip install windfall-flower-adapter pins it",
            ExitCode.RESOURCE,
        )


def log_as_we_do() -> None:
    """Flower colours its lines and writes them by itself; let them go the way of all others."""
    flower = logging.getLogger("flwr")
    for handler in list(flower.handlers):
        flower.removeHandler(handler)


def take_identity(run_id: int, node_id: int) -> None:
    """Say who this process is: ``Message`` asks. It is process-wide, so one process runs one app."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, 1


def name_message(message: Message, message_id: str) -> None:
    """Give a message its id, which Flower's own SuperLink would have given it."""
    message.metadata.__dict__["_message_id"] = message_id


def arrived(
    content: RecordDict,
    *,
    run_id: int,
    message_id: str,
    message_type: str,
    group_id: str,
    src_node_id: int,
    dst_node_id: int,
    created_at_s: float,
    ttl_s: float,
) -> Message:
    """A message as the ClientApp sees it."""
    metadata = Metadata(
        run_id=run_id,
        message_id=message_id,
        src_node_id=src_node_id,
        dst_node_id=dst_node_id,
        reply_to_message_id="",
        group_id=group_id,
        created_at=created_at_s,
        ttl=ttl_s,
        message_type=message_type,
        src_task_id=1,
    )
    construct: Callable[..., Message] = Message  # ``metadata`` is in no overload: Flower itself constructs so
    return construct(content=content, metadata=metadata)


def described_run(run_id: int, app: str, app_version: str) -> Run:
    """What ``grid.run`` says."""
    run = Run.create_empty(run_id)
    run.fab_id, run.fab_version = app, app_version
    return run


@contextmanager
def results_watched(seen: Callable[[Result], None]) -> Iterator[None]:
    """Within, ``seen`` is given the result of each stock ``Strategy.start`` before the app is: its last arrays are in
    no message. A strategy that has a ``start`` of its own and does not call the stock one is not seen.
    """
    stock = Strategy.start

    def start(self: Strategy, *arguments: Any, **named: Any) -> Result:
        result = stock(self, *arguments, **named)
        seen(result)
        return result

    Strategy.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Strategy.start = stock  # type: ignore[method-assign]
