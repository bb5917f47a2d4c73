"""The wire, guarded: every sentence as it travels, byte for byte, and whatever must not be believed.

A change of a golden file is a change of the contract with everybody who runs another version. Write them anew with
``WINDFALL_WRITE_GOLDEN=1`` when that is meant.
"""

import itertools
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from windfall.contracts.commands import (
    COMMANDS,
    AcquireNode,
    CordonSite,
    FinishRound,
    FollowPlan,
    PauseFederation,
    ProbeLink,
    ReadmitSite,
    ReleaseNode,
    ResumeFederation,
    RollBack,
    Span,
    StopFederation,
    StopTraining,
    UncordonSite,
)
from windfall.contracts.envelope import MESSAGE_ID, STRUCTURED, Letter, Unreadable, parse, seal, unseal
from windfall.contracts.events import (
    EVENTS,
    AdviceGiven,
    CheckpointDamaged,
    Chosen,
    ContributionAccepted,
    ContributionRefused,
    EnergyRecorded,
    EpochCompleted,
    FederationFinished,
    FederationPaused,
    FederationResumed,
    LinkDegraded,
    LinkMeasured,
    LinkRecovered,
    Measured,
    NodeFailed,
    NodeHindered,
    NodeProfiled,
    NodeReady,
    NodeReleased,
    PlanMade,
    Point,
    Recommendation,
    RoundCompleted,
    RoundDiscarded,
    RoundEvaluated,
    RoundStarted,
    SignalForecast,
    SignalKind,
    SignalObserved,
    SignalRecovered,
    SignalRefused,
    SignalStale,
    SiteAdvice,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    SiteRefused,
    SiteWithheld,
    TaskLearnt,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowJudged,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.hardware import (
    Accelerator,
    Hardware,
    Interconnect,
    Nic,
    NumaNode,
    Partition,
    PcieLink,
    Processor,
    Storage,
    System,
)
from windfall.contracts.leaving import FACTS
from windfall.contracts.measures import Interval
from windfall.contracts.message import Message, Name, derived_id, instant
from windfall.contracts.subjects import (
    COMMANDS_STREAM,
    DEAD_STREAM,
    EVENTS_STREAM,
    HUB,
    HUB_SERVICES,
    KINDS,
    MAX_MESSAGE_BYTES,
    ORDERS_STREAM,
    SITE_SERVICES,
    Retention,
    StreamSpec,
    dead_subject,
    hub_streams,
    is_command,
    site_streams,
    stream_for,
    subject_for,
    subject_of,
    type_of,
)

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2026, 1, 1, 12, 0, 0, 250000, tzinfo=UTC)
WINDOW = UUID("7c68de98-21c8-5205-988a-de9abacc7698")
LEASE = UUID("00000000-0000-4000-8000-000000000001")
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
SITE, FEDERATION = "site-a", "story"
BASE, MODEL = "ab" * 32, "cd" * 32


def said(kind: type[Message], /, **fields: Any) -> Message:
    whom = {"federation": FEDERATION} if "site" not in kind.model_fields else {"site": SITE}
    key = derived_id("golden", kind.topic, SITE)
    return kind.model_validate({"id": key, "at": AT, **whom, **fields})


SAID = (
    said(
        SignalObserved,
        signal="surplus",
        kind=SignalKind.SURPLUS,
        unit="W",
        value=5200.5,
        point_time=AT,
        forecast=(Point(point_time=AT + timedelta(minutes=5), value=4800.0),),
    ),
    said(SignalRefused, signal="carbon", reason="unit", detail="percentile instead of gCO2/kWh", point_time=AT),
    said(SignalStale, last_point_time=AT - timedelta(hours=2), limit_s=1800.0),
    said(SignalRecovered, point_time=AT),
    said(SignalForecast, kind=SignalKind.MARGINAL, issued_at=AT, step_s=300.0, values=(23.5, 24.0, 410.0)),
    said(
        PlanMade,
        objective="carbon",
        deadline=AT + timedelta(hours=17),
        remaining_site_hours=17.86,
        reserve_site_hours=0.5,
        finishes_at=AT + timedelta(hours=16),
        emissions_kg=0.41,
        site_hours={SITE: 9.5},
        because="the work fits below 61 gCO2/kWh",
    ),
    said(
        WindowExpected,
        window_id=WINDOW,
        opens_at=AT + timedelta(minutes=5),
        expected_close_at=AT + timedelta(hours=2),
        confidence=0.93,
        because="below 100 gCO2/kWh from 12:05 to 14:00",
    ),
    said(WindowWithdrawn, window_id=WINDOW, because="still at 412 gCO2/kWh"),
    said(
        WindowJudged,
        state="off",
        because="412 gCO2/kWh is not below 100",
        would_change="a reading below 100 gCO2/kWh; the forecast has one at 14:05",
        next_change_at=AT + timedelta(hours=2),
    ),
    said(
        WindowOpened,
        window_id=WINDOW,
        intensity_g_per_kwh=23.5,
        expected_close_at=AT + timedelta(hours=3),
        confidence=0.9,
        because="23.5 gCO2/kWh is below 100",
    ),
    said(NodeHindered, window_id=WINDOW, lease_id=LEASE, lease_token=7, because="0 of 1 workers have a place"),
    said(NodeReady, window_id=WINDOW, lease_id=LEASE, lease_token=7, node="site-a-7", backend="process"),
    said(NodeFailed, window_id=WINDOW, lease_id=LEASE, lease_token=7, reason="the trainer ended with 3 – twice"),
    said(
        NodeProfiled,
        window_id=WINDOW,
        lease_token=7,
        node="site-a-7",
        measured=Measured(
            fingerprint="v1-4f1c",
            cpu_model="Example CPU @ 2.0GHz",
            cpu_cores=2,
            memory_bytes=24_696_061_952,
            matmul_gflops=61.25,
            memory_bandwidth_gb_per_s=11.5,
            step_s_by_micro_batch={1: 0.0125, 8: 0.05},
            task="gpt-neox",
            device="cuda",
            matmul_gflops_by_dtype={"bf16": 701_000.0},
            matmul_gflops_by_device={1: 52_000.0},
            host_to_device_gb_per_s=54.5,
            device_to_host_gb_per_s=53.0,
            all_reduce_gb_per_s=371.0,
            all_reduce_ranks=8,
            power_idle_w=560.0,
            power_train_w=5200.5,
            joules_per_sample=0.75,
            intervals={"step_s_by_micro_batch.8": Interval(low=0.0495, high=0.0525, runs=40)},
            benchmark="torch_bench 1a2b3c of gpt-neox, torch 2.13.0",
            link_rtt_ms=0.4,
            link_up_mb_per_s=900.0,
            link_down_mb_per_s=None,
            missing={"link_down_mb_per_s": "the deadline has passed"},
        ),
        recommendation=Recommendation(
            micro_batch=8,
            local_steps=40,
            gradient_accumulation=4,
            precision="bf16",
            told=("gradient_accumulation",),
            because="8 samples take 0.05 s",
        ),
        hardware=Hardware(
            accelerators=(
                Accelerator(
                    vendor="nvidia",
                    model="NVIDIA H100 80GB HBM3",
                    canonical_model="h100-sxm5-80gb",
                    architecture="sm_90",
                    memory_bytes=85_520_809_984,
                    driver="550.54.15",
                    partition_mode="mig",
                    partitions=(Partition(profile="1g.10gb", memory_bytes=10_401_873_920),),
                    ecc=True,
                    ecc_uncorrected=0,
                    power_limit_w=700.0,
                    throttled=("sw-power-cap",),
                    numa_node=1,
                    pcie=PcieLink(generation=4, width=16, generation_max=5, width_max=16),
                ),
                Accelerator(vendor="amd", model="AMD Instinct MI300X OAM", architecture="gfx942"),
            ),
            interconnects=(Interconnect(first=0, second=1, kind="pcie", hop="SYS"),),
            processor=Processor(
                model="Example CPU @ 2.0GHz",
                sockets=1,
                cores=1,
                threads=2,
                features=("avx2",),
                numa_nodes=(NumaNode(number=0, threads=2, memory_bytes=24_696_061_952),),
                memory_bytes=24_696_061_952,
            ),
            nics=(Nic(up=True, speed_mbit_per_s=400_000, rdma="infiniband", driver="mlx5_core", numa_node=0),),
            storage=Storage(
                filesystem="ext4",
                total_bytes=2**40,
                free_bytes=2**39,
                fsync_ms=1.5,
                write_mb_per_s=900.0,
                read_mb_per_s=2100.0,
            ),
            system=System(
                kernel="6.8.0-45-generic",
                operating_system="Ubuntu 24.04.1 LTS",
                container="containerd",
                container_runtimes={"containerd": "1.7.22"},
            ),
            missing={"accelerators.1.ecc": "amdsmi is not installed"},
        ),
    ),
    said(
        LinkMeasured,
        target=HUB,
        rtt_ms=35.25,
        jitter_ms=0.5,
        up_mb_per_s=5.75,
        moved_bytes=4_194_304,
        missing={"down_mb_per_s": "Deadline Exceeded"},
    ),
    said(LinkDegraded, target="site-b", part="up_mb_per_s", value=1.2, low=4.5, high=6.5, because="1.2 MB/s up"),
    said(LinkRecovered, target="site-b", part="up_mb_per_s", value=5.7, low=4.5, high=6.5, because="5.7 MB/s up"),
    said(
        SiteRefused, federation=FEDERATION, reason="jurisdiction", detail="XX is none of the federation's CA-QC and SE"
    ),
    said(SiteJoined, federation=FEDERATION, window_id=WINDOW, lease_token=7, attempt=2, round=3),
    said(
        TaskLearnt,
        federation=FEDERATION,
        window_id=WINDOW,
        lease_token=7,
        task="gpt-neox",
        task_settings='{"preset": "small"}',
    ),
    said(
        AdviceGiven,
        round=3,
        codec=Chosen(advised="q2-ef", used="topk-ef", by="operator"),
        fragments=Chosen(advised="1", used="1", by="default"),
        average_steps=Chosen(advised="30", used="30", by="advice"),
        sites=(
            SiteAdvice(
                site=SITE,
                takes_part=True,
                gain=0.85,
                values={
                    "micro_batch": Chosen(advised="8", used="16", by="operator"),
                    "precision": Chosen(used="fp32", by="owner"),
                },
                because="with site-a the federation trains 85.0% more",
            ),
            SiteAdvice(site="site-b", takes_part=False, gain=-0.25, because="with site-b it trains 25.0% less"),
        ),
        because="site-b: q2-ef every 30 steps",
    ),
    said(
        RoundStarted,
        round=3,
        base_digest=BASE,
        members=("site-a", "site-b"),
        ends_at=AT + timedelta(minutes=10),
        local_steps={"site-a": 30, "site-b": 15},
        because="topk-ef every 15 steps",
        left_out={"site-c": "with site-c the federation trains 25.0% less"},
    ),
    said(TrainingStarted, federation=FEDERATION, window_id=WINDOW, lease_token=7, round=3),
    said(
        ContributionAccepted,
        federation=FEDERATION,
        round=3,
        attempt=2,
        tokens=81_920,
        steps=40,
        loss_nats=2.31,
        bytes_up=40_123_456,
        partial=False,
        skipped=1,
        spikes=2,
        refused_passes=1,
        cursor=328,
        rows=((1_000, 1_320), (2_048, 2_056)),
    ),
    said(
        ContributionRefused,
        federation=FEDERATION,
        round=3,
        attempt=2,
        reason="not-finite",
        detail="3 values are NaN",
        rows=((1_000, 1_320),),
    ),
    said(
        RoundCompleted,
        round=3,
        base_digest=BASE,
        model_digest=MODEL,
        contributors=("site-a",),
        tokens=81_920,
        tokens_total=327_680,
        steps=40,
        loss_nats=2.31,
        bytes_up=40_123_456,
        bytes_down=40_000_000,
        duration_s=31.25,
    ),
    said(EpochCompleted, epoch=0, rows=60_000, rows_by_site={"site-a": 41_000, "site-b": 19_000}, round=3),
    said(
        RoundDiscarded,
        round=3,
        base_digest=BASE,
        model_digest=MODEL,
        contributors=(SITE,),
        because="its held-out loss is 4.2500 after 2.2500",
    ),
    said(RoundEvaluated, round=3, model_digest=MODEL, loss_nats=2.25, metric="nats per byte", value=2.25, best=True),
    said(
        CheckpointDamaged,
        round=3,
        part="contribution",
        remedy="left-out",
        contributor="site-a",
        base_digest=BASE,
        tokens_lost=81_920,
        detail="the contribution of site-a to round 3 was damaged on disk after it was accepted",
    ),
    said(WindowClosing, window_id=WINDOW, closes_at=AT + timedelta(minutes=10)),
    said(WindowClosed, window_id=WINDOW, reason="dirty", crossed_at=AT - timedelta(minutes=10)),
    said(
        SiteWithheld,
        federation=FEDERATION,
        window_id=WINDOW,
        lease_token=7,
        before="push",
        because="policy: 5 contributions a day have left",
    ),
    said(SiteDrained, federation=FEDERATION, window_id=WINDOW, lease_token=7, delivered=True),
    said(SiteLeft, federation=FEDERATION, attempt=2, reason="drained"),
    said(NodeReleased, window_id=WINDOW, lease_id=LEASE, lease_token=7, node="site-a-7", reason="drained"),
    said(
        EnergyRecorded,
        sequence=4,
        window_id=WINDOW,
        state="training",
        start=AT - timedelta(minutes=5),
        end=AT,
        energy_kwh=0.16867,
        emissions_kg=0.00396,
        clean_energy_kwh=0.16867,
        method="modelled",
        entry_hash=BASE,
    ),
    said(FederationPaused, round=13, base_digest=MODEL, because="new disks"),
    said(FederationResumed, round=13, base_digest=MODEL, because="asked"),
    said(FederationFinished, rounds=12, tokens_total=983_040, model_digest=MODEL),
    said(
        FollowPlan,
        federation=FEDERATION,
        spans=(Span(start=AT, end=AT + timedelta(hours=2)),),
        valid_until=AT + timedelta(hours=1),
        because="the cheapest 17.9 site-hours before 10:30",
    ),
    said(AcquireNode, window_id=WINDOW),
    said(ReleaseNode, window_id=None, reason="asked"),
    said(CordonSite, reason="the cooling is repaired"),
    said(UncordonSite, reason="asked"),
    said(ProbeLink, target="site-b"),
    said(FinishRound, federation=FEDERATION, round=3),
    said(StopTraining, lease_token=7, reason="the window has closed"),
    said(StopFederation, reason="asked"),
    said(PauseFederation, reason="new disks"),
    said(ResumeFederation, reason="asked"),
    said(RollBack, reason="asked"),
    said(ReadmitSite, member=SITE, reason="its disk was replaced"),
)

every_sentence = pytest.mark.parametrize("message", SAID, ids=lambda message: message.topic)


def opened() -> WindowOpened:
    return next(message for message in SAID if isinstance(message, WindowOpened))


def test_every_sentence_has_its_golden_file_and_no_file_is_without_one() -> None:
    assert [type(message) for message in SAID] == [*EVENTS, *COMMANDS]
    assert {path.stem for path in GOLDEN.glob("*")} == set(KINDS)


@every_sentence
def test_the_wire_has_not_changed(message: Message) -> None:
    letter = seal(message, "/windfall/golden/site-a", TRACE)
    shown = {"subject": letter.subject, "headers": dict(letter.headers), "body": json.loads(letter.body)}
    text = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    path = GOLDEN / f"{message.topic}.json"
    if os.environ.get("WINDFALL_WRITE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text
    # The file shows the body with room between; nothing else was lost on the way into it.
    assert json.dumps(json.loads(path.read_text())["body"], separators=(",", ":"), ensure_ascii=False).encode() == (
        letter.body
    )


@every_sentence
def test_what_was_said_yesterday_is_understood(message: Message) -> None:
    golden = json.loads((GOLDEN / f"{message.topic}.json").read_text())
    body = json.dumps(golden["body"]).encode()
    assert unseal(Letter(golden["subject"], golden["headers"], body)) == message


@every_sentence
def test_a_sentence_survives_the_post(message: Message) -> None:
    assert unseal(seal(message, "/windfall/test")) == message
    assert parse(message.topic, message.model_dump_json().encode()) == message


@every_sentence
def test_what_a_newer_speaker_adds_is_tolerated(message: Message) -> None:
    letter = seal(message, "/windfall/test")
    body = json.loads(letter.body) | {"from_the_future": {"x": [1, None]}}
    assert unseal(replace(letter, body=json.dumps(body).encode())) == message
    assert unseal(replace(letter, headers={**letter.headers, "ce-dataschema": "x", "x-other": "y"})) == message


@every_sentence
def test_a_sentence_does_not_change(message: Message) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        message.at = AT


@every_sentence
def test_every_instant_must_have_a_zone(message: Message) -> None:
    document = json.loads(message.model_dump_json())
    instants = [name for name, value in document.items() if isinstance(value, str) and value.endswith("Z")]
    assert "at" in instants
    for name in instants:
        with pytest.raises(Unreadable, match=name):
            parse(message.topic, json.dumps(document | {name: "2026-01-01T12:00:00"}).encode())


@every_sentence
def test_no_instant_lies_beyond_the_calendar(message: Message) -> None:
    document = json.loads(message.model_dump_json())
    for beyond in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        with pytest.raises(Unreadable, match=r"at: .* before the first year or after the last"):
            parse(message.topic, json.dumps(document | {"at": beyond}).encode())


@every_sentence
def test_every_number_must_be_one(message: Message) -> None:
    document = json.loads(message.model_dump_json())
    numbers = [name for name, value in document.items() if type(value) in (int, float)]
    for name, wrong in itertools.product(numbers, (float("nan"), float("inf"), float("-inf"))):
        with pytest.raises(Unreadable, match=name):
            parse(message.topic, json.dumps(document | {name: wrong}).encode())


def test_instants_are_kept_in_utc() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=-5)))
    assert said(SignalRecovered, point_time=elsewhere) == said(SignalRecovered, point_time=AT)
    assert b"-05:00" not in said(SignalRecovered, point_time=elsewhere).model_dump_json().encode()


def with_field(**fields: Any) -> Callable[[Letter], Letter]:
    return lambda letter: replace(letter, body=json.dumps(json.loads(letter.body) | fields).encode())


def with_header(**headers: str) -> Callable[[Letter], Letter]:
    return lambda letter: replace(
        letter, headers={**letter.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    )


def without(*names: str) -> Callable[[Letter], Letter]:
    return lambda letter: replace(
        letter, headers={name: value for name, value in letter.headers.items() if name not in names}
    )


def with_body(body: bytes) -> Callable[[Letter], Letter]:
    return lambda letter: replace(letter, body=body)


def structured(**attributes: Any) -> Callable[[Letter], Letter]:
    """As another program's library would send it, with some attributes changed; ``None`` leaves one out."""

    def change(letter: Letter) -> Letter:
        document = {
            "specversion": "1.0",
            "id": letter.headers["ce-id"],
            "source": "/elsewhere",
            "type": letter.headers["ce-type"],
            "time": "2026-01-01T12:00:00Z",
            "datacontenttype": "application/json",
            "data": json.loads(letter.body),
        } | attributes
        body = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
        return Letter(letter.subject, {"content-type": f"{STRUCTURED}; charset=utf-8"}, body)

    return change


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (with_body(b""), "window.opened"),
        (with_body(b"null"), "window.opened"),
        (with_body(b"[]"), "window.opened"),
        (with_body(b"\xff\xfe\x00"), "window.opened"),
        (with_body(b"[" * 100_000), "window.opened"),
        (with_body(b"1" * (MAX_MESSAGE_BYTES + 1)), "over the limit"),
        (with_field(site="Site-A"), "site"),
        (with_field(site="a.b"), "site"),
        (with_field(site="*"), "site"),
        (with_field(site=">"), "site"),
        (with_field(site=""), "site"),
        (with_field(site="a\n"), "site"),
        (with_field(site="a" * 49), "site"),
        (with_field(site="site-b"), "it came on"),
        (with_field(intensity_g_per_kwh=-1), "intensity_g_per_kwh"),
        (with_field(id="1"), "id"),
        (with_field(id=str(uuid4())), "envelope id"),
        (with_field(window_id="nonsense"), "window_id"),
        (with_header(ce_id="other"), "envelope id"),
        (with_header(ce_specversion="0.3"), "specversion"),
        (with_header(ce_type="windfall.v2.window.opened"), "unknown"),
        (with_header(ce_type="windfall.v1.window.closed"), "window.closed"),
        (with_header(ce_time="yesterday"), "ce-time"),
        (with_header(ce_time="2026-01-01T12:00:00"), "ce-time"),
        (without("ce-id"), "missing"),
        (without("ce-type"), "unknown"),
        (without("ce-specversion"), "specversion"),
        (lambda letter: replace(letter, subject="windfall.v1.window.closed.site-a"), "it came on"),
        (lambda letter: replace(letter, subject="windfall.v1.window.opened.site-b"), "it came on"),
        (structured(specversion="0.3"), "specversion"),
        (structured(type="other"), "unknown"),
        (structured(id="other"), "envelope id"),
        (structured(id=None), "missing"),
        (structured(id=7), "missing"),
        (structured(data=None), "no data"),
        (structured(data=[]), "window.opened"),
        (structured(time="yesterday"), "ce-time"),
        (lambda letter: replace(structured()(letter), body=b"{"), "not JSON"),
        (lambda letter: replace(structured()(letter), body=b"\xff"), "not JSON"),
        (lambda letter: replace(structured()(letter), body=b'"data"'), "no data"),
        (lambda letter: replace(structured()(letter), body=b"[" * 100_000), "not JSON"),
    ],
)
def test_what_does_not_agree_with_itself_is_refused_in_one_line(
    change: Callable[[Letter], Letter], because: str
) -> None:
    with pytest.raises(Unreadable, match=re.escape(because)) as refusal:
        unseal(change(seal(opened(), "/windfall/test")))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        structured(),
        structured(time=None),
        lambda letter: replace(structured()(letter), headers={"Content-Type": "Application/CloudEvents+JSON"}),
        lambda letter: replace(letter, headers={name.upper(): value for name, value in letter.headers.items()}),
        lambda letter: replace(letter, subject=""),
        without("content-type"),
        without("ce-time"),
        with_header(ce_time="2026-01-01T13%3A00%3A00%2B01%3A00"),
        without(MESSAGE_ID),
    ],
    ids=["structured", "timeless", "shouted", "upper", "no-subject", "no-type", "no-time", "quoted-time", "no-msg-id"],
)
def test_other_programs_envelopes_are_understood(change: Callable[[Letter], Letter]) -> None:
    assert unseal(change(seal(opened(), "/windfall/test"))) == opened()


header_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
header_names = (
    st.sampled_from(["ce-id", "ce-type", "ce-specversion", "ce-time", "content-type", MESSAGE_ID]) | header_text
)
header_values = st.sampled_from(["1.0", "windfall.v1.window.opened", "application/json", STRUCTURED, str(WINDOW)])


@given(st.text(max_size=40), st.dictionaries(header_names, header_values | header_text), st.binary(max_size=200))
def test_whatever_arrives_is_a_sentence_or_unreadable(subject: str, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Unreadable):
        unseal(Letter(subject, headers, body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(WindowOpened.model_fields)), json_values))
def test_whatever_stands_in_a_body_is_believed_whole_or_not_at_all(fields: dict[str, Any]) -> None:
    letter = with_field(**fields)(seal(opened(), "/windfall/test"))
    try:
        message = unseal(letter)
    except Unreadable:
        return
    assert unseal(seal(message, "/windfall/test")) == message


@pytest.mark.parametrize("topic", ["", "window", "window.exploded", "windfall.v1.window.opened"])
def test_an_unknown_topic_is_refused(topic: str) -> None:
    with pytest.raises(Unreadable, match=r"known are advice\.given, checkpoint\.damaged"):
        parse(topic, b"{}")


def test_a_source_is_a_uri_reference() -> None:
    headers = seal(opened(), "/windfall/a b/ü").headers
    assert headers["ce-source"] == "/windfall/a%20b/%C3%BC"
    assert all(value.isascii() and "\n" not in value for value in headers.values())


def test_ids_are_derived() -> None:
    assert derived_id("a", "b", "c") == derived_id("a", "b", "c")
    others = {derived_id(*three) for three in itertools.permutations("abc")}
    assert len(others) == 6
    # Guards the wire as well: a retried handler of another version says the same sentence.
    assert derived_id(WINDOW, "node.ready", "site-a") == UUID("32669bd6-36aa-5f32-949b-eb1f7ed9873b")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("site-a", True),
        ("0", True),
        ("a" * 48, True),
        ("a" * 49, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("A", False),
        ("a_b", False),
        ("a.b", False),
        ("a b", False),
        ("a*", False),
        ("ä", False),
        ("a\n", False),
    ],
)
def test_names(name: str, good: bool) -> None:
    adapter = TypeAdapter(Name)
    if good:
        assert adapter.validate_python(name) == name
        return
    with pytest.raises(ValidationError):
        adapter.validate_python(name)


def test_instants_are_read() -> None:
    assert instant("2026-01-01T13:00:00+01:00") == datetime(2026, 1, 1, 12, tzinfo=UTC)
    for wrong in ("2026-01-01T13:00:00", "noon", "0001-01-01T00:00:00+23:59"):
        with pytest.raises(ValueError, match=r"time zone|Invalid|first year"):
            instant(wrong)


# --- subjects and streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject", "stream", "type_name"),
    [
        (WindowOpened, "windfall.v1.window.opened.site-a", EVENTS_STREAM, "windfall.v1.window.opened"),
        (RoundCompleted, "windfall.v1.round.completed.story", EVENTS_STREAM, "windfall.v1.round.completed"),
        (
            ReleaseNode,
            "windfall.v1.command.provisioner.release.site-a",
            COMMANDS_STREAM,
            "windfall.v1.command.provisioner.release",
        ),
        (
            StopFederation,
            "windfall.v1.command.federation-coordinator.stop.story",
            COMMANDS_STREAM,
            "windfall.v1.command.federation-coordinator.stop",
        ),
    ],
)
def test_where_a_sentence_travels(kind: type[Message], subject: str, stream: str, type_name: str) -> None:
    (message,) = (each for each in SAID if type(each) is kind)
    assert subject_of(message) == subject
    assert stream_for(kind) == stream
    assert type_of(kind) == type_name
    assert subject_for(kind, "*") == f"{type_name}.*"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.topic)
def test_the_grammar_of_subjects(kind: type[Message]) -> None:
    assert kind.__doc__
    speaker_or_addressee = kind.__doc__.split(":")[0]
    services = (*SITE_SERVICES, *HUB_SERVICES)
    assert speaker_or_addressee in (*services, "windfall"), "the docstring says who"
    if is_command(kind):
        assert re.fullmatch(r"windfall\.v1\.command\.[a-z-]+\.[a-z]+\.whom", subject_for(kind, "whom"))
        assert kind.topic.split(".")[0] == speaker_or_addressee
        home = SITE_SERVICES if "site" in kind.model_fields else HUB_SERVICES
        assert speaker_or_addressee in home
    else:
        assert re.fullmatch(r"windfall\.v1\.[a-z]+\.[a-z]+\.whom", subject_for(kind, "whom"))


def test_a_dead_letter_keeps_its_subject() -> None:
    assert dead_subject("provisioner", "windfall.v1.window.opened.a") == (
        "windfall.dead.provisioner.windfall.v1.window.opened.a"
    )


def captures(pattern: str, subject: str) -> bool:
    """NATS: ``*`` is one token, a last ``>`` is one or more."""
    words = r"\.".join({"*": "[^.]+", ">": r".+"}.get(token) or re.escape(token) for token in pattern.split("."))
    return re.fullmatch(words, subject) is not None


def overlap(first: str, second: str) -> bool:
    """Whether any subject at all is captured by both patterns."""
    for one, other in itertools.zip_longest(first.split("."), second.split(".")):
        if ">" in (one, other):
            return one is not None and other is not None
        if None in (one, other) or ("*" not in (one, other) and one != other):
            return False
    return True


DOMAINS = {"site": site_streams("site-a"), "hub": hub_streams(("site-a", "site-b"))}


@pytest.mark.parametrize("streams", DOMAINS.values(), ids=DOMAINS)
def test_no_subject_is_captured_twice_in_a_domain(streams: tuple[StreamSpec, ...]) -> None:
    patterns = [pattern for spec in streams for pattern in spec.subjects]
    for first, second in itertools.combinations(patterns, 2):
        assert not overlap(first, second), (first, second)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*.c", "*.b.c", True),
    ],
)
def test_the_test_of_overlap_can_tell(first: str, second: str, both: bool) -> None:
    assert overlap(first, second) is overlap(second, first) is both


@pytest.mark.parametrize("message", SAID, ids=lambda message: message.topic)
def test_every_sentence_finds_its_stream(message: Message) -> None:
    def stream_in(domain: str) -> list[str]:
        return [
            spec.name for spec in DOMAINS[domain] for pattern in spec.subjects if captures(pattern, subject_of(message))
        ]

    if not is_command(type(message)):
        assert stream_in("hub") == [EVENTS_STREAM]
        # What the hub sources of a site is what may leave it.
        assert stream_in("site") == ([EVENTS_STREAM] if message.topic in FACTS else [])
    elif "site" in type(message).model_fields:
        # At the hub it waits for its site to take it.
        assert (stream_in("site"), stream_in("hub")) == ([COMMANDS_STREAM], [ORDERS_STREAM])
    else:
        assert stream_in("hub") == [COMMANDS_STREAM]
    dead = dead_subject("provisioner", subject_of(message))
    for streams in DOMAINS.values():
        assert [spec.name for spec in streams if any(captures(p, dead) for p in spec.subjects)] == [DEAD_STREAM]


def test_a_site_takes_its_own_orders_and_no_others() -> None:
    for site, theirs in (("site-a", "site-b"), ("a", "site-a")):
        (commands,) = (spec for spec in site_streams(site) if spec.name == COMMANDS_STREAM)
        (source,) = commands.sources
        assert (source.stream, source.domain) == (ORDERS_STREAM, HUB)
        assert source.filter_subject is not None
        for kind in COMMANDS:
            if "site" in kind.model_fields:
                assert captures(source.filter_subject, subject_for(kind, site))
                assert not captures(source.filter_subject, subject_for(kind, theirs))


def test_the_hub_sources_the_events_of_its_sites_and_sites_source_none() -> None:
    hub = {spec.name: spec for spec in hub_streams(("site-a", "site-b"))}
    assert [(source.stream, source.domain) for source in hub[EVENTS_STREAM].sources] == [
        (EVENTS_STREAM, "site-a"),
        (EVENTS_STREAM, "site-b"),
    ]
    site = {spec.name: spec for spec in site_streams("site-a")}
    assert site[EVENTS_STREAM].sources == ()
    assert {name for name, spec in {**hub, **site}.items() if spec.retention is Retention.WORK_QUEUE} == {
        COMMANDS_STREAM
    }


def test_every_stream_is_bounded_and_pushes_orders_back() -> None:
    for spec in itertools.chain.from_iterable(DOMAINS.values()):
        assert spec.max_bytes > MAX_MESSAGE_BYTES
        assert spec.max_age > spec.duplicate_window > timedelta(minutes=10)
        assert spec.discard_new == (spec.name in (COMMANDS_STREAM, ORDERS_STREAM))


def test_no_site_is_called_hub() -> None:
    with pytest.raises(ValueError, match="hub"):
        site_streams(HUB)
    with pytest.raises(ValueError, match="hub"):
        hub_streams(("site-a", HUB))


def test_no_two_sites_have_one_name() -> None:
    with pytest.raises(ValueError, match="site-a"):
        hub_streams(("site-a", "site-b", "site-a"))


def test_a_refusal_has_a_reason_from_the_list() -> None:
    reasons = get_args(ContributionRefused.model_fields["reason"].annotation)
    assert "not-finite" in reasons
    with pytest.raises(ValidationError):
        said(ContributionRefused, federation=FEDERATION, round=3, attempt=2, reason="mood", detail="")
