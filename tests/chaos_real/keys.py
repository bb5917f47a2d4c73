"""Certificates that run out, and authorities that are replaced, while a fleet trains."""

import asyncio
import random
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES, Needs
from windfall.cli.identity.authority import put
from windfall.cli.keys import AUTHORITY, Place, issued
from windfall.contracts.events import ContributionAccepted
from windfall.contracts.subjects import HUB

_YEAR: Final = timedelta(days=365)
_EXPIRED_S: Final = 4.0
_ON_ITS_WAY: Final = timedelta(seconds=1)
"""What had arrived before a connection broke counts within this."""
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
    """A site's certificate, or the hub's, has run out when every connection breaks; then there is a new one."""
    folder, place = fleet.folder / "keys", dice.choice(_PLACES)
    hurt = SITES if place == HUB else (place,)
    running = _running(fleet)
    _anew(folder, place, datetime.now(UTC) - 2 * _YEAR)
    _cut(fleet, hurt)
    since = datetime.now(UTC) + _ON_ITS_WAY
    await asyncio.sleep(_EXPIRED_S)
    if any(fleet.wall(one) > since and one.site in hurt for one in fleet.said(ContributionAccepted)):
        raise Violated(f"I10 what came under a certificate of {place} that had run out was counted")
    _anew(folder, place, datetime.now(UTC))
    renewed = datetime.now(UTC)
    counted = [await fleet.until(ContributionAccepted, renewed, partial(_of, site)) for site in hurt]
    await fleet.train(renewed)
    _nobody_started(fleet, running)
    return max((fleet.wall(one) - renewed).total_seconds() for one in counted)


async def another_authority(fleet: Fleet, dice: random.Random) -> float:
    """All keys of a fleet change to another authority, place by place, while it trains."""
    folder, running = fleet.folder / "keys", _running(fleet)
    following = folder / "next"
    list(issued(following, [Place(name, ()) for name in _PLACES], _YEAR, datetime.now(UTC)))
    both = b"".join((one / AUTHORITY / "ca.crt").read_bytes() for one in (folder, following))
    for name in _PLACES:
        put(folder / name / "ca.crt", both, 0o644)
    await _again(fleet)
    for name in dice.sample(_PLACES, len(_PLACES)):
        for file in ("tls.key", "tls.crt"):
            put(folder / name / file, (following / name / file).read_bytes(), 0o600)
        await _again(fleet)
    for path in (following / AUTHORITY).iterdir():
        put(folder / AUTHORITY / path.name, path.read_bytes(), 0o600)
    for name in _PLACES:
        put(folder / name / "ca.crt", (following / name / "ca.crt").read_bytes(), 0o644)
    took = await _again(fleet)
    shutil.rmtree(following)
    _nobody_started(fleet, running)
    return took


async def _again(fleet: Fleet) -> float:
    """Everybody connects anew; seconds until a whole round that began afterwards is done."""
    since = datetime.now(UTC)
    _cut(fleet, SITES)
    done = await fleet.train(since)
    return (fleet.wall(done) - since).total_seconds()


def _cut(fleet: Fleet, sites: Sequence[str]) -> None:
    for site in sites:
        fleet.links[site].rpc.cut()


def _of(site: str, one: ContributionAccepted) -> bool:
    return one.site == site


def _running(fleet: Fleet) -> dict[str, list[int]]:
    """Pids of everything."""
    parts = {name: [part.pid] for name, part in fleet.parts.items()}
    return parts | {f"site-trainer@{site}": fleet.trainers(site) for site in SITES}


def _nobody_started(fleet: Fleet, before: Mapping[str, Sequence[int]]) -> None:
    if strange := [name for name, pids in _running(fleet).items() if pids != before[name]]:
        raise Violated(f"I8 {', '.join(strange)} had to start anew to read a certificate")


def _anew(folder: Path, place: str, now: datetime) -> None:
    (folder / place / "tls.crt").unlink()
    list(issued(folder, [Place(place, ())], _YEAR, now))


FAULTS = (
    Fault(
        "certificate expired",
        "the certificate of the hub or of a site (mTLS, as `windfall keys` makes them) has run out when every "
        "connection breaks; 4 s later there is a new one, and no process starts anew",
        "the new certificate lies there → a contribution of the site counts",
        expired,
        needs=over_tls,
    ),
    Fault(
        "another authority",
        "both authorities are believed, then every place shows a certificate of the new one, then the old one is "
        "taken away; every connection breaks after each step, and no process starts anew",
        "the old authority is gone, and every connection breaks → a round that began afterwards has both sites",
        another_authority,
        needs=over_tls,
        minutes=0.7,
    ),
)
