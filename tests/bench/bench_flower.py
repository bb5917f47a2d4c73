"""A stock Flower app on our transport, beside Flower's own runtime: an empty round, and one of 100 MB each way.

make bench-flower                                # beside what Flower 1.41 took on 2 busy cores
.venv/bin/python -m tests.bench.bench_flower --peer  # runs Flower's own runtime as well: minutes
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.figures import Figure, percentile, report
from tests.bench.flower_rounds import Rounds, flowers, ours

_MB_ELEMENTS: Final = 100_000_000 // 4
_KNOWN: Final = {"no-op": 9_650.0, "100 MB": 21.0}
"""Flower 1.41's medians, 3 SuperNodes on 2 busy cores: ms, and s."""


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="windfall-flower-") as name:
        folder = Path(name)
        empty = await ours(folder / "empty", 31, 4, evaluate=False)
        both = await ours(folder / "both", 16, 4, evaluate=True)
        large = await ours(folder / "large", 4, _MB_ELEMENTS, evaluate=False)
        own_empty = own_large = None
        if "--peer" in sys.argv:
            own_empty = await flowers(folder / "own-empty", 5, 4, evaluate=False)
            own_large = await flowers(folder / "own-large", 3, _MB_ELEMENTS, evaluate=False)
    load = f"3 sites, processes on loopback, plaintext, digests and fsync on; load {os.getloadavg()[0]:.1f}"
    report(
        "flower",
        [
            Figure(
                "flower app no-op round, 3 sites ms",
                1000 * empty.median_s,
                "ms",
                "at most 50",
                _beside("no-op", own_empty, 1000) | {"p90": 1000 * percentile(empty.whole_s, 0.9)},
                f"FedAvg, train alone, median of {len(empty.whole_s)}; {load}",
            ),
            Figure(
                "flower app round with evaluation, 3 sites ms",
                1000 * both.median_s,
                "ms",
                "–",
                {"p90": 1000 * percentile(both.whole_s, 0.9)},
                f"train and evaluate, median of {len(both.whole_s)}; {load}",
            ),
            Figure(
                "flower app round 100 MB s",
                large.median_s,
                "s",
                "at most 2",
                _beside("100 MB", own_large, 1)
                | {"until the replies are there": large.replies_s[-1], "coordinator peak MB": large.coordinator_rss_mb},
                f"float32, 100 MB down and up per site, FedAvg's own averaging included; {load}",
            ),
            Figure(
                "flower app round 100 MB CPU s",
                large.cpu_s,
                "s",
                "–",
                {"Flower 1.41's own (not run; known), all processes": 25.0},
                "as above, coordinator and sites together",
            ),
        ],
    )


def _beside(what: str, own: Rounds | None, scale: float) -> dict[str, float | str]:
    if own is None:
        return {"Flower 1.41's own (not run; known)": _KNOWN[what]}
    return {"Flower 1.41's own": scale * own.median_s, "its replies": scale * own.replies_s[-1]}


if __name__ == "__main__":
    asyncio.run(main())
