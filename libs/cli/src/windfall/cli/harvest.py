"""From a run that is over to its folder: events, spans, model, figures, pictures and the report."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from windfall.cli import ledger, plots, report
from windfall.cli.fleet import Plan, in_words, told
from windfall.cli.paper_plot import paper
from windfall.cli.preparation import Prepared
from windfall.cli.recording import Said, line
from windfall.cli.story import windows
from windfall.cli.summary import Run, summarise
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import ExitCode, Mistake

_KEPT: Final = ("trace.csv", "events.jsonl", "traces.jsonl", "summary.json", "model.safetensors")
"""Files of a run folder whose digests the report names."""
_SHAPES: Final = TypeAdapter(list[list[Annotated[int, Field(ge=0)]]])


@dataclass(frozen=True)
class Harvest:
    """What a run left."""

    folder: Path
    summary: Mapping[str, Any]
    ended: bool = True
    """Whether what was asked for came to its end: an app may take longer than the trace."""


def gather_in(
    prepared: Prepared,
    plan: Plan,
    said: Sequence[Said],
    commanded_at: datetime,
    ended_at: datetime,
    started_again: Mapping[str, int],
    ended: bool = True,
) -> Harvest:
    """Write everything into the run folder.

    Args:
        ended: whether what was asked for came to its end.

    Raises:
        OSError: the disk is full or the folder is gone.
    """
    wish, folder = plan.wish, plan.wish.folder
    _write_lines(folder / "events.jsonl", [line(sentence) for sentence in said])
    spans = _merged_spans(plan.traces)
    _write_lines(folder / "traces.jsonl", [json.dumps(span) for span in spans])
    model = _final_model(plan.state_of("federation-coordinator", HUB), folder / "model.safetensors")
    # A Flower app may be done long before the trace is.
    last = max((sentence.message.at for sentence in said), default=wish.trace_end)
    end = wish.trace_end if wish.flower is None else min(wish.trace_end, last)
    run = Run(
        federation=wish.federation,
        sites=wish.sites,
        traces=prepared.traces,
        trace_start=wish.trace_start,
        trace_end=end,
        speed=wish.pace.speed,
        wall_start=plan.clock.wall_start,
        commanded_at=commanded_at,
        ended_at=ended_at,
        open_below_g_per_kwh=wish.open_below_g_per_kwh,
        close_above_g_per_kwh=wish.close_above_g_per_kwh,
        model_bytes=model_bytes(model) if model else 0,
        model_sha256=_sha256(model) if model else None,
        seed=wish.seed,
        app=None if wish.flower is None else wish.flower.name,
        started_again=started_again,
    )
    kept = _ledgers(plan, folder / ledger.FOLDER)
    summary = summarise(run, said, ledger.section(kept, ledger.published(said)))
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    loss = plots.losses(said)
    signals = plots.signals(
        windows(said),
        prepared.traces,
        wish.trace_start,
        wish.trace_end,
        wish.open_below_g_per_kwh,
        wish.close_above_g_per_kwh,
    )
    plots.png(loss, folder / "loss.png")
    plots.png(signals, folder / "windows.png")
    whole = paper(said, windows(said), prepared.traces, summary, wish.trace_start, wish.trace_end)
    plots.png(whole, folder / "run.png")
    page = report.page(
        summary=summary,
        said=said,
        spans=spans,
        pictures={"loss": plots.svg(loss), "windows": plots.svg(signals)},
        processes=in_words(plan),
        policy=report.policy_in_words(wish),
        settings=told(plan),
        digests={name: _sha256(folder / name) for name in _KEPT if (folder / name).exists()},
        command=wish.typed,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    return Harvest(folder, summary, ended)


def model_bytes(path: Path) -> int:
    """Bytes of a safetensors file's tensors in fp32, from its header alone (8-byte length, then JSON).

    Raises:
        Mistake: it is no such file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            # No longer than the file, whatever it says of itself.
            header = json.loads(file.read(min(length, path.stat().st_size)))
        shapes = _SHAPES.validate_python([one["shape"] for name, one in header.items() if name != "__metadata__"])
    except (struct.error, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise Mistake(f"{path} is no safetensors file", "Run again: it is damaged", ExitCode.RESOURCE) from error
    return sum(4 * prod(shape) for shape in shapes)


def _final_model(state: Path, target: Path) -> Path | None:
    """The final model in the run folder, by a hard link where that goes; none when no model was written."""
    found = [path for path in state.rglob("*.safetensors") if path.is_file()]
    if not found:
        return None
    final = [path for path in found if path.stem in ("final", "model")]
    newest = max(final or found, key=lambda path: path.stat().st_mtime_ns)
    try:
        os.link(newest, target)
    except OSError:
        # Another file system, or one without links.
        shutil.copyfile(newest, target)
    return target


def _ledgers(plan: Plan, folder: Path) -> tuple[ledger.SiteLedger, ...]:
    """Each site's ledger and public key in the run folder, under the site's name."""
    for site in plan.wish.sites:
        state = plan.state_of("energy-watcher", site)
        if (state / "ledger.jsonl").exists():
            folder.mkdir(exist_ok=True)
            shutil.copyfile(state / "ledger.jsonl", folder / f"{site}.jsonl")
            shutil.copyfile(state / "site.pub", folder / f"{site}.pub")
    return ledger.of_run(folder.parent)[0] if folder.exists() else ()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _merged_spans(folder: Path) -> list[dict[str, Any]]:
    """All services' spans by their start. A line that a crash cut short is left out."""
    spans = []
    for path in sorted(folder.glob("*.jsonl")):
        for row in path.read_text(encoding="utf-8").splitlines():
            try:
                spans.append(json.loads(row))
            except ValueError:
                continue
    return sorted(spans, key=lambda span: int(span["start_unix_ns"]))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
