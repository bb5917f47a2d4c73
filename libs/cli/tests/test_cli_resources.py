"""``windfall get``, ``describe``, ``watch`` and ``wait``: folds over events, and the commands on a real server."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tests.commanded import ran
from windfall.cli import commands
from windfall.cli.__main__ import WHERE, windfall
from windfall.cli.commands.options import interruptible
from windfall.cli.explain_federation import explain_any
from windfall.cli.recording import Said
from windfall.cli.resources import roster
from windfall.cli.resources.describing import described, for_machines, in_words
from windfall.cli.resources.events import RECENT
from windfall.cli.resources.reading import rows
from windfall.cli.resources.registry import ALL, chosen, resource
from windfall.cli.resources.resource import Resource, Rows, record
from windfall.cli.resources.showing import Form, shown
from windfall.cli.resources.sites import SITES, Site
from windfall.cli.resources.watching import follow, until
from windfall.cli.server import connection, declared, store
from windfall.contracts.envelope import Letter
from windfall.contracts.events import (
    EnergyRecorded,
    FederationFinished,
    FederationPaused,
    FederationResumed,
    NodeHindered,
    RoundEvaluated,
    RoundStarted,
    SignalStale,
    SiteJoined,
    WindowOpened,
)
from windfall.contracts.subjects import HUB
from windfall.servicekit.bus import buried
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port


@pytest.fixture
async def hub(nats_server: NatsServer, recorded: Sequence[Said]) -> AsyncIterator[str]:
    """A hub that has heard the recorded run, and one letter that is no sentence."""
    await declared([replace(nats_server.plan, domain=HUB)])
    async with connection(nats_server.url) as client:
        for said in recorded:
            await store(client, said.letter())
        await store(client, Letter("windfall.v1.window.opened.site-a", {}, b"nonsense"))
    yield nats_server.url


def folded(of: Resource, recorded: Sequence[Said]) -> Rows:
    found = of.begin()
    for said in recorded:
        if isinstance(said.message, of.hears):
            of.fold(found, said.message)
    return found


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ALL, ids=lambda of: of.name)
def test_columns_are_fields_and_names_are_first(of: Resource) -> None:
    known = [one.name for one in fields(of.row)]
    assert known[0] == "name"
    assert {field for _, field in of.columns + of.wide} <= set(known)
    assert resource(of.name) is resource(of.aliases[0]) is of


def test_a_whole_run(recorded: Sequence[Said]) -> None:
    sites, windows = folded(SITES, recorded), folded(resource("windows"), recorded)
    assert sorted(sites) == ["site-a", "site-b", "site-c"]
    assert (sites["site-a"].window, sites["site-a"].node, sites["site-a"].training) == ("off", "released", "drained")
    assert [one.state for one in windows.values()] == ["closed"] * 4
    leases = folded(resource("leases"), recorded)
    assert {(one.state, one.reason) for one in leases.values()} == {("released", "drained")}
    rounds = folded(resource("rounds"), recorded)
    assert list(rounds) == [f"demo/{number}" for number in range(5)]
    assert (rounds["demo/2"].loss_nats, rounds["demo/2"].held_out_nats) == pytest.approx((3.4, 3.5))
    (federation,) = folded(resource("federations"), recorded).values()
    assert (federation.state, federation.tokens_total, federation.completed) == ("finished", 100_000, 4)


def test_a_federation_is_paused_and_goes_on(recorded: Sequence[Said]) -> None:
    found = folded(
        resource("federations"), [one for one in recorded if not isinstance(one.message, FederationFinished)]
    )
    told = {"at": recorded[-1].message.at, "federation": "demo", "round": 5, "base_digest": "0" * 64}
    of = resource("federations")
    of.fold(found, FederationPaused(id=UUID(int=1), because="new disks", **told))
    assert (found["demo"].state, found["demo"].because, found["demo"].sites) == ("paused", "new disks", ())
    of.fold(found, FederationResumed(id=UUID(int=2), **told))
    assert (found["demo"].state, found["demo"].because) == ("waiting", "")


def test_a_run_is_a_federation_from_its_first_round_to_its_last_word(recorded: Sequence[Said]) -> None:
    of = resource("run")
    found = folded(of, recorded)
    (run,) = found.values()
    assert (run.name, run.state, run.rounds, run.tokens_total) == ("demo/1", "finished", 5, 100_000)
    assert run.sites == ("site-a", "site-b")
    assert (run.loss_first, run.loss_last) == pytest.approx((4.0, 2.8))
    assert (run.held_out_first, run.held_out_last) == pytest.approx((4.1, 2.9))
    assert run.started_at < run.ended_at
    assert run.energy_kwh is None, "no ledger said anything"
    window = next(one.message for one in recorded if isinstance(one.message, SiteJoined)).window_id
    at = run.ended_at + timedelta(minutes=1)

    def drawn(number: int, window_id: UUID | None, end: datetime) -> EnergyRecorded:
        told = {"sequence": number, "state": "training", "start": end - timedelta(minutes=1), "end": end}
        told |= {"energy_kwh": 2.0, "emissions_kg": 0.1, "clean_energy_kwh": 2.0, "method": "modelled"}
        return EnergyRecorded(
            id=UUID(int=number), at=end, site="site-a", window_id=window_id, entry_hash="0" * 64, **told
        )

    # A ledger's entries may come late, and nobody's windows are not this run's.
    of.fold(found, drawn(1, window, run.ended_at))
    of.fold(found, drawn(2, None, run.ended_at))
    of.fold(found, drawn(3, UUID(int=99), at))
    assert (found["demo/1"].energy_kwh, found["demo/1"].emissions_g) == pytest.approx((2.0, 100.0))

    # The same name begins anew: its first model is scored before its first round, a node comes up before it joins.
    told = {"at": at, "federation": "demo", "base_digest": "0" * 64}
    of.fold(
        found,
        RoundEvaluated(id=UUID(int=4), at=at, federation="demo", round=0, model_digest="0" * 64, loss_nats=9.0),
    )
    assert found["demo/1"].held_out_first == pytest.approx(4.1)
    of.fold(found, RoundStarted(id=UUID(int=5), round=0, members=("site-a",), ends_at=None, **told))
    lease = {"window_id": UUID(int=99), "lease_token": 9, "attempt": 2, "round": 0}
    of.fold(found, SiteJoined(id=UUID(int=6), at=at, site="site-a", federation="demo", **lease))
    second = found["demo/2"]
    assert (second.state, second.rounds, second.held_out_first, second.energy_kwh) == ("training", 0, 9.0, 2.0)
    of.fold(found, FederationPaused(id=UUID(int=7), round=1, because="new disks", **told))
    assert (found["demo/2"].state, found["demo/2"].pauses, found["demo/2"].because) == ("paused", 1, "new disks")
    assert found["demo/1"].because == "" and found["demo/1"].energy_kwh == 2.0


async def test_who_is_named_is_read_alone_and_like_all(hub: str) -> None:
    everybody = await rows(hub, SITES)
    assert await rows(hub, SITES, ("site-a",)) == {"site-a": everybody["site-a"]}
    # Nobody of that name: whoever is nearest is to be named.
    for name in ("site-z", "site-", "*", "site.a", ""):
        assert await rows(hub, SITES, (name,)) == everybody


def test_what_keeps_a_node_stands_until_it_comes(recorded: Sequence[Said]) -> None:
    found = folded(SITES, recorded)
    at = recorded[-1].message.at
    lease = {"window_id": UUID(int=1), "lease_id": UUID(int=2), "lease_token": 9}
    hindered = NodeHindered(id=UUID(int=3), at=at, site="site-a", because="0 of 1 workers fit", **lease)
    SITES.fold(found, hindered)
    assert (found["site-a"].node, found["site-a"].trouble) == ("hindered", "0 of 1 workers fit")
    SITES.fold(found, hindered.model_copy(update={"because": ""}))
    assert found["site-a"].trouble == ""
    SITES.fold(found, SignalStale(id=UUID(int=4), at=at, site="site-a", last_point_time=None, limit_s=900))
    assert found["site-a"].window == "stale"


@pytest.mark.parametrize(
    ("name", "cure"),
    [("site", None), ("SITES", None), ("sities", "Did you mean sites?"), ("pods", "There is dead-letters, events,")],
)
def test_a_resource_by_nearly_its_name(name: str, cure: str | None) -> None:
    if cure is None:
        assert resource(name) is SITES
        return
    with pytest.raises(Mistake, match=rf"unknown resource '{name}'. {cure.replace('?', '[?]')}"):
        resource(name)


def test_an_id_may_be_cut_while_one_alone_begins_so(recorded: Sequence[Said]) -> None:
    of = resource("windows")
    found = folded(of, recorded)
    name = next(iter(found))
    assert chosen(of, found, (name[:8],)) == [found[name]]
    with pytest.raises(Mistake, match="unknown window"):
        chosen(of, found, (name[:2],))
    with pytest.raises(Mistake, match=r"unknown site 'site-aa'\. Did you mean site-a"):
        chosen(SITES, {"site-a": Site("site-a")}, ("site-aa",))
    with pytest.raises(Mistake, match=r"there is no site 'site-x'\. No site has said anything yet"):
        chosen(SITES, {}, ("site-x",))


@pytest.mark.parametrize("of", ALL, ids=lambda of: of.name)
def test_every_form_of_every_resource(of: Resource, recorded: Sequence[Said]) -> None:
    found = list(folded(of, recorded).values())
    document = json.loads(shown(of, found, "json"))
    assert (document["apiVersion"], document["kind"]) == ("windfall.dev/cli/v1", f"{of.kind}List")
    assert document == yaml.safe_load(shown(of, found, "yaml"))
    lines = [json.loads(line) for line in shown(of, found, "jsonl").splitlines()]
    assert [{"apiVersion": "windfall.dev/cli/v1", "kind": of.kind, **item} for item in document["items"]] == lines
    forms: tuple[Form, ...] = ("table", "wide")
    for form in forms:
        text = shown(of, found, form)
        assert all(one.name in text for one in found), "an identifier is never cut"
        assert "…" not in text or "…" in json.dumps(document, ensure_ascii=False)
    if found:
        alone = json.loads(shown(of, found[:1], "json", alone=True))
        assert alone["name"] == found[0].name
        assert set(alone) == {"apiVersion", "kind", *record(found[0])}
    else:
        assert shown(of, found, "table") == of.empty[:1].upper() + of.empty[1:] + "."


def test_whom_a_hub_lets_in_is_shown_like_all_else() -> None:
    noon = "2026-01-01T12:00:00+00:00"
    register = {
        "members": [{"site": "texas", "tenant": "lab", "since": noon, "until": "2026-04-01T12:00:00Z"}],
        "waiting": [{"site": "quebec", "asked_at": noon, "keys": "f" * 64}],
        "history": [{"site": "texas", "at": noon, "what": "token", "detail": ""}],
    }
    tenants = {
        "tenants": {"lab": {"federation": "gcn", "coordinator": "hub:9600", "max_bytes": 2**30}},
        "sites": {"texas": "lab"},
        "loans": [{"lender": "default", "borrower": "lab", "fact": "window.opened.oslo"}],
    }
    for of, found, cells in (
        (roster.ENROLLED, roster.enrolled(register), ["texas", "2026-01-01 12:00:00", "2026-04-01 12:00:00"]),
        (roster.WAITING, roster.waiting(register), ["quebec", "2026-01-01 12:00:00", "f" * 64]),
        (roster.HISTORY, roster.history(register), ["2026-01-01 12:00:00", "texas", "token", "–"]),
        (roster.TENANTS, roster.tenants(tenants)[1:],
         ["lab", "texas", "gcn", "hub:9600", "1 GiB", "default:window.opened.oslo"]),
    ):  # fmt: skip
        assert re.split(r" {3,}", shown(of, found, "table").splitlines()[1]) == cells
        (item,) = json.loads(shown(of, found, "json"))["items"]
        assert item["name"] == found[0].name
        assert shown(of, [], "table")
    assert [one.sites for one in roster.tenants(tenants)] == [(), ("texas",)]


async def test_a_shell_completes_resources() -> None:
    code, out, err = await ran("completion", "bash", url="")
    assert (code, err) == (0, "")
    assert "_WINDFALL_COMPLETE=bash_complete" in out
    asked = {"_WINDFALL_COMPLETE": "bash_complete", "COMP_WORDS": "windfall get s", "COMP_CWORD": "2"}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "windfall.cli"], env={**os.environ, **asked}, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, b"plain,sites\n")


# --- on a server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ALL, ids=lambda of: of.name)
async def test_a_server_is_asked_for_what_its_events_say(of: Resource, hub: str, recorded: Sequence[Said]) -> None:
    assert await rows(hub, of) == folded(of, recorded)


async def test_only_so_many_of_the_newest_are_read(hub: str, recorded: Sequence[Said]) -> None:
    assert list(await rows(hub, replace(RECENT, most=4))) == [str(one.message.id) for one in recorded[-3:]]
    last = str(recorded[-1].message.id)
    text = in_words(await described(hub, "event", last[:12], 10))
    assert f"name:  {last}" in text and "Last events" not in text


async def test_a_dead_letter_is_a_row_whatever_is_in_it(hub: str, recorded: Sequence[Said]) -> None:
    said = recorded[0]
    async with connection(hub) as client:
        await store(client, buried("provisioner", said.letter(), "no such site"))
        await store(client, buried("profiler", Letter("windfall.v1.window.opened.site-a", {}, b"nonsense"), "no JSON"))
    code, out, _ = await ran("get", "dead-letters", "-o", "json", url=hub)
    first, second = json.loads(out)["items"]
    assert (code, first["name"], first["consumer"], first["reason"]) == (0, "1", "provisioner", "no such site")
    assert (first["event_id"], first["said_at"]) == (str(said.message.id), said.message.at.isoformat())
    assert (second["name"], second["subject"], second["event_id"]) == ("2", "windfall.v1.window.opened.site-a", "")
    listed, dead = [
        await asyncio.to_thread(CliRunner().invoke, windfall, ["dlq", *words, "--server", hub])
        for words in (["list", "-o", "json"], ["show", "2", "-o", "yaml"])
    ]
    assert (listed.exit_code, listed.stdout) == (0, out)
    one = yaml.safe_load(dead.stdout)
    assert (one["kind"], one["consumer"], one["body"]) == ("DeadLetter", "profiler", "nonsense")
    assert "no JSON" in in_words(await described(hub, "dlq", "2", 10))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("get sites site-", ["site-a", "site-b", "site-c"]),
        ("describe round demo/", [f"demo/{number}" for number in range(5)]),
        ("drain site-b", ["site-b"]),
        ("pause d", ["demo"]),
        ("explain de", ["demo"]),
        ("events tail --topic round.c", ["round.completed"]),
        ("get pods p", []),
    ],
)
async def test_a_shell_completes_names(
    hub: str, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]
) -> None:
    monkeypatch.setenv("WINDFALL_NATS_URL", hub)
    *before, last = typed.split()
    asked = ShellComplete(windfall, {}, "windfall", "_WINDFALL_COMPLETE")
    found = await asyncio.to_thread(asked.get_completions, before, last)
    assert [one.value for one in found] == offered


async def test_a_server_of_which_nothing_is_known(nats_server: NatsServer) -> None:
    await declared([replace(nats_server.plan, domain=HUB)])
    assert await ran("get", "rounds", url=nats_server.url) == (
        0,
        "No round has started yet: the first one opens when enough sites have joined.\n",
        "",
    )


async def test_a_hub_is_no_site(tmp_path: Path) -> None:
    server = NatsServer(ServerPlan(HUB, free_port(), tmp_path / "store"), tmp_path)
    await server.start()
    try:
        await declared([server.plan])
        assert await rows(server.url, SITES) == {}
    finally:
        await server.stop()


async def test_the_commands(hub: str) -> None:
    code, out, err = await ran("get", "sites", "site-b", "-o", "json", url=hub)
    assert (code, err) == (0, "")
    assert json.loads(out)["window"] == "off"
    code, out, _ = await ran("get", "rounds", url=hub)
    head, *lines = out.splitlines()
    assert head.split() == ["ROUND", "STATE", "STARTED", "LASTED", "SITES", "TOKENS", "LOSS", "HELD", "OUT"]
    assert len(lines) == 5
    code, out, err = await ran("get", "site", "site-aa", url=hub)
    assert (code, out, err) == (2, "", "windfall: unknown site 'site-aa'. Did you mean site-a?\n")
    code, out, _ = await ran("wait", "federation", "demo", "--for", "state=finished", url=hub)
    assert (code, out) == (0, "demo state=finished\n")


async def test_one_is_described_with_what_was_said_of_it_last(hub: str, recorded: Sequence[Said]) -> None:
    told = await described(hub, "round", "demo/2", 10)
    machine = json.loads(for_machines(told, "json"))
    assert (machine["kind"], machine["name"], len(machine["last_events"])) == ("Round", "demo/2", 3)
    assert machine["last_events"][0]["type"].endswith("round.started")
    text = in_words(told)
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("held out nats:")] == ["3.5"]
    assert [line.split()[1] for line in text.partition("Last events:\n")[2].splitlines()] == [
        "round.started",
        "round.completed",
        "round.evaluated",
    ]
    window = next(iter(folded(resource("windows"), recorded)))
    assert [line.split()[1] for line in in_words(await described(hub, "window", window, 2)).splitlines()[-2:]] == [
        "window.closing",
        "window.closed",
    ]
    assert "window.opened" in in_words(await described(hub, "site", "site-a", 30))


async def test_a_federation_is_explained(hub: str) -> None:
    told = await asyncio.to_thread(CliRunner().invoke, windfall, ["explain", "demo", "--server", hub])
    assert told.exit_code == 0 and told.stdout.startswith("demo is finished since ")
    with pytest.raises(Mistake, match=r"unknown site or federation 'dmeo'\. Did you mean demo\?"):
        await explain_any(hub, "dmeo")


async def test_who_waits_in_vain_is_told_how_it_stands(hub: str) -> None:
    with pytest.raises(Mistake, match=r"site-a did not come to window=on within 5 s: window is off") as late:
        await until(hub, SITES, "site-a", "window=on", 5)
    assert late.value.exit_code == ExitCode.FAILED
    with pytest.raises(Mistake, match=r"nothing was heard of site-aa\. Did you mean site-a\?"):
        await until(hub, SITES, "site-aa", "window=on", 4)
    window = next(iter(await rows(hub, resource("windows"))))
    assert await until(hub, resource("windows"), window[:8], "state=closed", 30) == f"{window} state=closed"
    with pytest.raises(Mistake, match=r"unknown site 'site-aa'\. Did you mean site-a\?"):
        await follow(hub, SITES, ("site-aa",), machine=True, show=print)
    with pytest.raises(Mistake, match=r"sites have no field 'windw'. Write field=value. Did you mean window\?"):
        await until(hub, SITES, "site-a", "windw=on", 5)


async def test_who_watches_sees_what_stands_and_what_changes(hub: str, recorded: Sequence[Said]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "watch", "sites", "site-a", "-o", "jsonl"),
        env={**os.environ, "WINDFALL_NATS_URL": hub},
        stdout=asyncio.subprocess.PIPE,
    )
    words = process.stdout
    assert words is not None

    async def seen() -> Any:
        async with asyncio.timeout(60):
            return json.loads(await words.readline())

    try:
        assert (await seen())["window"] == "off"
        opened = next(said for said in recorded if isinstance(said.message, WindowOpened))
        again = opened.message.model_copy(update={"id": UUID(int=1), "at": recorded[-1].message.at})
        async with connection(hub) as client:
            await store(client, replace(opened, message=again).letter())
        assert (await seen())["window"] == "on"
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await process.wait() == ExitCode.INTERRUPTED
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_who_is_interrupted_ends_even_where_the_word_is_forgotten() -> None:
    begun = asyncio.Event()

    async def deaf() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.ensure_future(interruptible(deaf()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_every_command_stands_where_it_is_looked_for() -> None:
    context = click.Context(windfall)
    for name, module in WHERE.items():
        found = windfall.get_command(context, name)
        assert found is not None and found.callback is not None
        assert found.callback.__module__ == f"windfall.cli.commands.{module}"
    assert windfall.list_commands(context) == sorted({*WHERE, "version"})
    folder = Path(commands.__path__[0])
    top = {
        one.name
        for path in folder.glob("*.py")
        for one in vars(import_module(f"windfall.cli.commands.{path.stem}")).values()
        if isinstance(one, click.Command) and one.callback is not None and one.name in WHERE
    }
    assert top == set(WHERE)


def test_nothing_heavy_is_loaded_to_list_what_is_there() -> None:
    """A command that people type all day must not wait for torch, faststream or gRPC."""
    program = (
        "import sys\n"
        "import windfall.cli.__main__, windfall.cli.resources.reading, windfall.cli.resources.showing\n"
        "print([name for name in ('torch', 'numpy', 'faststream', 'grpc', 'aiohttp', 'rich', 'yaml', 'matplotlib',"
        " 'kubernetes', 'fastapi', 'cryptography', 'tomllib', 'difflib')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
