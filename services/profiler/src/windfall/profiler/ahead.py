"""A node that is ready ahead of its window: benchmarking it would draw training power before that is surplus.

So a node that must be benchmarked waits for its window to open. One whose hardware is known is profiled at once: only
the link is measured, which draws next to nothing, and its window opens with the profile there.
"""

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import NodeReady


class Ahead(BaseModel):
    """The window that is expected, and the node that waits for it to open; none outside one."""

    model_config = ConfigDict(frozen=True)

    window_id: UUID | None = None
    waiting: NodeReady | None = None


def expected(ahead: Ahead, window_id: UUID) -> Ahead:
    """A window is near. Its node cannot be ready before this is heard: it is started for the same word."""
    return ahead if ahead.window_id == window_id else Ahead(window_id=window_id)


def must_wait(ahead: Ahead, ready: NodeReady) -> bool:
    """Whether a node's power is not known to be surplus yet."""
    return ready.window_id == ahead.window_id


def put_off(ahead: Ahead, ready: NodeReady) -> Ahead:
    """A node waits to be benchmarked."""
    return ahead.model_copy(update={"waiting": ready})


def over(ahead: Ahead, window_id: UUID) -> Ahead:
    """The window has opened, or does not come: nothing waits for it any more."""
    return Ahead() if ahead.window_id == window_id else ahead
