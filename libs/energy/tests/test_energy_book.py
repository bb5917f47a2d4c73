"""The book: entries that follow each other without gap, and say the same as the account after the fact."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import (
    NodeReady,
    NodeReleased,
    SignalKind,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.energy.book import Book, Terms, begin, due, finish, hear, learn, read, tick
from windfall.energy.chain import Entry, Genesis, public_key_of, seal, verify
from windfall.energy.intensity import Belief
from windfall.energy.ledger import Told, account, always_on, intervals
from windfall.energy.meter import J_PER_KWH, Counter, Reading
from windfall.energy.power import PowerModel, SiteState
from windfall.energy.quotes import Quote
from windfall.energy.signals import Reading as Intensity
from windfall.energy.signals import Trace
from windfall.energy.statement import statement

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POWER = PowerModel()
TERMS = Terms(belief=Belief(timedelta(minutes=20)))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GENESIS = Genesis(site="site-a", federation="demo", public_key=public_key_of(KEY), created_at=NOON)
_SPACE = UUID(int=7)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def said(kind: str, minute: float, window: int = 1, reason: str = "drained") -> Told:
    whose = {"site": "site-a", "window_id": UUID(int=window)}
    shared = {"id": uuid5(_SPACE, f"{kind}{minute}{window}"), "at": at(minute), **whose}
    lease = {**shared, "lease_token": window}
    match kind:
        case "expected":
            return WindowExpected(**shared, opens_at=at(minute + 5), expected_close_at=None, confidence=0.9)
        case "withdrawn":
            return WindowWithdrawn(**shared)
        case "opened":
            return WindowOpened(**shared, intensity_g_per_kwh=50, expected_close_at=None)
        case "ready":
            return NodeReady(**lease, lease_id=UUID(int=100), node="n", backend="process")
        case "training":
            return TrainingStarted(**lease, federation="f", round=0)
        case "closed":
            return WindowClosed(**shared, reason="dirty", crossed_at=at(minute))
        case "drained":
            return SiteDrained(**lease, federation="f", delivered=True)
    return NodeReleased(**lease, lease_id=UUID(int=100), node="n", reason=reason)


LIFE = (
    said("expected", 6),
    said("opened", 11),
    said("ready", 10),
    said("training", 12),
    said("closed", 50),
    said("drained", 51),
    said("released", 52),
)


def begun() -> Book:
    return begin(GENESIS, seal(GENESIS, KEY).hash)


def told(*events: Told, until: float, book: Book | None = None, terms: Terms = TERMS) -> tuple[Book, list[Entry]]:
    """The entries of a story that is heard as it happens."""
    book, entries = book or begun(), list[Entry]()
    for event in events:
        book, closed = hear(book, event, max(event.at, book.since), terms)
        entries += closed
    book, closed = finish(book, at(until), terms)
    return book, [*entries, *closed]


def shape(entries: list[Entry]) -> list[tuple[str, float]]:
    assert [entry.start for entry in entries[1:]] == [entry.end for entry in entries[:-1]]
    return [(entry.state.value, (entry.start - NOON) / MINUTE) for entry in entries]


def test_a_windows_life_begins_when_it_is_expected() -> None:
    book, entries = told(*LIFE, until=60)
    assert shape(entries) == [
        ("off", 0),
        ("provisioning", 6),
        ("idle", 10),
        ("training", 12),
        ("training", 27),
        ("training", 42),
        ("draining", 50),
        ("idle", 51),
        ("off", 52),
    ]
    assert {entry.window_id for entry in entries} == {None, UUID(int=1)}
    assert [entry.window_id for entry in entries if entry.state is SiteState.OFF] == [None, None]
    assert book.statement == statement(entries)
    sealed = [seal(GENESIS, KEY), *(seal(entry, KEY) for entry in entries)]
    assert verify([each.line for each in sealed], public_key_of(KEY)) is not None
    assert book.head == sealed[-1].hash


@pytest.mark.parametrize(
    ("events", "states"),
    [
        ([said("expected", 5), said("withdrawn", 9)], [("off", 0), ("provisioning", 5), ("off", 9)]),
        (
            [said("expected", 5), said("ready", 8), said("withdrawn", 9), said("released", 10)],
            [("off", 0), ("provisioning", 5), ("idle", 8), ("off", 10)],
        ),
        (
            [said("expected", 5), said("ready", 6), said("training", 7), said("withdrawn", 9), said("drained", 10)],
            [("off", 0), ("provisioning", 5), ("idle", 6), ("training", 7), ("draining", 9), ("idle", 10)],
        ),
        (
            [said("opened", 5), said("ready", 6), said("training", 7), said("expected", 8, 2), said("closed", 9)],
            [("off", 0), ("provisioning", 5), ("idle", 6), ("training", 7), ("draining", 9)],
        ),
        ([said("expected", 5, 2), said("withdrawn", 6, 1), said("closed", 7, 1)], [("off", 0), ("provisioning", 5)]),
    ],
    ids=["withdrawn", "withdrawn when warm", "withdrawn while training", "the next is expected", "another's end"],
)
def test_expected_windows(events: list[Told], states: list[tuple[str, float]]) -> None:
    _, entries = told(*events, until=12)
    assert shape(entries) == states
    after_the_fact = [(span.state.value, (span.start - NOON) / MINUTE) for span in intervals(events, NOON, at(12))]
    assert states == after_the_fact


def test_late_news_counts_from_now_on() -> None:
    book, first = told(said("opened", 5), said("ready", 6), until=20)
    book, closed = hear(book, said("training", 15), at(25), TERMS)
    assert closed == ()
    assert book.since == at(20)
    assert shape([*first, *finish(book, at(26), TERMS)[1]])[-1] == ("training", 20)


def test_news_of_the_future_counts_from_now_on() -> None:
    book, closed = hear(begun(), said("opened", 50), at(5), TERMS)
    assert (book.since, closed[-1].end) == (at(5), at(5))


def test_a_long_absence_is_caught_up_in_entries_of_the_usual_length() -> None:
    book, _ = told(said("opened", 0), until=1)
    _, entries = tick(book, at(100), TERMS)
    assert {entry.end - entry.start for entry in entries} == {TERMS.interval}
    assert due(begun(), TERMS) == NOON + timedelta(days=1)


MINUTES = st.floats(0, 300)
KINDS = st.sampled_from(["expected", "withdrawn", "opened", "ready", "training", "closed", "drained", "released"])
EVENTS = st.lists(st.builds(said, KINDS, MINUTES, st.integers(1, 3)), max_size=20, unique_by=lambda event: event.at)
VALUES = st.lists(st.floats(0, 1000), min_size=2, max_size=30)


@given(EVENTS, VALUES)
def test_says_the_same_as_the_account_after_the_fact(events: list[Told], values: list[float]) -> None:
    events.sort(key=lambda event: event.at)
    step = 10 * MINUTE
    trace = Trace(tuple(Intensity(NOON + place * step, value) for place, value in enumerate(values)))
    terms = Terms(belief=Belief(timedelta(days=1), 0.0))
    book = begun()
    for point in trace.points:
        book = learn(book, Quote(SignalKind.MARGINAL, point.point_time, point.intensity_g_per_kwh), terms)
    book, entries = told(*events, until=301, book=book, terms=terms)
    lived = intervals(events, NOON, at(301))
    after = account(lived, {"site-a": trace}, POWER, 100.0).total
    always = always_on(["site-a"], {"site-a": trace}, NOON, at(301), POWER, 100.0).total
    total = book.statement.total
    close = {"rel": 1e-6, "abs": 1e-6}
    assert total.energy_kwh == pytest.approx(after.energy_kwh, **close)
    assert total.emissions_kg == pytest.approx(after.emissions_kg, **close)
    assert total.clean_energy_kwh == pytest.approx(after.clean_energy_kwh, **close)
    assert (total.always_on_kwh, total.always_on_kg) == pytest.approx((always.energy_kwh, always.emissions_kg), **close)
    assert {entry.intensity_source for entry in entries} <= {"marginal"}
    assert Book.model_validate_json(book.model_dump_json()) == book


def shown(minute: float, kwh: float) -> Reading:
    return Reading(at(minute), "nvml", {"gpu": Counter(kwh * J_PER_KWH)})


def test_a_meter_that_covers_an_entry_counts_and_the_model_speaks_where_it_does_not() -> None:
    book = read(read(begun(), shown(-1, 5.0)), shown(4, 5.0))
    book, _ = hear(book, said("opened", 4), at(4), TERMS)
    book = read(book, shown(10, 5.6))
    book, metered = hear(book, said("ready", 10), at(10), TERMS)
    book, _ = told(until=12, book=book)
    book = read(book, shown(20, 5.9))
    book, modelled = hear(book, said("training", 19), at(20), TERMS)
    assert [(entry.method, entry.meter) for entry in metered] == [("metered", "nvml")]
    assert metered[0].energy_kwh == pytest.approx(0.6)
    assert metered[0].always_on_kwh == pytest.approx(POWER.training_kw / 10)
    assert [entry.method for entry in modelled] == ["metered"]
    assert modelled[0].energy_kwh == pytest.approx(0.3 * 0.7)
    _, blind = finish(book, at(30), TERMS)
    assert [(entry.method, entry.meter) for entry in blind] == [("modelled", "")]


def test_an_off_node_draws_nothing_whatever_its_machine_does() -> None:
    book = read(read(begun(), shown(0, 5.0)), shown(10, 5.5))
    _, (entry,) = finish(book, at(10), TERMS)
    assert (entry.energy_kwh, entry.method) == (0.0, "modelled")


def test_where_nothing_is_known_the_worse_is_assumed_and_said() -> None:
    book, entries = told(*LIFE, until=60)
    assert {entry.intensity_source for entry in entries} == {"assumed"}
    assert {entry.mean_intensity_g_per_kwh for entry in entries} == {475.0}
    assert book.statement.total.clean_energy_share == 0.0


def test_a_book_stays_small_under_a_hasty_signal() -> None:
    book = begun()
    for second in range(3000):
        quote = Quote(SignalKind.AVERAGE, NOON + timedelta(seconds=second), float(second % 7))
        book = learn(book, quote, TERMS)
        book, _ = tick(book, quote.point_time, TERMS)
    assert len(book.known.spells) <= 1002
    assert book.sequence > 1
