"""From what a person typed to a run folder with all that a fleet needs, or one clear line that says why not."""

import csv
import errno
import io
import shlex
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from windfall.cli.fleet import APP, DAY, FAST, FAST_HOURS, LOOPBACK, FlowerApp, Plan, Wish
from windfall.contracts.message import Name
from windfall.contracts.subjects import HUB
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import TIME_COLUMN, Trace, TraceError, parse_trace, sites_of
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import free_port

HELD_OUT_CHARACTERS = 111_539
"""The end of the text, which only the coordinator gets."""
SHIPPED = "the shipped trace"


@dataclass(frozen=True)
class Asked:
    """What the person typed."""

    fast: bool = False
    out: Path | None = None
    sites: tuple[str, ...] = ()
    """Empty: every column of the trace."""
    seed: int = 1
    trace: Path | None = None
    """None: the shipped one."""
    port: int | None = None
    """Of the hub's NATS; none takes a free one."""
    forecast: bool = True
    """Whether sites see the ends of their windows coming."""
    codec: str = "topk-ef"
    """In which contributions travel."""
    settings: tuple[str, ...] = ()
    """``NAME=VALUE``: any other of the coordinator's settings."""
    flower_app: Path | None = None
    """Folder of a Flower app to run; none trains our own model."""
    config: tuple[str, ...] = ()
    """What is changed of the app's configuration."""
    data: Path | None = None
    """The sites' data, for the app."""


@dataclass(frozen=True)
class Prepared:
    """A wish that can be granted, and the traces of its sites over the hours that are replayed."""

    wish: Wish
    traces: Mapping[str, Trace]


def prepare(asked: Asked, now: datetime) -> Prepared:
    """Check what was asked and make the run folder.

    Raises:
        Mistake: a trace that cannot be read, a site that it does not have, a folder that is taken or not writable, a
            full disk.
    """
    flower = None if asked.flower_app is None else _app(asked.flower_app, asked.config, asked.data)
    traces = replayed(asked)
    start = min(trace.start for trace in traces.values())
    folder = _made(asked.out or Path("runs") / f"{now:%Y%m%d-%H%M%S}")
    wish = Wish(
        folder=folder,
        sites=tuple(traces),
        trace_file=folder / "trace.csv",
        trace_start=start,
        trace_end=min(trace.end for trace in traces.values()),
        pace=FAST if asked.fast else DAY if flower is None else APP,
        seed=asked.seed,
        forecast=asked.forecast,
        task_settings={"preset": "tiny" if asked.fast else "small"},
        codec=asked.codec,
        settings=_settings(asked.settings),
        flower=flower,
        typed=_typed(asked, tuple(traces)),
    )
    wish.trace_file.write_text(in_csv(traces), encoding="utf-8")
    return Prepared(wish, traces)


def same_run(asked: Asked) -> dict[str, str]:
    """What makes two commands ask for the same run of an app; where it goes and how it is shown does not."""
    return {
        "--flower-app": "" if asked.flower_app is None else str(asked.flower_app.resolve()),
        "-c": " ".join(asked.config),
        "--data": "" if asked.data is None else str(asked.data.resolve()),
        "--trace": "" if asked.trace is None else str(asked.trace.resolve()),
        "--sites": ",".join(asked.sites),
        "--fast": "yes" if asked.fast else "",
    }


def replayed(asked: Asked) -> Mapping[str, Trace]:
    """The traces of its sites over the hours that they have in common.

    Raises:
        Mistake: a trace that cannot be read, or a site that it does not have.
    """
    name = str(asked.trace) if asked.trace else SHIPPED
    lines = _lines(asked.trace)
    whole = {site: _traced(lines, site, name) for site in _sites(asked.sites, lines, name)}
    start, end = max(trace.start for trace in whole.values()), min(trace.end for trace in whole.values())
    if asked.fast:
        start, end = _hours(start, end)
    return {site: _cut(trace, start, end, name) for site, trace in whole.items()}


def _typed(asked: Asked, sites: tuple[str, ...]) -> str:
    """The command that says the same again, from the run folder's trace, which holds the hours that were replayed."""
    words = (
        ["windfall", "demo"] if asked.flower_app is None else ["windfall", "run", "--flower-app", str(asked.flower_app)]
    )
    words += ["--trace", "trace.csv", "--sites", ",".join(sites)]
    words += ["--fast"] if asked.fast else []
    if asked.flower_app is not None:
        words += [word for one in asked.config for word in ("-c", one)]
        return shlex.join([*words, *(["--data", str(asked.data)] if asked.data else [])])
    words += ["--seed", str(asked.seed), "--codec", asked.codec]
    words += [] if asked.forecast else ["--no-forecast"]
    return shlex.join([*words, *(word for one in asked.settings for word in ("--set", one))])


def _settings(told: tuple[str, ...]) -> dict[str, str]:
    """The coordinator's by their names without prefix, in capitals; it says itself what is wrong with a value.

    Raises:
        Mistake: one has no name and value.
    """
    found = {}
    for one in told:
        name, equals, value = one.partition("=")
        if not (name.strip() and equals):
            raise Mistake(f"{one!r} is no setting", "Say NAME=VALUE, like --set precision=fp32")
        found[name.strip().upper().removeprefix("WINDFALL_")] = value.strip()
    return found


def _app(folder: Path, config: tuple[str, ...], data: Path | None) -> FlowerApp:
    """Look whether the app can be found. What is in it is read where it runs: this command knows nothing of Flower."""
    path = folder / "pyproject.toml"
    try:
        parsed = tomllib.loads(path.read_text(encoding="utf-8"))
        name = str(parsed["project"]["name"])
        _ = parsed["tool"]["flwr"]["app"]["components"]
    except OSError as error:
        raise Mistake(
            f"cannot read {path} ({error.strerror})", "Name the folder of a Flower app with --flower-app"
        ) from error
    except (KeyError, TypeError) as error:
        raise Mistake(
            f"{path} is not that of a Flower app ({error} is missing)", "It needs [tool.flwr.app.components]"
        ) from error
    except ValueError as error:
        raise Mistake(f"{path}: {error}", "Mend it and start again") from error
    if data is not None and not data.is_dir():
        raise Mistake(f"there is no data folder {data}", "Name one with --data, or leave it out", ExitCode.RESOURCE)
    return FlowerApp(folder.resolve(), name, " ".join(config), None if data is None else data.resolve())


def _hours(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The part that ``--fast`` replays; of a trace that is too short for it, as many hours from its beginning."""
    since, until = FAST_HOURS
    if start + until > end:
        return start, min(end, start + until - since)
    return start + since, start + until


def ports(first: int | None) -> Iterator[int]:
    """Free loopback ports, each once, beginning with the one that was asked for.

    Raises:
        Mistake: that one is in use.
    """
    seen = set()
    if first is not None:
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((LOOPBACK, first))
        except OSError as error:
            raise Mistake(
                f"port {first} cannot be used ({error.strerror})",
                "Choose another with --port, or leave it out",
                ExitCode.RESOURCE,
            ) from error
        seen.add(first)
        yield first
    while True:
        port = free_port()
        if port not in seen:
            seen.add(port)
            yield port


def furnish(plan: Plan) -> None:
    """Write each site's own text and the held-out text; a Flower app brings its own data.

    Raises:
        OSError: the disk is full or the folder is gone.
    """
    if plan.wish.flower is not None:
        for site in plan.wish.sites:
            plan.data_of(site).mkdir(parents=True, exist_ok=True)
        return
    share_out(plan.wish.sites, plan.data_of, plan.held_out)


def share_out(sites: Sequence[str], data_of: Callable[[str], Path], held_out: Path) -> None:
    """Write each site's part of the shipped text, and the part that no site trains on."""
    text = files("windfall.cli").joinpath("data/tinyshakespeare.txt").read_text(encoding="utf-8")
    shards, kept_back = split(text, len(sites))
    for site, shard in zip(sites, shards, strict=True):
        _write(data_of(site) / "text.txt", shard)
    _write(held_out / "text.txt", kept_back)


def split(text: str, sites: int) -> tuple[Sequence[str], str]:
    """Equal consecutive parts of the beginning, one per site, and the held-out end."""
    begin, held_out = text[:-HELD_OUT_CHARACTERS], text[-HELD_OUT_CHARACTERS:]
    size = len(begin) // sites
    return [begin[index * size : (index + 1) * size] for index in range(sites)], held_out


def in_csv(traces: Mapping[str, Trace]) -> str:
    """Traces with common instants as one CSV file; an instant that one of them lacks is left out."""
    values = [{reading.point_time: reading.intensity_g_per_kwh for reading in t.points} for t in traces.values()]
    common = set(values[0]).intersection(*values[1:])
    output = io.StringIO()
    rows = csv.writer(output, lineterminator="\n")
    rows.writerow([TIME_COLUMN, *traces])
    rows.writerows([at.isoformat(), *(f"{column[at]:g}" for column in values)] for at in sorted(common))
    return output.getvalue()


def _lines(path: Path | None) -> Sequence[str]:
    if path is None:
        return synthetic_trace()
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Mistake(
            f"cannot read the trace {path} ({error.strerror})", "Give a CSV file with --trace", ExitCode.RESOURCE
        ) from error
    except UnicodeDecodeError as error:
        raise Mistake(f"the trace {path} is not text in UTF-8", "Save it as plain CSV in UTF-8") from error


def _sites(asked: Sequence[str], lines: Sequence[str], name: str) -> tuple[str, ...]:
    try:
        columns = sites_of(lines)
    except TraceError as error:
        raise _refused(name, error) from error
    for site in asked:
        if site not in columns:
            raise Mistake(f"unknown site {site!r}", f"The columns of {name} are: {', '.join(columns) or 'none'}")
    sites = tuple(dict.fromkeys(asked)) or columns
    for site in sites:
        try:
            TypeAdapter(Name).validate_python(site)
        except ValidationError as error:
            raise Mistake(
                f"{site!r} in {name} cannot name a site", "Use 1 to 48 lower-case letters, digits and inner dashes"
            ) from error
        if site == HUB:
            raise Mistake(f"a site cannot be called {HUB!r}", "That is the hub's name; rename the column")
    return sites


def _traced(lines: Sequence[str], site: str, name: str) -> Trace:
    try:
        return parse_trace(lines, site)
    except TraceError as error:
        raise _refused(name, error) from error


def _refused(name: str, error: TraceError) -> Mistake:
    return Mistake(f"{name}, {error.cause}", error.cure[0].upper() + error.cure[1:])


def _cut(trace: Trace, start: datetime, end: datetime, name: str) -> Trace:
    points = tuple(reading for reading in trace.points if start <= reading.point_time < end)
    if len(points) < 2:
        raise Mistake(
            f"{name} has no two readings between {start.isoformat()} and {end.isoformat()}", "Give more hours"
        )
    return Trace(points)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Mistake(
                f"the folder {folder} is not empty", "Choose another with --out: a run is kept whole", ExitCode.RESOURCE
            )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise Mistake(
            f"cannot make the run folder {folder} ({error.strerror})",
            "Choose one that this user may write, with --out",
            ExitCode.RESOURCE,
        ) from error
    return folder.resolve()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
