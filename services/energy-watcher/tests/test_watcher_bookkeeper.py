"""The bookkeeper on virtual time, with a real journal, a real file and a real key."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from windfall.contracts.envelope import seal as enveloped
from windfall.contracts.envelope import unseal as unsealed
from windfall.contracts.events import (
    EnergyRecorded,
    NodeReady,
    NodeReleased,
    SignalKind,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
)
from windfall.contracts.subjects import EVENTS_STREAM, site_streams
from windfall.energy.book import Book
from windfall.energy.chain import Broken, Entry, Verified, verify
from windfall.energy.ledger import Told, account, intervals
from windfall.energy.meter import J_PER_KWH, Counter, Reading
from windfall.energy.power import PowerModel
from windfall.energy.quotes import Quote
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import parse_trace
from windfall.energy.statement import statement
from windfall.energy_watcher import meter as meters
from windfall.energy_watcher.bookkeeper import Bookkeeper, keep
from windfall.energy_watcher.ledger_file import LEDGER_FILE
from windfall.energy_watcher.ledger_metrics import measure
from windfall.energy_watcher.ledger_recovery import BOOK, LINES, Lines
from windfall.energy_watcher.ledger_settings import BookkeeperSettings
from windfall.energy_watcher.site_key import KEY_FILE, PUBLIC_FILE, site_key
from windfall.energy_watcher.testing.site import Site as WatchedSite
from windfall.servicekit import metrics
from windfall.servicekit.clock import LoopClock, ReplayClock
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.virtual import run_virtual

DAY = datetime(2026, 1, 1, tzinfo=UTC)
POWER = PowerModel()
TRACE = parse_trace(synthetic_trace(), "site-a")
_SPACE = UUID(int=7)


def clock_of(text: str) -> datetime:
    return DAY + timedelta(hours=int(text[:2]), minutes=int(text[3:]))


def said(kind: str, when: str, window: int = 1) -> Told:
    whose = {"site": "site-a", "window_id": UUID(int=window)}
    shared = {"id": uuid5(_SPACE, f"{kind}{when}{window}"), "at": clock_of(when), **whose}
    lease = {**shared, "lease_token": window}
    match kind:
        case "expected":
            return WindowExpected(**shared, opens_at=clock_of(when), expected_close_at=None, confidence=0.9)
        case "opened":
            return WindowOpened(**shared, intensity_g_per_kwh=50, expected_close_at=None)
        case "ready":
            return NodeReady(**lease, lease_id=UUID(int=100), node="n", backend="process")
        case "training":
            return TrainingStarted(**lease, federation="f", round=0)
        case "closed":
            return WindowClosed(**shared, reason="dirty", crossed_at=clock_of(when))
        case "drained":
            return SiteDrained(**lease, federation="f", delivered=True)
    return NodeReleased(**lease, lease_id=UUID(int=100), node="n", reason="drained")


MORNING = (
    said("expected", "00:55"),
    said("opened", "01:00"),
    said("ready", "01:00"),
    said("training", "01:05"),
    said("closed", "04:10"),
    said("drained", "04:12"),
    said("released", "04:13"),
)


@dataclass
class Site:
    """A site's bus and disk, which outlive its watcher."""

    folder: Path
    domain: MemoryDomain = field(default_factory=lambda: MemoryDomain("site-a"))
    clock: LoopClock = field(default_factory=lambda: LoopClock(DAY))

    @asynccontextmanager
    async def kept(self, *, killed: bool = False, **changes: object) -> AsyncIterator[Bookkeeper]:
        """A bookkeeper; ``killed`` ends it as kill -9 does: nothing after the block is written."""
        told = {"site": "site-a", "state_dir": self.folder, "meter": "none", "ledger_federation": "demo", **changes}
        settings = BookkeeperSettings.model_validate(told)
        journal = Journal(self.folder / "journal.sqlite", "/windfall/energy-watcher/site-a")
        bus = MemoryBus(self.domain, "energy-watcher", site_streams("site-a"))
        stand = Stand("energy-watcher", "site-a", self.clock, journal, bus, Outbox(journal, bus))
        keeping = keep(settings, stand, clean_below_g_per_kwh=100.0, stale_after=timedelta(minutes=15))
        async with keeping as bookkeeper:
            await stand.rise()
            yield bookkeeper
            if killed:
                await stand.cut()
                stand.mistake = Mistake("killed", "")
        stand.mistake = None
        await stand.lie_down()

    async def say(self, *events: Told) -> None:
        """Each when it happens."""
        for event in events:
            await self.clock.sleep_until(event.at)
            self.domain.store(enveloped(event, "/windfall/test"))

    async def until(self, text: str) -> None:
        await self.clock.sleep_until(clock_of(text) + timedelta(seconds=2))

    def know(self, bookkeeper: Bookkeeper) -> None:
        """The whole day's readings, as if each had been told when it was due."""
        quotes = (Quote(SignalKind.MARGINAL, p.point_time, p.intensity_g_per_kwh) for p in TRACE.points)
        bookkeeper.know(*quotes)

    @property
    def path(self) -> Path:
        return self.folder / LEDGER_FILE

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    def published(self) -> dict[int, str]:
        events = [unsealed(letter) for letter in self.domain.letters(EVENTS_STREAM)]
        recorded = [event for event in events if isinstance(event, EnergyRecorded)]
        assert len({event.sequence for event in recorded}) == len(recorded), "said twice"
        return {event.sequence: event.entry_hash for event in recorded}

    def verified(self) -> tuple[Entry, ...]:
        found = verify(self.lines(), None, self.published())
        assert isinstance(found, Verified), found
        assert sorted(self.published()) == [entry.sequence for entry in found.entries]
        return found.entries


def shape(entries: Sequence[Entry]) -> list[str]:
    """State and begin, runs of one state as one."""
    begins = [e for place, e in enumerate(entries) if not place or entries[place - 1].state is not e.state]
    return [f"{entry.state} {entry.start:%H:%M}" for entry in begins]


def test_a_morning_is_kept_and_agrees_with_the_account_after_the_fact(tmp_path: Path) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept() as bookkeeper:
            site.know(bookkeeper)
            await site.say(*MORNING)
            await site.until("05:00")
        return site

    site = run_virtual(morning())
    # The last words wait in the journal when a service ends; another start says them.
    assert shape(verified_after_restart(site)) == [
        "off 00:00",
        "provisioning 00:55",
        "idle 01:00",
        "training 01:05",
        "draining 04:10",
        "idle 04:12",
        "off 04:13",
    ]
    found = verify(site.lines())
    assert isinstance(found, Verified) and found.genesis.federation == "demo"
    total = statement(found.entries).total
    end = found.entries[-1].end
    after = account(intervals(MORNING, DAY, end), {"site-a": TRACE}, POWER, 100.0).total
    assert total.energy_kwh == pytest.approx(after.energy_kwh, rel=0.01)
    assert total.emissions_kg == pytest.approx(after.emissions_kg, rel=0.01)
    assert total.clean_energy_kwh == pytest.approx(after.clean_energy_kwh, rel=0.01)


def verified_after_restart(site: Site) -> tuple[Entry, ...]:
    async def again() -> None:
        async with site.kept(killed=True):
            await site.clock.sleep(timedelta(milliseconds=100))

    before = len(site.lines())
    site.clock = LoopClock(DAY + timedelta(hours=5))
    run_virtual(again())
    assert len(site.lines()) == before
    return site.verified()


def test_entries_are_closed_while_power_is_drawn(tmp_path: Path) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True, ledger_interval=timedelta(minutes=10)):
            await site.say(*MORNING[:4])
            await site.until("02:00")
        return site

    site = run_virtual(morning())
    training = [entry for entry in site.verified() if entry.state == "training"]
    assert [f"{entry.end:%H:%M}" for entry in training] == ["01:15", "01:25", "01:35", "01:45", "01:55"]


@pytest.mark.parametrize("lost", [None, "file", "torn"])
def test_kill_nine_loses_nothing_and_writes_nothing_twice(tmp_path: Path, lost: str | None) -> None:
    """``file``: the crash came between journal and file; ``torn``: in the middle of a line."""

    async def morning() -> Site:
        site = Site(tmp_path)
        for pause, events in (("01:02", MORNING[:3]), ("02:00", MORNING[3:4]), ("05:00", MORNING[4:])):
            async with site.kept(killed=True):
                await site.say(*events)
                await site.until(pause)
            _crash(site, lost)
        async with site.kept(killed=True):
            await site.until("06:00")
        return site

    site = run_virtual(morning())
    assert shape(site.verified())[1:] == [
        *("provisioning 00:55", "idle 01:00", "training 01:05", "draining 04:10", "idle 04:12")
    ]


def _crash(site: Site, lost: str | None) -> None:
    lines = site.lines()
    if lost == "file":
        site.path.write_text("".join(f"{line}\n" for line in lines[:-1]))
    elif lost == "torn":
        site.path.write_text("\n".join(lines)[:-40])


def test_without_its_journal_the_chain_goes_on_from_the_file(tmp_path: Path) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True) as bookkeeper:
            await site.say(*MORNING[:4])
            await site.until("02:00")
            before = bookkeeper.book.statement
        for path in tmp_path.glob("journal.sqlite*"):
            path.unlink()
        async with site.kept(killed=True) as bookkeeper:
            assert bookkeeper.book.statement == before
            await site.say(*MORNING[4:])
            await site.until("05:00")
        return site

    site = run_virtual(morning())
    assert shape(site.verified())[3:] == ["training 01:05", "draining 04:10", "idle 04:12"]


def test_what_was_heard_while_away_counts_when_it_happened(tmp_path: Path) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True):
            await site.say(*MORNING[:4])
            await site.until("02:00")
        await site.say(*MORNING[4:])
        await site.until("09:00")
        async with site.kept(killed=True):
            await site.until("10:00")
        return site

    entries = run_virtual(morning()).verified()
    assert shape(entries)[3:] == ["training 01:05", "draining 04:10", "idle 04:12"]
    assert f"{entries[-1].end:%H:%M}" == "04:13"


def test_a_bus_that_is_away_stops_the_clock_of_the_ledger(tmp_path: Path) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True):
            await site.say(*MORNING[:4])
            await site.until("01:06")
            site.domain.reachable = False
            await site.until("03:00")
            assert shape(verified_lines(site))[-1] == "idle 01:00"
            site.domain.reachable = True
            await site.until("04:00")
        return site

    assert shape(run_virtual(morning()).verified())[-1] == "training 01:05"


def verified_lines(site: Site) -> tuple[Entry, ...]:
    found = verify(site.lines())
    assert isinstance(found, Verified)
    return found.entries


def test_a_rehearsal_is_accounted_from_its_first_hour(tmp_path: Path) -> None:
    async def late() -> Site:
        site = Site(tmp_path, clock=LoopClock(clock_of("02:00")))
        async with site.kept(ledger_since="2026-01-01T01:00:00+01:00") as bookkeeper:
            site.know(bookkeeper)
            await site.say(*MORNING)
            await site.until("05:00")
        return site

    entries = verified_lines(run_virtual(late()))
    assert shape(entries)[:3] == ["off 00:00", "provisioning 00:55", "idle 01:00"]


def test_after_the_end_of_the_signal_only_power_counts(tmp_path: Path) -> None:
    async def night() -> Site:
        site = Site(tmp_path)
        async with site.kept() as bookkeeper:
            await site.until("06:00")
            bookkeeper.ended(clock_of("06:00"))
            await site.until("48:00")
        return site

    entries = verified_lines(run_virtual(night()))
    assert f"{entries[-1].end:%H:%M}" == "06:00"


def test_what_does_not_belong_together_is_one_line(tmp_path: Path) -> None:
    async def started(folder: Path, **changes: object) -> None:
        async with Site(folder).kept(killed=True, **changes):
            pass

    async def morning(folder: Path) -> Site:
        site = Site(folder)
        async with site.kept(killed=True):
            await site.say(*MORNING[:4])
            await site.until("03:00")
        return site

    def harmed(name: str, harm: Callable[[Site], object]) -> str:
        site = run_virtual(morning(tmp_path / name))
        harm(site)
        with pytest.raises(Mistake) as caught:
            run_virtual(started(site.folder))
        return str(caught.value)

    assert "where the journal does" in harmed("gone", lambda site: site.path.unlink())
    assert "where the journal does" in harmed("cut", lambda site: site.path.write_text(f"{site.lines()[0]}\n"))
    assert "not signed by the site's key" in harmed("key", lambda site: (site.folder / KEY_FILE).unlink())
    assert "canonical" in harmed("edited", lambda site: site.path.write_text(site.path.read_text().replace(",", ", ")))
    assert "no Ed25519 private key" in harmed("pem", lambda site: (site.folder / KEY_FILE).write_text("secret words"))
    assert "secret" not in harmed("quoted", lambda site: (site.folder / KEY_FILE).write_text("secret words"))
    with pytest.raises(Mistake, match="no energy counter of rapl"):
        run_virtual(started(tmp_path / "rapl", meter="rapl"))


def test_a_full_disk_ends_the_service_and_the_next_start_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True) as bookkeeper:
            await site.say(*MORNING[:3])
            await site.until("01:02")
            monkeypatch.setattr(bookkeeper._file, "append", _full)
            await site.say(MORNING[3])
            await site.until("01:30")
        monkeypatch.undo()
        async with site.kept(killed=True):
            await site.until("02:00")
        return site

    assert shape(run_virtual(morning()).verified())[-1] == "training 01:05"


def _full(lines: Sequence[str]) -> None:
    raise Mistake("cannot use the ledger (No space left on device)", "Free space and start again")


def test_the_key_is_made_once_and_is_the_sites_own(tmp_path: Path) -> None:
    key = site_key(tmp_path, None)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    again = site_key(tmp_path, None)
    assert key.private_bytes_raw() == again.private_bytes_raw()
    assert b"PUBLIC KEY" in (tmp_path / PUBLIC_FILE).read_bytes()
    elsewhere = site_key(tmp_path / "other", tmp_path / KEY_FILE)
    assert elsewhere.private_bytes_raw() == key.private_bytes_raw()
    assert not (tmp_path / "other" / KEY_FILE).exists()
    with pytest.raises(Mistake, match="cannot use the ledger's key"):
        site_key(tmp_path, tmp_path / "absent.pem")


@dataclass
class Bench:
    """A meter of a node that draws a constant power, and can be unplugged."""

    kw: float = 1.0
    away_from: datetime | None = None
    name: str = "bench"

    async def read(self, now: datetime) -> Reading:
        await asyncio.sleep(0)
        if self.away_from is not None and now >= self.away_from:
            raise Transient("unplugged")
        kwh = self.kw * ((now - DAY) / timedelta(hours=1))
        return Reading(now, self.name, {"node": Counter(kwh * J_PER_KWH)})

    async def close(self) -> None:
        """Nothing to close."""


def test_a_meter_counts_and_when_it_is_away_the_entry_says_modelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(meters.COUNTERS, "nvml", lambda: Bench(away_from=clock_of("02:00")))

    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True, meter="nvml"):
            await site.say(*MORNING)
            await site.until("05:00")
        return site

    entries = [entry for entry in run_virtual(morning()).verified() if entry.state == "training"]
    early = [entry for entry in entries if entry.end < clock_of("02:00")]
    late = [entry for entry in entries if entry.start > clock_of("02:00")]
    assert {(entry.method, entry.meter) for entry in early} == {("metered", "bench")}
    assert {(entry.method, entry.meter) for entry in late} == {("modelled", "")}
    assert [entry.energy_kwh for entry in early] == pytest.approx([0.25] * len(early), rel=1e-3)


def test_a_replay_is_never_metered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(meters.COUNTERS, "nvml", Bench)
    replay = ReplayClock(DAY, datetime.now(UTC), 1e-6)

    async def started(meter: str) -> None:
        async with Site(tmp_path, clock=replay).kept(killed=True, meter=meter) as bookkeeper:  # type: ignore[arg-type]
            assert bookkeeper._meter is None

    asyncio.run(started("auto"))
    with pytest.raises(Mistake, match="a replay, whose hours are not the machine's"):
        asyncio.run(started("nvml"))


def test_metrics_say_the_same_numbers(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    source = metrics.provider("energy-watcher", "site-a", [reader])

    async def morning() -> Bookkeeper:
        site = Site(tmp_path)
        async with site.kept(killed=True) as bookkeeper:
            measure(lambda: bookkeeper.book, source)
            site.know(bookkeeper)
            await site.say(*MORNING)
            await site.until("05:00")
            return bookkeeper

    rows = run_virtual(morning()).book.statement.rows
    data = reader.get_metrics_data()
    assert data is not None
    ((scope,),) = [each.scope_metrics for each in data.resource_metrics]
    for name, unit, column in (
        ("windfall.energy", "kW.h", "energy_kwh"),
        ("windfall.emissions", "kg", "emissions_kg"),
        ("windfall.always_on.emissions", "kg", "always_on_kg"),
    ):
        (metric,) = [each for each in scope.metrics if each.name == name]
        assert metric.unit == unit and isinstance(metric.data, Sum) and metric.data.is_monotonic
        points = {
            (p.attributes["windfall.site"], p.attributes["windfall.state"], p.attributes["windfall.method"]): p.value
            for p in metric.data.data_points
            if p.attributes
        }
        assert points == {("site-a", row.state.value, row.method): getattr(row, column) for row in rows}
    source.shutdown()


def test_the_journal_holds_the_book_and_the_last_lines(tmp_path: Path) -> None:
    async def morning() -> Site:
        site = Site(tmp_path)
        async with site.kept(killed=True):
            await site.say(*MORNING[:4])
            await site.until("01:30")
        return site

    site = run_virtual(morning())
    journal = Journal(tmp_path / "journal.sqlite", "/windfall/energy-watcher/site-a")
    lines = journal.load(LINES, Lines)
    assert lines is not None and list(lines.lines) == site.lines()[-len(lines.lines) :]
    assert journal.load(BOOK, Book) is not None
    assert not isinstance(verify(site.lines()), Broken)
    journal.close()


def test_the_watcher_keeps_its_ledger_by_its_own_signal(tmp_path: Path) -> None:
    """The whole service: its own windows, nobody who provisions, and the intensity of its own trace."""

    async def morning() -> WatchedSite:
        site = WatchedSite(tmp_path, MemoryDomain("site-a"), LoopClock(DAY))
        async with site.watched(site.settings(ledger_federation="demo")):
            await site.until("05:00")
        return site

    site = run_virtual(morning())
    found = verify((tmp_path / LEDGER_FILE).read_text().splitlines())
    assert isinstance(found, Verified) and found.genesis.federation == "demo"
    drawn = [entry for entry in found.entries if entry.state == "provisioning"]
    assert {entry.intensity_source for entry in drawn} == {"marginal"}
    total = statement(found.entries).total
    told = [event for event in site.said() if isinstance(event, Told)]
    after = account(intervals(told, DAY, found.entries[-1].end), {"site-a": TRACE}, POWER, 100.0).total
    assert total.energy_kwh == pytest.approx(after.energy_kwh, rel=0.01) and after.energy_kwh > 1
    assert total.emissions_kg == pytest.approx(after.emissions_kg, rel=0.01)
    assert total.clean_energy_kwh == pytest.approx(after.clean_energy_kwh, rel=0.01)
