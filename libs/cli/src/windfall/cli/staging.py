"""Lays out a replay for services that this command does not start: in containers, or on other machines."""

from datetime import datetime
from pathlib import Path

from windfall.cli.preparation import Asked, in_csv, replayed, share_out
from windfall.servicekit.clock import ReplayClock

CLOCK = "clock"
TRACE = "trace.csv"


def staged(folder: Path, asked: Asked, speed: float, now: datetime) -> str:
    """Write ``trace.csv``, ``data/<site>/text.txt``, ``data/held-out/text.txt`` and, last, ``clock``.

    Args:
        folder: where to.
        asked: which trace and sites.
        speed: trace seconds per wall second.
        now: wall instant at which the trace begins.

    Returns:
        One line for a person.

    Raises:
        Mistake: a trace that cannot be read, or a site that it does not have.
        OSError: the folder cannot be written.
    """
    clock = folder / CLOCK
    if clock.exists():
        return f"{folder} has been laid out before: the day goes on by {clock.read_text(encoding='utf-8').strip()}"
    traces = replayed(asked)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRACE).write_text(in_csv(traces), encoding="utf-8")
    share_out(tuple(traces), lambda site: folder / "data" / site, folder / "data" / "held-out")
    start, end = (
        pick(getattr(trace, edge) for trace in traces.values()) for pick, edge in ((max, "start"), (min, "end"))
    )
    told = str(ReplayClock(start, now, speed))
    # Last: who finds it finds everything.
    clock.write_text(f"{told}\n", encoding="utf-8")
    minutes = (end - start).total_seconds() / speed / 60
    return f"{', '.join(traces)}: {minutes:.0f} minutes of replay begin now; WINDFALL_CLOCK=file:{clock}"
