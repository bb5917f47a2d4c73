"""Folders for the simulated sites, and who of them is there."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from windfall.energy.forecast import PERFECT
from windfall.energy.policy import Policy
from windfall.energy.shipped import SYNTHETIC_SITES, synthetic_trace
from windfall.energy.signals import parse_trace
from windfall.energy.windows import Watch, observe, sight_of

HELD_OUT_BYTES: Final = 111_539
FORECAST_READINGS: Final = 12
SHIFT: Final = timedelta(hours=6)
"""By which the trace's columns are late when there are more sites than columns."""


def text_folders(folder: Path, sites: int, split: str) -> tuple[list[Path], Path]:
    """Tinyshakespeare as it ships, a folder for each site and one with what is held out, the end of the text.

    Args:
        split: ``iid``: all have the whole text and draw their own windows; ``own``: each has a part of the plays.
    """
    text = files("windfall.cli").joinpath("data/tinyshakespeare.txt").read_bytes()
    training, held_out = text[:-HELD_OUT_BYTES], folder / "held-out"
    held_out.mkdir(parents=True)
    (held_out / "text.txt").write_bytes(text[-HELD_OUT_BYTES:])
    each, found = len(training) // sites, []
    for site in range(sites):
        place = folder / f"site-{site}"
        place.mkdir()
        own = training[site * each : (site + 1) * each] if split == "own" else training
        (place / "text.txt").write_bytes(own)
        found.append(place)
    return found, held_out


def image_folders(folder: Path, sites: int, split: str) -> tuple[list[Path], Path]:
    """The Fashion-MNIST images that ship.

    Args:
        split: ``iid``: all have every image and draw in their own order; ``own``: each has its share of them.
    """
    whole = shipped("fashion-mnist-sprite")
    shares: list[dict[str, object]] = [{"part": f"{site}/{sites}"} if split == "own" else {} for site in range(sites)]
    return share_folders(folder, whole, shares), whole


def share_folders(folder: Path, whole: Path, shares: Sequence[Mapping[str, object]]) -> list[Path]:
    """A folder for each site, with a ``share.json`` that says what of the whole is its own."""
    found = []
    for site, share in enumerate(shares):
        place = folder / f"site-{site}"
        place.mkdir(parents=True)
        (place / "share.json").write_text(json.dumps({"of": str(whole), **share}))
        found.append(place)
    return found


def shipped(name: str) -> Path:
    """A folder of data that come with the tasks."""
    return Path(str(files("windfall.tasks").joinpath("data", name)))


def present(sites: int) -> Callable[[int], Sequence[int]]:
    """Which sites take part in a round when a round lasts one reading of the shipped trace, 5 minutes: those whose
    window is open. The day repeats; readings at which nobody is there have no round."""
    day = _rounds_of_a_day(sites)
    return lambda round_: day[round_ % len(day)]


@cache
def _rounds_of_a_day(sites: int) -> tuple[tuple[int, ...], ...]:
    open_at = [_open(site) for site in range(sites)]
    together = [tuple(site for site in range(sites) if open_at[site][at]) for at in range(len(open_at[0]))]
    return tuple(each for each in together if each)


def _open(site: int) -> list[bool]:
    """Of each reading of the day, whether the site's window is open. A fourth site is the first one six hours later."""
    late, column = divmod(site, len(SYNTHETIC_SITES))
    trace = parse_trace(synthetic_trace(), SYNTHETIC_SITES[column])
    watch, seen, policy = Watch(site=f"site-{site}", watched_since=trace.start), [], Policy(error=PERFECT)
    for at, reading in enumerate(trace.points):
        sight = sight_of(reading, trace.points[at + 1 : at + 1 + FORECAST_READINGS], policy)
        assert sight is not None, "the shipped trace is plausible"
        watch, _ = observe(watch, sight, policy)
        seen.append(watch.is_open)
    shift = late * SHIFT // trace.step % len(seen)
    return seen[-shift:] + seen[:-shift] if shift else seen
