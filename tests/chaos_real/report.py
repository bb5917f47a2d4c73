"""What came of all runs: a table for people, JSON for machines, and the page."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.bench.figures import RESULTS, percentile
from tests.chaos_real.fault import Fault, Run

FILE: Final = RESULTS / "chaos.json"
COLUMNS: Final = ("fault", "runs", "violations", "recovery p50", "p95", "goal", "peers")
NOT_RUN: Final = "not run"


def row(fault: Fault, runs: Sequence[Run]) -> dict[str, Any]:
    """One fault's, for a machine."""
    took = [one.recovery_s for one in runs if one.recovery_s is not None]
    return {
        "fault": fault.name,
        "does": fault.does,
        "recovery": fault.recovery,
        "runs": len(runs),
        "violations": sum(bool(one.violations) for one in runs),
        "recovery_p50_s": round(percentile(took, 0.5), 2) if took else None,
        "recovery_p95_s": round(percentile(took, 0.95), 2) if took else None,
        "recovery_worst_s": round(max(took), 2) if took else None,
        "goal_s": fault.goal_s,
        "peers": fault.peers,
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(least(one.load for one in runs)) for least in (min, max)],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "each": [asdict(one) for one in runs],
    }


def earlier(fault: Fault, seeds: range) -> list[Run]:
    """What is known of a fault under other seeds than these."""
    found: dict[str, Any] = next((each for each in read() if each["fault"] == fault.name), {"each": []})
    return [Run(**{**one, "violations": tuple(one["violations"])}) for one in found["each"] if one["seed"] not in seeds]


def kept(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write these rows in the place of earlier ones of the same faults; gives all."""
    RESULTS.mkdir(exist_ok=True)
    known = {each["fault"]: each for each in read()}
    known |= {each["fault"]: dict(each) for each in rows}
    FILE.write_text(json.dumps(list(known.values()), indent=2) + "\n", encoding="utf-8")
    return list(known.values())


def read() -> list[dict[str, Any]]:
    """What was written last; nothing when nothing was."""
    if not FILE.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return rows


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table that folds and never truncates."""
    table = Table(title="chaos", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold", justify="left" if column in ("fault", "peers") else "right")
    for each in rows:
        table.add_row(*cells(each))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)


def cells(each: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(each["fault"]),
        str(each["runs"]),
        str(each["violations"]),
        _seconds(each["recovery_p50_s"]),
        _seconds(each["recovery_p95_s"]),
        "" if each["goal_s"] is None else f"{each['goal_s']:g} s",
        str(each["peers"]) or "none measured",
    )


def page(faults: Sequence[Fault]) -> str:
    """The table of ``docs/reliability.md``: every fault, also what was not run."""
    known = {each["fault"]: each for each in read()}
    lines = ["| fault | what it is | runs | violations | recovery p50 | p95 | goal | load | peers |"]
    lines.append("| --- | --- | --: | --: | --: | --: | --: | --: | --- |")
    for fault in faults:
        found = known.get(fault.name)
        goal = "" if fault.goal_s is None else f"{fault.goal_s:g} s"
        name, *middle = (fault.name, NOT_RUN, "", "", "") if found is None else cells(found)[:5]
        load = "" if found is None else "–".join(map(str, dict.fromkeys(found["load"])))
        # How long the soak was is told with it.
        does = fault.does if found is None else found["does"]
        lines.append(f"| {name} | {does} | {' | '.join(middle)} | {goal} | {load} | {fault.peers} |")
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
