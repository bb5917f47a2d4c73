"""What a storm does to a fleet, all of it from one seed: the same numbers give the same storm, line by line."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

from windfall.contracts.commands import AcquireNode, ReleaseNode
from windfall.contracts.events import WindowClosed, WindowExpected, WindowOpened, WindowWithdrawn
from windfall.contracts.message import Message
from windfall.servicekit.testing.kube_played import Course

SEED: Final = "WINDFALL_STORM_SEED"
"""The variable that replays a storm."""
GRACE: Final = timedelta(seconds=3)
"""Of every site's nodes."""
PATIENCE: Final = timedelta(seconds=2)
READY_WITHIN: Final = timedelta(seconds=30)
_LONGEST: Final = 30.0
"""Of a window, in seconds; less where the whole storm is short."""
_LATEST: Final = 3.0
"""A sentence comes at most so many seconds after it was said, its copies included."""


@dataclass(frozen=True)
class Size:
    """How large a storm is."""

    sites: int
    windows: int
    """At all sites together."""
    workers: int
    """Processes that share the sites' provisioners."""
    lasts: timedelta
    kills: int


@dataclass(frozen=True)
class Said:
    """A sentence, when it is given to the bus, and which copy of it this is."""

    at: timedelta
    message: Message
    copy: int = 0

    def __str__(self) -> str:
        kind, window = type(self.message).__name__, getattr(self.message, "window_id", None)
        again = f" (copy {self.copy})" if self.copy else ""
        return f"{self.message.whom}: {kind} {str(window)[:8]}{again}"


@dataclass(frozen=True)
class Kill:
    """A process dies by -9 and comes back after a while."""

    at: timedelta
    what: str
    """``api``, ``operator`` or ``worker-N``."""
    down: timedelta

    def __str__(self) -> str:
        return f"kill -9 {self.what}, away for {self.down.total_seconds():.1f} s"


@dataclass(frozen=True)
class Harm:
    """Something befalls one pod of a lease."""

    at: timedelta
    how: str
    """``delete``, ``kill`` or ``hold``: a finalizer keeps it for two seconds."""
    chance: float
    """Which one: between the first, 0, and the last, 1, of those that are there."""

    def __str__(self) -> str:
        return f"{self.how} a pod ({self.chance:.2f})"


@dataclass(frozen=True)
class Leave:
    """A Site is deleted, whatever it holds."""

    at: timedelta
    site: str

    def __str__(self) -> str:
        return f"delete the Site {self.site}"


Blow = Said | Kill | Harm | Leave


@dataclass(frozen=True)
class Storm:
    """
    Args:
        owned: sites whose objects a ``Site`` owns; the others have an anchor of their own.
        blows: by the time at which they fall.
        lasting: windows that are open when the storm is over, and their sites.
        windows: of each site.
    """

    seed: int
    size: Size
    sites: tuple[str, ...]
    owned: frozenset[str]
    blows: tuple[Blow, ...]
    lasting: dict[UUID, str]
    windows: dict[str, tuple[UUID, ...]]

    def __str__(self) -> str:
        lines = [f"{blow.at.total_seconds():7.2f}  {blow}" for blow in self.blows]
        return "\n".join([f"seed {self.seed}: {self.size}", *lines])

    def course(self, window: UUID) -> Course:
        """What the pods of a window do."""
        chance = Random(f"{self.seed}/{window}")
        starts, stops = _seconds(chance.uniform(0, 0.5)), _seconds(chance.uniform(0, 0.5))
        if window in self.lasting:
            return Course(starts=starts, stops=stops)
        slow = _seconds(chance.uniform(2, 8))
        courses = {
            Course(starts=starts, stops=stops): 50,
            Course(starts=starts, stops=slow): 15,
            Course(becomes_ready=False, stops=stops): 4,
            Course(waits=("ErrImagePull", "no such image")): 4,
            Course(starts=starts, runs=_seconds(chance.uniform(0.5, 3))): 8,
            Course(starts=starts, runs=_seconds(chance.uniform(0.1, 2)), exit_code=3): 6,
            Course(starts=starts, lost=True): 6,
        }
        return chance.choices(list(courses), list(courses.values()))[0]


def storm(seed: int, size: Size, began: datetime) -> Storm:
    """
    Args:
        began: the instant from which the sentences count.
    """
    chance = Random(seed)
    sites = tuple(f"s{number}" for number in range(size.sites))
    owned = frozenset(site for number, site in enumerate(sites) if number % 2)
    going = tuple(site for number, site in enumerate(sites) if number % 10 == 1)
    staying = [site for number, site in enumerate(sites) if number % 3 == 0 and site not in going]
    windows = {site: tuple(_uuid(chance) for _ in range(_share(size, number))) for number, site in enumerate(sites)}
    blows: list[Blow] = []
    lasts = size.lasts.total_seconds()
    for site, ids in windows.items():
        for number, window in enumerate(ids):
            longest = min(_LONGEST, lasts / 3)
            begin = 1 + (lasts - longest - 3) * (number + chance.random()) / len(ids)
            blows += _window(chance, began, site, window, begin, longest)
    targets = ["api", "operator", *(f"worker-{number}" for number in range(size.workers))]
    for number in range(size.kills):
        # Each of them in turn, so that a small storm has one of each kind.
        at = 2 + (lasts - 4) * (number + chance.random()) / size.kills
        blows.append(Kill(_seconds(at), targets[number % len(targets)], _seconds(chance.uniform(0, 1.5))))
    for _ in range(size.windows // 4):
        how = chance.choice(("delete", "kill", "hold"))
        blows.append(Harm(_seconds(chance.uniform(2, lasts)), how, chance.random()))
    blows += [Leave(_seconds(chance.uniform(0.4, 0.8) * lasts), site) for site in going]
    lasting = {_uuid(chance): site for site in staying}
    after = lasts + _LATEST
    for window, site in lasting.items():
        windows[site] += (window,)
        blows += [Said(_seconds(after + 1), _opened(chance, began, site, window, after + 1))]
    for site, ids in windows.items():
        for window in (one for one in ids if one not in lasting):
            blows += ends(chance, began, site, window, after)
    return Storm(seed, size, sites, owned, tuple(sorted(blows, key=lambda blow: blow.at)), lasting, windows)


def ends(chance: Random, began: datetime, site: str, window: UUID, at: float) -> list[Said]:
    """Both words that end a window, each on its stream: whichever comes first, none can open it after both."""
    asked = ReleaseNode(id=_uuid(chance), at=began + _seconds(at), site=site, window_id=window, reason="it is over")
    return [Said(_seconds(at), _closed(chance, began, site, window, at)), Said(_seconds(at), asked)]


def _window(chance: Random, began: datetime, site: str, window: UUID, begin: float, longest: float) -> list[Said]:
    """One window's sentences, in whatever order and number the bus may give them."""
    # One in ten is over before its node can be ready.
    end = begin + (chance.uniform(0.5, 4) if chance.random() < 0.1 else chance.uniform(longest / 2, longest))
    opened = _opened(chance, began, site, window, begin)
    closed = _closed(chance, began, site, window, end)
    said: list[tuple[float, Message]]
    match chance.choices(("plain", "expected", "withdrawn", "overdue", "asked", "forgotten"), (10, 4, 2, 1, 2, 2))[0]:
        case "plain":
            said = [(begin, opened), (end, closed)]
        case "expected":
            said = [(begin - 1, _expected(chance, began, site, window, begin)), (begin, opened), (end, closed)]
        case "withdrawn":
            word = WindowWithdrawn(id=_uuid(chance), at=began + _seconds(begin), site=site, window_id=window)
            said = [(begin - 1, _expected(chance, began, site, window, begin + 1)), (begin, word)]
        case "overdue":
            said = [(begin, _expected(chance, began, site, window, begin + 1))]
        case "asked":
            take = AcquireNode(id=_uuid(chance), at=began + _seconds(begin), site=site, window_id=window)
            give = ReleaseNode(id=_uuid(chance), at=began + _seconds(end), site=site, window_id=window)
            said = [(begin, take), (end, give)]
        case _:
            said = [(begin, opened)]
    if chance.random() < 0.1:
        # Said anew when it is over: another sentence about the same window.
        said.append((end + 0.5, _opened(chance, began, site, window, begin)))
    given = []
    for at, message in said:
        late = chance.uniform(0, _LATEST / 2) if chance.random() < 0.2 else 0.0
        given.append(Said(_seconds(max(0.0, at + late)), message))
        if chance.random() < 0.25:
            again = late + chance.uniform(0, _LATEST / 2)
            given.append(Said(_seconds(max(0.0, at + again)), message, copy=1))
    return given


def _opened(chance: Random, began: datetime, site: str, window: UUID, at: float) -> WindowOpened:
    said = began + _seconds(at)
    return WindowOpened(
        id=_uuid(chance), at=said, site=site, window_id=window, intensity_g_per_kwh=20, expected_close_at=None
    )


def _closed(chance: Random, began: datetime, site: str, window: UUID, at: float) -> WindowClosed:
    said = began + _seconds(at)
    return WindowClosed(id=_uuid(chance), at=said, site=site, window_id=window, reason="dirty", crossed_at=said)


def _expected(chance: Random, began: datetime, site: str, window: UUID, opens: float) -> WindowExpected:
    return WindowExpected(
        id=_uuid(chance),
        at=began + _seconds(opens - 1),
        site=site,
        window_id=window,
        opens_at=began + _seconds(opens),
        expected_close_at=None,
        confidence=0.5,
    )


def _share(size: Size, number: int) -> int:
    """How many of the windows the n-th site has."""
    whole, rest = divmod(size.windows, size.sites)
    return whole + (number < rest)


def _uuid(chance: Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
