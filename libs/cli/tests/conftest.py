"""A small recorded run to tell summaries, plots and reports from: three sites, four windows, five rounds."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import pytest

from windfall.cli.recording import Said
from windfall.cli.summary import Run
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    RoundEvaluated,
    RoundStarted,
    SiteDrained,
    SiteJoined,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.energy.shipped import SYNTHETIC_SITES, synthetic_trace
from windfall.energy.signals import parse_trace

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
NAMESPACE = UUID(int=7)
WINDOWS = (("site-a", 60, 250), ("site-b", 180, 370), ("site-c", 300, 490), ("site-a", 540, 790))
"""Site, minute of opening, minute of closing."""
MODEL_BYTES = 4_000_000


@pytest.fixture(autouse=True)
def no_context(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever runs the tests may have contexts of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))


def minute(number: float) -> datetime:
    return MIDNIGHT + timedelta(minutes=number)


def digest(number: int) -> str:
    return f"{number:064x}"


def _window(index: int, site: str, opens: int, closes: int) -> list[Message]:
    window_id, lease_id = uuid5(NAMESPACE, f"window-{index}"), uuid5(NAMESPACE, f"lease-{index}")
    whose = {"site": site, "window_id": window_id}
    lease = {**whose, "lease_token": index + 1}
    attempt = 1 + sum(other == site for other, _, _ in WINDOWS[:index])

    def said(kind: type[Message], at: float, **fields: object) -> Message:
        return kind(id=uuid5(NAMESPACE, f"{kind.topic}-{index}-{at}"), at=minute(at), **fields)

    return [
        said(WindowOpened, opens, **whose, intensity_g_per_kwh=45.0, expected_close_at=minute(closes - 10)),
        said(NodeReady, opens + 5, **lease, lease_id=lease_id, node=f"{site}-node", backend="process"),
        said(SiteJoined, opens + 15, **lease, federation="demo", attempt=attempt, round=index),
        said(TrainingStarted, opens + 20, **lease, federation="demo", round=index),
        said(
            ContributionAccepted,
            closes - 8,
            site=site,
            federation="demo",
            round=index,
            attempt=attempt,
            tokens=10_000,
            steps=100,
            loss_nats=3.0,
            bytes_up=MODEL_BYTES // 2,
            partial=True,
        ),
        said(WindowClosing, closes - 50, **whose, closes_at=minute(closes - 10)),
        said(WindowClosed, closes, **whose, reason="dirty", crossed_at=minute(closes - 10)),
        said(SiteDrained, closes + 2, **lease, federation="demo", delivered=True),
        said(NodeReleased, closes + 4, **lease, lease_id=lease_id, node=f"{site}-node", reason="drained"),
    ]


def _round(number: int) -> list[Message]:
    at = minute(90 + 150 * number)

    def said(kind: type[Message], later: float, **fields: object) -> Message:
        at_ = at + timedelta(minutes=later)
        return kind(
            id=uuid5(NAMESPACE, f"{kind.topic}-{number}"), at=at_, federation="demo", **{"round": number, **fields}
        )

    return [
        said(RoundStarted, -40, base_digest=digest(number), members=("site-a", "site-b"), ends_at=at),
        said(
            RoundCompleted,
            0,
            base_digest=digest(number),
            model_digest=digest(number + 1),
            contributors=("site-a", "site-b"),
            tokens=20_000,
            tokens_total=20_000 * (number + 1),
            steps=200,
            loss_nats=4.0 - 0.3 * number,
            bytes_up=2 * MODEL_BYTES,
            bytes_down=3 * MODEL_BYTES,
        ),
        said(RoundEvaluated, 1, round=number + 1, model_digest=digest(number + 1), loss_nats=4.1 - 0.3 * number),
    ]


@pytest.fixture(scope="session")
def recorded() -> Sequence[Said]:
    """The run's sentences in order of time."""
    refusal = ContributionRefused(
        id=uuid5(NAMESPACE, "refusal"),
        at=minute(200),
        site="site-b",
        federation="demo",
        round=1,
        attempt=1,
        reason="not-finite",
        detail="<b>NaN</b> in wte.weight",
    )
    end = FederationFinished(
        id=uuid5(NAMESPACE, "end"),
        at=minute(840),
        federation="demo",
        rounds=5,
        tokens_total=100_000,
        model_digest=digest(5),
    )
    said = [
        Said(message, f"/windfall/test/{message.whom}", {"traceparent": f"00-{index + 1:032x}-{1:016x}-01"})
        for index, window in enumerate(WINDOWS)
        for message in _window(index, *window)
    ]
    said += [Said(message, "/windfall/federation-coordinator/demo") for n in range(5) for message in _round(n)]
    said += [Said(refusal, "/windfall/federation-coordinator/demo"), Said(end, "/windfall/federation-coordinator/demo")]
    return sorted(said, key=lambda sentence: sentence.message.at)


@pytest.fixture(scope="session")
def run() -> Run:
    """Sixteen trace minutes a second, on the shipped trace, commanded two seconds before the replay began."""
    traces = {site: parse_trace(synthetic_trace(), site) for site in SYNTHETIC_SITES}
    return Run(
        federation="demo",
        sites=SYNTHETIC_SITES,
        traces=traces,
        trace_start=MIDNIGHT,
        trace_end=minute(900),
        speed=960.0,
        wall_start=datetime(2026, 5, 1, 12, 0, 2, tzinfo=UTC),
        commanded_at=datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC),
        ended_at=datetime(2026, 5, 1, 12, 1, 0, tzinfo=UTC),
        open_below_g_per_kwh=100.0,
        close_above_g_per_kwh=150.0,
        model_bytes=MODEL_BYTES,
        model_sha256=digest(99),
        seed=11,
    )
