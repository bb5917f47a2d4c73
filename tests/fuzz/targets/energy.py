"""Traces, rules, ledgers and clocks."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fuzz.target import Target, of_file, text
from windfall.cli import trace_file
from windfall.energy.canonical import canonical
from windfall.energy.chain import Entry, Genesis, public_key_of, seal, unseal, verify
from windfall.energy.grammar import RuleError
from windfall.energy.grammar import parse as parse_rule
from windfall.energy.power import SiteState
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import TraceError, parse_trace
from windfall.lowcomm.compressor import parse_compressor
from windfall.lowcomm.merging import parse_merging
from windfall.lowcomm.outer import parse_outer
from windfall.lowcomm.schedule import parse_schedule
from windfall.profiler.hw.dcgm import parse as parse_dcgm
from windfall.servicekit.clock import parse_clock
from windfall.servicekit.errors import Mistake

_NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def _traces() -> Sequence[bytes]:
    shipped = "\n".join(line.rstrip("\n") for line in islice(synthetic_trace(), 12)).encode()
    return [
        shipped,
        b"point_time,site-a\n2026-01-01T00:00:00+00:00,120.5\n2026-01-01T00:05:00+00:00,80\n",
        b'point_time,site-a\r\n"2026-01-01T00:00:00Z","1e2"\r\n2026-01-01T01:00:00+01:00,80\r\n\r\n',
        b"point_time,site-a,price\n2026-01-01 00:00,120.5,-3\n2026-01-01 01:00,80,4\n2026-01-01 02:00,,4\n",
    ]


def _trace(data: bytes) -> object:
    return parse_trace(text(data).splitlines(keepends=True), "site-a")


def _chain() -> Sequence[bytes]:
    genesis = Genesis(site="site-a", federation="demo", public_key=public_key_of(_KEY), created_at=_NOON)
    lines = [seal(genesis, _KEY)]
    for sequence in range(1, 4):
        start = _NOON + timedelta(minutes=15 * (sequence - 1))
        one = Entry(
            sequence=sequence,
            site="site-a",
            window_id=UUID(int=7),
            state=SiteState.TRAINING,
            start=start,
            end=start + timedelta(minutes=15),
            energy_kwh=0.117,
            emissions_kg=0.005,
            clean_energy_kwh=0.1,
            always_on_kwh=0.506,
            always_on_kg=0.02,
            intensity_source="marginal",
            mean_intensity_g_per_kwh=44.25,
            method="modelled",
            meter="",
            previous_hash=lines[-1].hash,
        )
        lines.append(seal(one, _KEY))
    return ["\n".join(line.line for line in lines).encode(), lines[0].line.encode()]


def _canonical(data: bytes) -> object:
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("no JSON") from error
    return canonical(document)


def _of_text(name: str, seeds: Sequence[str], parse: Callable[[str], object], *refusals: type[Exception]) -> Target:
    return Target(name, lambda: [seed.encode() for seed in seeds], lambda data: parse(text(data)), refusals)


TARGETS: Final = (
    Target("trace column", _traces, _trace, (TraceError,)),
    of_file("trace file", _traces, lambda path: trace_file.read(path, ("site-a",), ()), (Mistake,), ".csv"),
    Target("ledger chain", _chain, lambda data: verify(text(data).split("\n")), ()),
    Target("ledger line", _chain, lambda data: unseal(text(data)), (ValueError,)),
    Target("canonical JSON", lambda: [b'{"a":[1,2.5,-0.0,1e21,"\\u20ac\xc3\xa9"],"b":{}}'], _canonical, (ValueError,)),
    _of_text(
        "surplus rule",
        (
            "carbon < 100",
            "carbon < 100..120 and price < 20",
            "(a < p10@30d or b > 2.5) and c < ahead25",
            "surplus > 500..3e2",
        ),
        parse_rule,
        RuleError,
    ),
    _of_text(
        "codec, merge, outer and schedule",
        ("topk-ef:levels=1", "nesterov:lr=0.7,momentum=0.9", "trimmed:share=0.2", "steps:h=500", "fp32"),
        lambda told: [_one_of(told, parse) for parse in (parse_compressor, parse_merging, parse_outer, parse_schedule)],
    ),
    _of_text(
        "clock",
        ("system", "replay:2026-01-01T00:00:00+00:00@2026-02-01T00:00:00+00:00x100.0", "file:/dev/null"),
        parse_clock,
        ValueError,
    ),
    _of_text(
        "DCGM metrics",
        (
            '# HELP x\nDCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-1"} 12\nDCGM_FI_DEV_FB_FREE{gpu="0"} 3.5e3\n'
            'DCGM_FI_DEV_POWER_USAGE{gpu="1",GPU_I_ID="3"} NaN\n',
        ),
        parse_dcgm,
        ValueError,
    ),
)


def _one_of(told: str, parse: Callable[[str], object]) -> object:
    """Each of them refuses what is another's."""
    try:
        return parse(told)
    except ValueError:
        return None
