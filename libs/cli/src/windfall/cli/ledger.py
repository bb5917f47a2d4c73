"""The sites' ledgers of a run: found, verified, and summed. What is broken has no figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from windfall.cli.counting import counted
from windfall.cli.recording import Said, read_file
from windfall.contracts.events import EnergyRecorded
from windfall.energy.chain import Verified, verify
from windfall.energy.power import SiteState
from windfall.energy.statement import Figures, Row, Statement, statement, together
from windfall.servicekit.errors import ExitCode, Mistake

FOLDER: Final = "ledger"
"""In a run folder: ``<site>.jsonl`` and ``<site>.pub`` of each site."""
_HEADS: Final = ("site", "state", "kWh", "kg CO2", "clean", "method", "always on kWh", "always on kg", "saved")
_LEFT: Final = (0, 1, 5)


@dataclass(frozen=True)
class SiteLedger:
    """One site's ledger as it was found."""

    site: str
    lines: Sequence[str]
    public_key: str | None = None
    """As it was handed over; none believes the key that the ledger itself names."""


def of_run(path: Path, key: Path | None = None) -> tuple[tuple[SiteLedger, ...], Mapping[str, Mapping[int, str]]]:
    """The ledgers of a run folder, of a watcher's state folder, or one file; and what was published of them.

    Raises:
        Mistake: there is none, or a file cannot be read.
    """
    if path.is_dir():
        files = sorted((path / FOLDER).glob("*.jsonl")) or sorted(path.glob("ledger.jsonl"))
        recording = path / "events.jsonl"
    else:
        files, recording = [path], path.with_name("events.jsonl")
    if not files:
        raise Mistake(f"there is no ledger in {path}", "Give a run folder of `windfall demo`, or a site's ledger.jsonl")
    if key is not None and len(files) > 1:
        raise Mistake(f"--key is one site's and {path} holds {len(files)} ledgers", "Give the ledger of that site")
    ledgers = tuple(_ledger(file, key) for file in files)
    return ledgers, published(read_file(recording)) if recording.exists() else {}


def published(said: Iterable[Said]) -> Mapping[str, Mapping[int, str]]:
    """Site → sequence → hash, as the sites said in ``energy.recorded``."""
    found: dict[str, dict[int, str]] = {}
    for sentence in said:
        if isinstance(message := sentence.message, EnergyRecorded):
            found.setdefault(message.site, {})[message.sequence] = message.entry_hash
    return found


def section(
    ledgers: Sequence[SiteLedger], heads: Mapping[str, Mapping[int, str]] | None = None
) -> dict[str, Any] | None:
    """Every figure of the ledgers as plain JSON values; none without a ledger."""
    if not ledgers:
        return None
    sites: dict[str, Any] = {}
    rows: list[Row] = []
    for ledger in ledgers:
        found = verify(ledger.lines, ledger.public_key, (heads or {}).get(ledger.site))
        if not isinstance(found, Verified):
            sites[ledger.site] = {"verified": False, "broken": str(found), "fault": found.fault}
            continue
        sums = statement(found.entries)
        rows += sums.rows
        sites[ledger.site] = {
            "verified": True,
            "broken": None,
            "key_handed_over": ledger.public_key is not None,
            "public_key": found.genesis.public_key,
            "federation": found.genesis.federation,
            "entries": len(found.entries),
            "head": found.head,
            "start": found.genesis.created_at.isoformat(),
            "end": (found.entries[-1].end if found.entries else found.genesis.created_at).isoformat(),
            **_sums(sums),
        }
    return {
        "verified": all(site["verified"] for site in sites.values()),
        "sites": sites,
        **_sums(Statement(rows=tuple(rows))),
    }


def broken(found: Mapping[str, Any]) -> str | None:
    """In one line, what does not hold; none when everything does."""
    wrong = [f"the ledger of {name} is broken at {s['broken']}" for name, s in found["sites"].items() if s["broken"]]
    return "; ".join(wrong) or None


def table(found: Mapping[str, Any]) -> Sequence[str]:
    """The section for a person: a row for each site and state, and what was checked."""
    rows = [_HEADS, *cells(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*lines, "", *_checked(found)]


def cells(found: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """The rows of the table, without its head."""
    rows = []
    for name, site in found["sites"].items():
        if site["broken"]:
            rows.append((name, "broken", *("–" for _ in _HEADS[2:])))
            continue
        rows += [_row(name, state, figures) for state, figures in site["states"].items()]
        rows.append(_row(name, "total", site["total"]))
    if len(found["sites"]) > 1:
        rows.append(_row("all", "total", found["total"]))
    return rows


def heads() -> tuple[str, ...]:
    """The head of the table."""
    return _HEADS


def _checked(found: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"{name}: {site['broken']}"
        if site["broken"]
        else f"{name}: {counted(site['entries'], 'entries')} {'holds' if site['entries'] == 1 else 'hold'}, signed by"
        f" {site['public_key'][:16]}…{'' if site['key_handed_over'] else ' (as the ledger itself says)'},"
        f" head {site['head'][:16]}…"
        for name, site in found["sites"].items()
    ]


def _row(site: str, state: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        site,
        state,
        f"{figures['energy_kwh']:.4f}",
        f"{figures['emissions_kg']:.4f}",
        _percent(figures["clean_energy_share"]),
        figures["method"],
        f"{figures['always_on_kwh']:.4f}",
        f"{figures['always_on_kg']:.4f}",
        _percent(figures["saved_share"]),
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _sums(sums: Statement) -> dict[str, Any]:
    states = [state for state in SiteState if any(row.state is state for row in sums.rows)]
    return {
        "states": {state.value: _figures([row for row in sums.rows if row.state is state]) for state in states},
        "total": _figures(sums.rows),
    }


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    total: Figures = together(rows)
    # What nobody drew was not metered, and says nothing of how the rest was known.
    methods = {row.method for row in rows if row.state is not SiteState.OFF}
    metered = together(row for row in rows if row.method == "metered")
    return {
        **{name: round(getattr(total, name), 6) for name in Figures.model_fields},
        "clean_energy_share": _rounded(total.clean_energy_share),
        "saved_share": _rounded(total.saved_share),
        "method": "–" if not methods else "both" if len(methods) > 1 else methods.pop(),
        "metered_kwh": round(metered.energy_kwh, 6),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _ledger(path: Path, key: Path | None) -> SiteLedger:
    try:
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    except OSError as error:
        raise Mistake(f"cannot read {path} ({error.strerror})", "Give a ledger that this user may read") from error
    if lines[-1] == "":
        lines.pop()
    beside = [path.with_suffix(".pub"), path.with_name("site.pub")]
    file = key or next((candidate for candidate in beside if candidate.exists()), None)
    return SiteLedger(_site(path, lines), lines, None if file is None else _public_key(file))


def _site(path: Path, lines: Sequence[str]) -> str:
    """Whose it says it is; a file without a sound beginning goes by its name."""
    first = verify(lines[:1])
    return first.genesis.site if isinstance(first, Verified) else path.stem


def _public_key(path: Path) -> str:
    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise Mistake(
            f"cannot read {path} ({error.strerror})", "Give the site's site.pub", ExitCode.RESOURCE
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Mistake(f"{path} holds no public key in PEM", "Give the site's site.pub") from error
    if not isinstance(found, Ed25519PublicKey):
        raise Mistake(f"{path} holds no Ed25519 key", "Give the site's site.pub")
    return found.public_bytes_raw().hex()
