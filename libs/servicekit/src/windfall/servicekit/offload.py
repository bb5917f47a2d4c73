"""Blocking work beside the event loop."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs blocking work: ``asyncio.to_thread`` beside the event loop, or a double in place, on virtual time."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]: ...
