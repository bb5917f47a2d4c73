"""What the bus says of a site or a federation, folded into what stands on the object.

Sentences come at least once and in any order: the newer one by the speaker's clock wins, and a window or lease that is
older than the one that stands there says nothing. The object is the truth; a restart goes on from it.
"""

from typing import Literal

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
from windfall.contracts.resources.federation import Progress
from windfall.contracts.resources.site import Capacity, Window

WindowWord = WindowExpected | WindowOpened | WindowClosing | WindowClosed | WindowWithdrawn
CapacityWord = NodeHindered | NodeReady | NodeFailed | SiteDrained | NodeReleased
FederationWord = RoundCompleted | FederationFinished


def window_after(window: Window | None, word: WindowWord) -> Window | None:
    """The site's window, once this has been said as well."""
    same = window is not None and window.id == str(word.window_id)
    if window is not None and word.at < window.at:
        return window
    if window is not None and not same and window.state in ("open", "closing") and not isinstance(word, WindowOpened):
        # An open window ends by its own end, or when the next one opens.
        return window
    if same and window is not None and window.state in ("closed", "withdrawn"):
        return window
    before = window if same else None
    opened_at = before.opened_at if before else None
    match word:
        case WindowExpected():
            if before is not None and before.state != "expected":
                return window
            return Window(
                id=str(word.window_id),
                state="expected",
                at=word.at,
                closes_at=word.expected_close_at,
                because=word.because,
            )
        case WindowOpened():
            return Window(
                id=str(word.window_id),
                state="open",
                at=word.at,
                opened_at=word.at,
                closes_at=word.expected_close_at,
                because=word.because,
            )
        case WindowClosing():
            return Window(
                id=str(word.window_id), state="closing", at=word.at, opened_at=opened_at, closes_at=word.closes_at
            )
        case WindowClosed():
            return Window(id=str(word.window_id), state="closed", at=word.at, opened_at=opened_at, because=word.because)
        case WindowWithdrawn():
            return Window(id=str(word.window_id), state="withdrawn", at=word.at, because=word.because)


def capacity_after(capacity: Capacity | None, word: CapacityWord) -> Capacity | None:
    """The site's lease, once this has been said as well."""
    if capacity is not None and (word.lease_token, word.at) < (capacity.lease_token, capacity.at):
        return capacity
    same = capacity is not None and capacity.lease_token == word.lease_token
    if same and capacity is not None and capacity.state in ("released", "failed"):
        return capacity
    before = capacity if same else None
    node, backend = (before.node, before.backend) if before else ("", "")
    match word:
        case NodeHindered():
            state: Literal["hindered", "starting"] = "hindered" if word.because else "starting"
            return Capacity(lease_token=word.lease_token, state=state, at=word.at, because=word.because)
        case NodeReady():
            return Capacity(
                lease_token=word.lease_token, node=word.node, backend=word.backend, state="ready", at=word.at
            )
        case NodeFailed():
            return Capacity(lease_token=word.lease_token, state="failed", at=word.at, because=word.reason)
        case SiteDrained():
            because = "" if word.delivered else "work since the last contribution could not be delivered"
            return Capacity(
                lease_token=word.lease_token, node=node, backend=backend, state="drained", at=word.at, because=because
            )
        case NodeReleased():
            return Capacity(
                lease_token=word.lease_token,
                node=word.node,
                backend=backend,
                state="released",
                at=word.at,
                because=word.reason,
            )


def progress_after(progress: Progress | None, word: FederationWord) -> Progress | None:
    """How far the federation is, once this has been said as well."""
    match word:
        case RoundCompleted():
            if progress is not None and (progress.finished or word.round < progress.round):
                return progress
            return Progress(
                round=word.round,
                tokens=word.tokens_total,
                loss_nats=word.loss_nats,
                sites=len(word.contributors),
                at=word.at,
            )
        case FederationFinished():
            return Progress(
                round=progress.round if progress else max(0, word.rounds - 1),
                tokens=word.tokens_total,
                loss_nats=progress.loss_nats if progress else None,
                sites=progress.sites if progress else 0,
                at=word.at,
                finished=True,
                because=word.because,
            )
