"""A small fleet as real processes: a hub and two sites, all five services, NATS servers, and a link to each site that
can be cut, slowed and spoilt.

It is the plan of ``windfall demo`` with another pace: the clock runs as on the wall, the power is clean for half a
day, so that windows stay open while something breaks, and rounds last a second.
"""

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from tests.chaos_real.hearing import Hearing
from tests.chaos_real.link import Link
from tests.chaos_real.needs import SITES, Needs
from tests.chaos_real.processes import Part, belonging_to, end_all
from windfall.cli.fleet import Plan, Program, server_program
from windfall.cli.server import connection, declared, kept
from windfall.contracts.events import NodeProfiled, RoundCompleted
from windfall.contracts.message import Message
from windfall.contracts.subjects import DEAD_STREAM, EVENTS_STREAM, HUB
from windfall.servicekit.natsserver import ServerPlan, find_binary, render

M = TypeVar("M", bound=Message)

SERVICES: Final = ("energy-watcher", "provisioner", "profiler")
"""Of each site, beside its trainer, which its provisioner starts."""
COORDINATOR: Final = f"federation-coordinator@{HUB}"
_SETTLES_WITHIN_S: Final = 90.0
_LOOK_S: Final = 0.25
_NOWHERE: Final = "127.0.0.1:9"
"""Nobody listens there."""


class Fleet(Hearing):
    """See the module. ``standing`` makes one."""

    def __init__(self, chosen: Plan, links: Mapping[str, Link], needs: Needs) -> None:
        super().__init__(chosen)
        self.links = links
        self.needs = needs
        servers = [_server(each, chosen, links) for each in chosen.servers]
        self.parts = {one.name: Part(one) for one in (*servers, *(self._linked(each) for each in chosen.programs))}

    @property
    def folder(self) -> Path:
        return self.plan.wish.folder

    @property
    def calm_path(self) -> str:
        """Where its programs find the task of a calm fleet."""
        return str(self.folder / "calm")

    def path(self, product: str) -> str:
        """What PYTHONPATH names so that a program finds this installation of the product, and its task."""
        return os.pathsep.join(filter(None, (product, self.calm_path if self.needs.calm else "")))

    @property
    def coordinator(self) -> Part:
        return self.parts[COORDINATOR]

    @property
    def models(self) -> Path:
        """Where the coordinator keeps bases and contributions."""
        return self.plan.state_of("federation-coordinator", HUB) / "models"

    def server(self, domain: str) -> Part:
        return self.parts[f"nats@{domain}"]

    def store_of(self, domain: str) -> Path:
        return next(each.store for each in self.plan.servers if each.domain == domain)

    def url_of(self, domain: str) -> str:
        return next(each.url for each in self.plan.servers if each.domain == domain)

    def services_of(self, place: str) -> list[Part]:
        """Its services that have a health endpoint."""
        return [part for name, part in self.parts.items() if name.endswith(f"@{place}") and part.program.port is None]

    # --- begin and end ------------------------------------------------------------------------------------------------

    async def rise(self) -> None:
        """Start everything, and wait until both sites have brought something."""
        servers = [part for part in self.parts.values() if part.program.port is not None]
        for part in servers:
            part.start()
        for part in servers:
            await part.stands()
        await declared(self.plan.servers)
        for part in self.parts.values():
            if part not in servers:
                part.start()
        for part in self.parts.values():
            await part.stands()

    async def end(self) -> None:
        for part in self.parts.values():
            await part.hold()
        end_all(self.folder)

    # --- what is said -------------------------------------------------------------------------------------------------

    async def stream(self, domain: str, name: str = EVENTS_STREAM) -> set[UUID]:
        """Ids of what a domain's stream holds now."""
        async with connection(self.url_of(domain)) as client:
            return {UUID(stored.letter.id) async for stored in kept(client, name, (">",)) if stored.letter.id}

    async def dead(self) -> list[str]:
        """What could not be handled, anywhere: subjects."""
        found = []
        for domain in (HUB, *SITES):
            async with connection(self.url_of(domain)) as client:
                found += [f"{domain}: {each.letter.subject}" async for each in kept(client, DEAD_STREAM, (">",))]
        return found

    # --- what is on disk ----------------------------------------------------------------------------------------------

    def journals(self) -> Iterator[tuple[str, Path]]:
        """Whose, and where."""
        state = self.folder / "state"
        for path in sorted(state.glob("*/*/*.sqlite")) + sorted(state.glob("*/provisioner/trainer/*.sqlite")):
            yield f"{path.stem}@{path.relative_to(state).parts[0]}", path

    def words(self, path: Path) -> list[tuple[UUID, str, bool]]:
        """Id, subject, and whether it was said, of everything in a journal's outbox."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as journal:
            rows = journal.execute("SELECT id, subject, said FROM outbox").fetchall()
        return [(UUID(each[0]), each[1], bool(each[2])) for each in rows]

    def base(self) -> Path:
        """The base that the coordinator's journal names. A newer one may lie beside it: who wrote it died too soon."""
        path = self.plan.state_of("federation-coordinator", HUB) / "federation-coordinator.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as journal:
            ((state,),) = journal.execute("SELECT value FROM state WHERE key = 'federation'").fetchall()
        return self.models / f"base-{json.loads(state)['round']:06d}.safetensors"

    def bases(self) -> Iterator[tuple[int, str]]:
        """Round and digest of every base that the coordinator's disk holds."""
        for path in sorted(self.models.glob("base-*.safetensors")):
            # A new one comes and an old one goes every second.
            with suppress(FileNotFoundError):
                data = path.read_bytes()
                begin = 8 + int.from_bytes(data[:8], "little")
                yield int(path.stem.partition("-")[2]), sha256(data[begin:]).hexdigest()

    def trainers(self, site: str) -> list[int]:
        """Pids of a site's trainers that live."""
        return [pid for pid, line in belonging_to(self.folder / "state" / site) if "windfall.site_trainer" in line]

    def trainer(self, site: str) -> int:
        """The one that its provisioner knows.

        Raises:
            LookupError: there is none now.
        """
        for record in (self.plan.state_of("provisioner", site) / "nodes").glob("*/record.json"):
            pid = json.loads(record.read_text())["pid"]
            if pid is not None and pid in self.trainers(site):
                return int(pid)
        raise LookupError(f"{site} has no trainer")

    # --- whether it is well -------------------------------------------------------------------------------------------

    async def train(self, since: datetime, within_s: float = 120.0) -> RoundCompleted:
        """Wait for the first round that all sites brought something to and that began after this instant."""
        return await self.until(
            RoundCompleted,
            since,
            lambda one: set(one.contributors) == set(SITES) and self._began_after(one, since),
            within_s,
        )

    async def profiled(self, site: str) -> None:
        """Wait until what came up first at a site has been measured."""
        await self.until(NodeProfiled, self.plan.clock.wall_start, lambda one: one.site == site)

    def _began_after(self, one: RoundCompleted, since: datetime) -> bool:
        return self.wall(one) - timedelta(seconds=one.duration_s or 0) / self.plan.clock.speed > since

    async def stand(self, parts: Sequence[Part] | None = None, within_s: float = 120.0) -> None:
        """Wait until all of these, or everything, can do its work."""
        for part in parts if parts is not None else self.parts.values():
            try:
                await part.stands(within_s)
            except TimeoutError:
                raise TimeoutError(f"{part.name} is not ready in {within_s:.0f} s") from None

    async def settled(self, place: str = "") -> list[str]:
        """Wait until all that journals, or those of a place, hold now has been said and is in the hub's stream; gives
        what is not, in time."""
        told = {
            (whose, path, word): subject
            for whose, path in self.journals()
            if not place or whose.endswith(f"@{place}")
            for word, subject, _ in self.words(path)
        }
        lacking: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLES_WITHIN_S):
                while True:
                    at_hub = await self.stream(HUB)
                    said = {word for _, path in self.journals() for word, _, done in self.words(path) if done}
                    lacking = [
                        f"{subject} of {whose} {'has not reached the hub' if word in said else 'is not said'}"
                        for (whose, _, word), subject in told.items()
                        if word not in said or (".command." not in subject and word not in at_hub)
                    ]
                    if not lacking:
                        break
                    await asyncio.sleep(_LOOK_S)
        return lacking

    def _linked(self, program: Program) -> Program:
        """A program of a site, behind the site's link; and what this fleet needs."""
        place = program.name.partition("@")[2]
        told = dict(program.environ)
        service = program.name.partition("@")[0]
        tls = {} if self.needs.tls is None else self.needs.tls(self.folder / "keys")
        if place in self.links:
            address = self.links[place].rpc.address
            if service == "provisioner":
                told |= {"WINDFALL_TRAINER_COORDINATOR": address, "WINDFALL_TRAINER_CHECKPOINT_EVERY": "1"}
                # Deaths here are minutes apart at most: nobody is to be taken for one that never works.
                told |= {"WINDFALL_STEADY": "2", "WINDFALL_ATTEMPTS": "20"}
                told |= {f"WINDFALL_TRAINER_{key}": value for key, value in tls.get(place, {}).items()}
            elif service == "profiler":
                told |= {"WINDFALL_COORDINATOR": address}
                told |= {f"WINDFALL_{key}": value for key, value in tls.get(place, {}).items()}
        elif service == "federation-coordinator":
            told |= {f"WINDFALL_{key}": value for key, value in tls.get(place, {}).items()}
        if path := self.path(self.needs.pythonpath):
            told["PYTHONPATH"] = path
        if self.needs.stays and service == "provisioner":
            told["WINDFALL_ON_STOP"] = "leave"
        return replace(program, environ=told)


def _server(server: ServerPlan, chosen: Plan, links: Mapping[str, Link]) -> Program:
    config = server.store.parent / "nats.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    if server.domain in links:
        server = replace(server, hub_leaf_port=int(links[server.domain].nats.address.rpartition(":")[2]))
    # A leaf that comes again tries what the hub advertises as well: that must not lead round the link.
    text = render(server).replace("leafnodes { listen:", f'leafnodes {{ advertise: "{_NOWHERE}", listen:')
    config.write_text(text, encoding="utf-8")
    return server_program(server, config, find_binary(), chosen.wish.folder)


def wiped(store: Path) -> None:
    """A server's disk is replaced by an empty one."""
    shutil.rmtree(store)


def resident_bytes(pid: int) -> int:
    """What a process holds in memory (proc(5)); 0 when it has gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
