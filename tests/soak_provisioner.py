"""The storm of :mod:`tests.test_windows_storm` in full: 200 windows at 50 sites, with a table of what came of it.

``WINDFALL_STORM_SEED`` replays one; ``--sites``, ``--windows``, ``--seconds``, ``--kills`` and ``--workers`` make it
larger or smaller; ``--backend`` says what the sites are made of, ``all`` of them mixed. The exit code is 1 where
something does not hold.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import SystemRandom

from tests.bench.figures import Figure, report
from tests.storm.outcome import Outcome
from tests.storm.plan import GRACE, SEED, Size
from tests.storm.platforms import CONTRACTS, KUBERNETES, MACHINES, MIXED, Platform
from tests.storm.servers import STARTER, double, real
from tests.storm.weather import weather


def figures(outcome: Outcome, platform: Platform, server: str) -> list[Figure]:
    size, ends = outcome.storm.size, outcome.ends
    conditions = (
        f"seed {outcome.storm.seed}, {size.sites} sites in {size.workers} processes, "
        f"{size.lasts.total_seconds():.0f} s, {platform} on {server}"
    )

    def row(
        figure: str, value: float, beside: Mapping[str, float | str] | None = None, unit: str = "", goal: str = ""
    ) -> Figure:
        return Figure(figure, value, unit, goal, dict(beside or {}), conditions)

    leases = {"released": ends.released, "failed": ends.failed, "were ready": ends.ready}
    return [
        row("windows", size.windows + len(outcome.storm.lasting), {"sentences said": outcome.sentences}),
        row("leases", ends.released + ends.failed, leases),
        row("leases that were ready %", 100 * ends.ready / max(1, ends.released + ends.failed), goal="≥ 70"),
        row("releases by reason", ends.released, ends.reasons),
        row("kills with -9", outcome.kills.total(), outcome.kills),
        row("leases that did not end exactly once", len(ends.faults), goal="0"),
        row("releases later than grace + 5 s", ends.late, goal="0"),
        row("latest release over grace s", ends.latest.total_seconds(), {"grace": GRACE.total_seconds()}, "s", "≤ 5"),
        row("objects without an owner", outcome.orphans, goal="0"),
        row("unchanged objects that were changed", outcome.rewritten, {"changes": outcome.changes}, goal="0"),
        row("things that do not hold", len(outcome.faults), goal="0"),
    ]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("sites", 50), ("windows", 200), ("seconds", 200), ("kills", 40), ("workers", 4)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--real", action="store_true", help=f"on the control plane that {STARTER.name} starts")
    parser.add_argument("--backend", choices=(KUBERNETES, *MACHINES, MIXED), default=KUBERNETES)
    parser.add_argument("--contract", choices=CONTRACTS, default=CONTRACTS[0], help="of Cluster API and k0smotron")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave journals and logs there")
    said = parser.parse_args(words)
    platform = Platform(said.backend, said.contract)
    seed = int(os.environ.get(SEED) or SystemRandom().randrange(1_000_000))
    size = Size(said.sites, said.windows, said.workers, timedelta(seconds=said.seconds), said.kills)
    say = partial(print, flush=True)
    with ExitStack() as stack:
        folder = said.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="windfall-storm-")))
        folder.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(weather(folder, seed, size, say, real if said.real else double, platform))
    server = "kube-apiserver" if said.real else "the double"
    report("soak-provisioner", figures(outcome, platform, server))
    wrong = [*outcome.faults, *([f"{outcome.ends.late} releases were late"] if outcome.ends.late else [])]
    if wrong:
        print(outcome.storm)
        print("\n".join([f"replay: {SEED}={seed}", *wrong]), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
