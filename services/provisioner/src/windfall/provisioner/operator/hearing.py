"""What the operator hears on the bus: each sentence is remembered, and its site or federation reconciled."""

from collections.abc import Callable

from windfall.contracts.events import (
    FederationFinished,
    NodeFailed,
    NodeHindered,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    SiteDrained,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.provisioner.operator.hearsay import Hearsay
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.provisioner.operator.store import Owner
from windfall.provisioner.operator.window import CapacityWord, FederationWord, WindowWord
from windfall.servicekit.bus import Bus


def listen(bus: Bus, hearsay: Hearsay, reconcile: Callable[[Owner], None]) -> None:
    """From the newest of each kind on: after a restart it comes again, and so does what was not written yet."""

    async def window(word: WindowWord) -> None:
        hearsay.window(word)
        reconcile((SITE, word.site))

    async def capacity(word: CapacityWord) -> None:
        hearsay.capacity(word)
        reconcile((SITE, word.site))

    async def progress(word: FederationWord) -> None:
        hearsay.progress(word)
        reconcile((FEDERATION, word.federation))

    bus.follows(WindowExpected, "*", window)
    bus.follows(WindowOpened, "*", window)
    bus.follows(WindowClosing, "*", window)
    bus.follows(WindowClosed, "*", window)
    bus.follows(WindowWithdrawn, "*", window)
    bus.follows(NodeHindered, "*", capacity)
    bus.follows(NodeReady, "*", capacity)
    bus.follows(NodeFailed, "*", capacity)
    bus.follows(SiteDrained, "*", capacity)
    bus.follows(NodeReleased, "*", capacity)
    bus.follows(RoundCompleted, "*", progress)
    bus.follows(FederationFinished, "*", progress)
