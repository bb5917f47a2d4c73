"""``make bench-provisioner``: how fast capacity follows a window, how late it leaves, and what a thousand sites cost.

``ARGS`` names figures, or the beginnings of figures, to take alone: ``make bench-provisioner ARGS="latest"``.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import provisioner_events, provisioner_grace, provisioner_reconcile
from tests.bench.figures import Figure, report

Measurement = Callable[[Path], Sequence[Figure]]


def main() -> None:
    wanted = sys.argv[1:] or os.environ.get("FIGURES", "").split(",")
    figures: list[Figure] = []
    for names, measure in MEASUREMENTS:
        if any(name.startswith(wish.strip()) for name in names for wish in wanted):
            print(f"measuring {', '.join(names)} ...", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                figures += measure(Path(folder))
    if not figures:
        raise SystemExit(f"no figure is called {' or '.join(wanted)}")
    report("provisioner", figures)


def reconcile(folder: Path) -> Sequence[Figure]:
    return asyncio.run(provisioner_reconcile.measured())


MEASUREMENTS: Sequence[tuple[tuple[str, ...], Measurement]] = (
    (("event to first API write p99 ms",), provisioner_events.first_write),
    (("latest release over grace s",), provisioner_grace.latest_release),
    (("reconcile 1000 sites CPU %", "reconcile 1000 sites MiB"), reconcile),
)
"""Figures by the measurement that takes them."""

if __name__ == "__main__":
    main()
