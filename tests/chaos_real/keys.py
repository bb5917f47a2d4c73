"""Certificates that run out while a fleet trains."""

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES, Needs
from tests.chaos_real.processes import eventually
from windfall.cli.keys import Place, issued
from windfall.contracts.events import ContributionAccepted, SiteJoined
from windfall.contracts.subjects import HUB

_YEAR: Final = timedelta(days=365)
_EXPIRED_S: Final = 4.0
_PLACES: Final = (HUB, *SITES)


def tls(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """Keys as ``windfall keys`` makes them, and what each place is told of them."""
    if not folder.exists():
        list(issued(folder, [Place(name, ()) for name in _PLACES], _YEAR, datetime.now(UTC)))
    return {
        name: {
            "TLS_CERTIFICATE": str(folder / name / "tls.crt"),
            "TLS_KEY": str(folder / name / "tls.key"),
            "TLS_AUTHORITY": str(folder / name / "ca.crt"),
        }
        for name in _PLACES
    }


def over_tls() -> Needs:
    """A fleet whose gRPC is as it must be beyond loopback."""
    return Needs(tls=tls)


async def expired(fleet: Fleet, dice: random.Random) -> float:
    """A site's certificate, or the hub's, runs out; whoever must connect anew cannot until there is a new one."""
    folder, place, site = fleet.folder / "keys", dice.choice((HUB, dice.choice(SITES))), dice.choice(SITES)
    site = place if place in SITES else site
    long_ago = datetime.now(UTC) - 2 * _YEAR
    _anew(folder, place, long_ago)
    since = datetime.now(UTC)
    await _restarted(fleet, place)
    await asyncio.sleep(_EXPIRED_S)
    if place != HUB and any(fleet.wall(one) > since and one.site == site for one in fleet.said(SiteJoined)):
        raise Violated(f"I10 {site} was let in with a certificate that had run out")
    _anew(folder, place, datetime.now(UTC))
    renewed = datetime.now(UTC)
    await _restarted(fleet, place)
    counted = await fleet.until(ContributionAccepted, renewed, lambda one: one.site == site)
    await fleet.train(renewed)
    return (fleet.wall(counted) - renewed).total_seconds()


async def _restarted(fleet: Fleet, place: str) -> None:
    """Who reads its keys when it starts."""
    if place == HUB:
        await fleet.coordinator.kill()
        return

    async def runs() -> bool:
        return bool(fleet.trainers(place))

    await eventually(runs, 60)
    os.kill(fleet.trainer(place), signal.SIGKILL)


def _anew(folder: Path, place: str, now: datetime) -> None:
    (folder / place / "tls.crt").unlink()
    list(issued(folder, [Place(place, ())], _YEAR, now))


FAULTS = (
    Fault(
        "certificate expired",
        "the certificate of the hub or of a site (mTLS, as `windfall keys` makes them) has run out when its owner must "
        "connect anew; 4 s later there is a new one",
        "the new certificate lies there, and its owner is killed to read it → a contribution of the site counts",
        expired,
        needs=over_tls,
    ),
)
