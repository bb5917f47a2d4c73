"""For a ClientApp that wants to know when its power ends. A stock app needs none of this.

A ClientApp is a function that nobody can interrupt. One that looks here between two batches can end its epoch early and
reply with what it has, weighed by the examples that it has really seen::

    from windfall.flower_adapter import window

    for batch in loader:
        if window.closing():
            break

One that does not look is given ``WINDFALL_FINISH_WITHIN`` to reply, and then an error is replied in its place.
"""

import threading

_closing = threading.Event()


def closing() -> bool:
    """Whether the site is about to go dark: reply now with what there is. False outside a Windfall site."""
    return _closing.is_set()


def close() -> None:
    """For the host: from now on the app is asked to end."""
    _closing.set()
