"""Windows open and close at many sites while whoever keeps their leases is killed with -9 at random.

``WINDFALL_STORM_SEED`` replays one storm.
"""

import os
from datetime import timedelta
from pathlib import Path
from random import SystemRandom
from typing import Final

import pytest

from tests.storm.plan import SEED, Size
from tests.storm.platforms import CONTRACTS, KUBERNETES, MIXED, Platform
from tests.storm.weather import weather

SMALL: Final = Size(sites=10, windows=40, workers=2, lasts=timedelta(seconds=20), kills=8)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", [KUBERNETES, MIXED])
async def test_every_lease_ends_once_whoever_is_killed(tmp_path: Path, backend: str) -> None:
    seed = int(os.environ.get(SEED) or SystemRandom().randrange(1_000_000))
    platform = Platform(backend, CONTRACTS[seed % len(CONTRACTS)])
    print(f"{SEED}={seed}: {platform}")
    outcome = await weather(tmp_path, seed, SMALL, print, platform=platform)
    print(outcome.storm)
    print(outcome.ends, dict(outcome.kills))
    assert not outcome.faults, "\n".join([*outcome.faults, f"replay: {SEED}={seed}"])
    assert min(outcome.kills[what] for what in ("api", "operator", "worker")) > 0
    assert outcome.ends.released + outcome.ends.failed > SMALL.windows // 2
