"""What the bus has told and does not stand on the objects yet."""

from typing import TypeVar

from windfall.contracts.resources.federation import Progress
from windfall.contracts.resources.site import Capacity, SiteStatus, Window
from windfall.provisioner.operator.window import (
    CapacityWord,
    FederationWord,
    WindowWord,
    capacity_after,
    progress_after,
    window_after,
)

W = TypeVar("W", bound=WindowWord | CapacityWord | FederationWord)


class Hearsay:
    """The newest sentences of each kind; folded into a status they give what should stand there.

    A site that is told of before it is there is remembered; one that there never is costs some hundred bytes.
    """

    def __init__(self) -> None:
        self._windows: dict[str, dict[type, WindowWord]] = {}
        self._capacity: dict[str, dict[type, CapacityWord]] = {}
        self._progress: dict[str, dict[type, FederationWord]] = {}

    def window(self, word: WindowWord) -> None:
        _newest(self._windows.setdefault(word.site, {}), word)

    def capacity(self, word: CapacityWord) -> None:
        _newest(self._capacity.setdefault(word.site, {}), word)

    def progress(self, word: FederationWord) -> None:
        _newest(self._progress.setdefault(word.federation, {}), word)

    def site(self, name: str, status: SiteStatus) -> tuple[Window | None, Capacity | None]:
        """What should stand on a site."""
        window, capacity = status.window, status.capacity
        for word in _in_order(self._windows.get(name, {})):
            window = window_after(window, word)
        for told in _in_order(self._capacity.get(name, {})):
            capacity = capacity_after(capacity, told)
        return window, capacity

    def federation(self, name: str, progress: Progress | None) -> Progress | None:
        """What should stand on a federation."""
        for word in _in_order(self._progress.get(name, {})):
            progress = progress_after(progress, word)
        return progress


def _newest(known: dict[type, W], word: W) -> None:
    before = known.get(type(word))
    if before is None or before.at <= word.at:
        known[type(word)] = word


def _in_order(known: dict[type, W]) -> list[W]:
    return sorted(known.values(), key=lambda word: word.at)
