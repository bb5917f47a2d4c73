"""How a SuperNode goes without losing what it trains: the kubelet runs this before it sends SIGTERM.

Flower has no word for it. While a ClientApp is at work there is a process ``flwr-clientapp``; once there has been none
for a while, what it sent has left as well, and the pod may go. The kubelet ends the wait when the grace is over.
"""

from datetime import timedelta
from typing import Any, Final

from windfall.contracts.resources.flower import Pool

GRACE: Final = timedelta(minutes=10)
SETTLE: Final = timedelta(seconds=10)
"""A SuperNode asks for work every 3 s and hands results on within as much (measured); three times that."""

WAIT: Final = """\
import pathlib, sys, time
def at_work():
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\\0")
            except OSError:
                continue
            if any(word.rsplit(b"/", 1)[-1] == b"flwr-clientapp" for word in words[:3]):
                return True
    return False
settle, idle_since = float(sys.argv[1]), time.monotonic()
while time.monotonic() - idle_since < settle:
    time.sleep(min(0.5, settle))
    if at_work():
        idle_since = time.monotonic()
"""
"""Of Python's standard library alone: Flower's images have it."""


def grace(pool: Pool) -> timedelta:
    """From being told to go until being killed."""
    return GRACE if pool.drain.grace is None else pool.drain.grace


def hook(pool: Pool) -> dict[str, Any]:
    """A container's ``lifecycle``. A list of arguments: no shell."""
    settle = SETTLE if pool.drain.settle is None else pool.drain.settle
    return {"preStop": {"exec": {"command": ["python", "-c", WAIT, f"{settle.total_seconds():g}"]}}}
