"""``windfall profile``: what nodes are made of and can do, from a server or from files, and what became of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from windfall.cli.drift import Drift, drifts
from windfall.cli.last_words import last_words
from windfall.cli.nearest import near
from windfall.cli.resources.versioned import several, single
from windfall.cli.server import connection, known_sites
from windfall.contracts.events import NodeProfiled
from windfall.contracts.profile import Profile, told
from windfall.contracts.subjects import subject_for
from windfall.servicekit.errors import ExitCode, Mistake

Profiles = Mapping[str, Profile]
"""The newest profile of each site."""

_NOTHING: Final = "–"


async def profiles(url: str, *asked: str) -> Profiles:
    """The newest profile of these sites, or of all that the server knows and that have one.

    Raises:
        Mistake: the server cannot be used, does not know a site, or has heard nothing of it.
    """
    async with connection(url) as client:
        known = await known_sites(client)
        for site in asked:
            if site not in known:
                raise Mistake(f"unknown site {site!r}", f"{near(site, list(known))} A file ends in .json")
        subjects = [subject_for(NodeProfiled, site) for site in asked or known]
        said = [word for word in await last_words(client, subjects) if isinstance(word, NodeProfiled)]
    found = {word.site: told(word) for word in said}
    for site in asked:
        if site not in found:
            raise Mistake(f"no node of {site!r} was profiled yet", "Ask again when a window of it has opened")
    return found


def read(path: Path) -> Profile:
    """A profile from a file, as ``profile export`` or a profiler wrote it.

    Raises:
        Mistake: it cannot be read, or is no profile.
    """
    try:
        return Profile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {path} ({error})", "Give a file that `windfall profile export` wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise Mistake(
            f"{path} is no profile: {where}: {first['msg']}", "Give a file that `windfall profile export` wrote"
        ) from error


async def of(source: str, url: str) -> Profiles:
    """What a person names: a file, a folder of files, or a site.

    Raises:
        Mistake: there is none.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise Mistake(f"there is no profile in {path}", "Give a folder that `windfall profile export` wrote")
        return {one.site: one for one in map(read, files)}
    if path.suffix == ".json":
        one = read(path)
        return {one.site: one}
    return await profiles(url, source)


async def compared(url: str, before: str, after: str | None, tolerance: float) -> list[Drift]:
    """What is not as it was. Without an after it is what the server knows now of the same sites.

    Raises:
        Mistake: one of the two cannot be had, or they have nothing in common.
    """
    was = await of(before, url)
    now = await of(after, url) if after is not None else await profiles(url, *was)
    if len(was) == len(now) == 1:
        return drifts(next(iter(was.values())), next(iter(now.values())), tolerance)
    if not was.keys() & now.keys():
        raise Mistake(f"{before} and {after} are of different sites", "Name two of the same, or two single profiles")
    found = [one for site in sorted(was.keys() & now.keys()) for one in drifts(was[site], now[site], tolerance)]
    found += [Drift(site, "site", "lost", was[site].node, "no profile") for site in sorted(was.keys() - now.keys())]
    return found + [
        Drift(site, "site", "added", "no profile", now[site].node) for site in sorted(now.keys() - was.keys())
    ]


def export(found: Profiles, folder: Path) -> list[tuple[Path, bool]]:
    """A file for each site, the same for the same profile; each with whether it is new or another than before."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for site, profile in sorted(found.items()):
        path, text = folder / f"{site}.json", f"{document(profile)}\n"
        new = not path.exists() or path.read_text(encoding="utf-8") != text
        if new:
            path.write_text(text, encoding="utf-8")
        written.append((path, new))
    return written


def document(profile: Profile) -> str:
    """One profile as JSON."""
    return profile.model_dump_json(indent=2, exclude_none=True)


def shown(found: Profiles, form: str, alone: bool) -> str:
    """Profiles as ``json`` or ``yaml``: one document, as `export` writes it, when one was asked for, else a list."""
    documents = [profile.model_dump(mode="json", exclude_none=True) for _, profile in sorted(found.items())]
    return single("Profile", documents[0], form) if alone else several("Profile", documents, form)


def shown_drift(found: Sequence[Drift], form: str) -> str:
    """What drifted as ``json`` or ``yaml``: a versioned list."""
    return several("Drift", [asdict(one) for one in found], form)


def table(found: Profiles) -> Table:
    """A line for each site."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in (
        "site",
        "node",
        "measured",
        "accelerators",
        "driver",
        "memory",
        "GFLOP/s",
        "GB/s",
        "link",
        "missing",
    ):
        made.add_column(column, overflow="fold")
    for site, one in sorted(found.items()):
        made.add_row(site, one.node, f"{one.at:%Y-%m-%d %H:%M}", *_cells(one))
    return made


def _cells(one: Profile) -> Sequence[str]:
    gpus, measured = one.hardware.accelerators, one.measured
    models = Counter(gpu.canonical_model or gpu.model for gpu in gpus)
    memory = sum(gpu.memory_bytes or 0 for gpu in gpus) or measured.memory_bytes
    up, rtt = measured.link_up_mb_per_s, measured.link_rtt_ms
    link = _NOTHING if up is None and rtt is None else f"{_number(up)} MB/s up, {_number(rtt)} ms"
    return (
        ", ".join(f"{count} × {model}" for model, count in models.items()) or f"none; {measured.cpu_cores} cores",
        ", ".join(sorted({gpu.driver for gpu in gpus if gpu.driver})) or _NOTHING,
        f"{memory / 2**30:.1f} GiB",
        _number(measured.matmul_gflops),
        _number(measured.memory_bandwidth_gb_per_s),
        link,
        str(len(one.hardware.missing) + len(measured.missing))
        if one.hardware.missing or measured.missing
        else _NOTHING,
    )


def drift_table(found: Sequence[Drift]) -> Table:
    """A line for each thing that is not as it was."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("site", "part", "is", "before", "after"):
        made.add_column(column, overflow="fold")
    for one in found:
        made.add_row(one.site, one.part, one.kind, one.before, one.after)
    return made


def printed(what: Table) -> None:
    """On a terminal as wide as it is, elsewhere wide enough for every cell."""
    console = Console()
    Console(width=None if console.is_terminal else 200, highlight=False).print(what)


def raise_for(found: Sequence[Drift]) -> None:
    """End with the code for drift when there is some.

    Raises:
        Mistake: there is.
    """
    if found:
        sites = sorted({one.site for one in found})
        raise Mistake(
            f"the hardware of {', '.join(sites)} is not as it was ({len(found)})",
            "Mend it, or take it on with `windfall profile export DIR`",
            ExitCode.DIFFERENT,
        )


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
