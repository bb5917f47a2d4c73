"""Where people ask the register something: a socket in the hub's folder, for whoever may write there.

One line of JSON asks, one answers. What a person may ask stands in ``_ANSWERS``.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from windfall.cli.identity.folders import HubFolder
from windfall.cli.identity.register import Cause, Guest, Lent, Refusal
from windfall.cli.identity.registrar import Registrar
from windfall.contracts.tenancy import DEFAULT
from windfall.servicekit.errors import ExitCode, Mistake

_LONGEST: Final = 1 << 20


async def _token(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    whose = asked.get("tenant", DEFAULT), asked.get("owner")
    return await registrar.token(asked["site"], timedelta(seconds=asked["lasts_s"]), *whose)


async def _approve(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    await registrar.approve(asked["site"])


async def _revoke(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    await registrar.revoke(asked["site"], asked["reason"])


async def _let_in(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    try:
        guest = Guest.model_validate({**asked["guest"], "since": datetime.now(UTC)})
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{asked['tenant']} cannot be let in ({first['loc'][0]}: {first['msg']})"
        raise Refusal(Cause.REQUEST, why, "Mend that, and add it again") from error
    await registrar.let_in(asked["tenant"], guest)


async def _let_go(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    await registrar.let_go(asked["tenant"])


async def _lend(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    try:
        lent = Lent.model_validate(asked["lent"])
    except ValidationError as error:
        raise Refusal(Cause.REQUEST, "that names no tenant", "Use the names of `windfall tenant list`") from error
    await registrar.lend(lent, ends=asked["ends"])


async def _tenants(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    register = registrar.register
    return {
        "tenants": {name: one.model_dump(mode="json") for name, one in sorted(register.tenants.items())},
        "sites": {site: one.tenant for site, one in sorted(register.members.items())},
        "loans": [one.model_dump(mode="json") for one in register.loans],
    }


async def _roster(registrar: Registrar, asked: Mapping[str, Any]) -> Any:
    register = registrar.register
    return {
        "members": [
            {
                "site": site,
                "tenant": one.tenant,
                "since": one.since.isoformat(),
                "until": min(c.until for c in one.certificates).isoformat(),
            }
            for site, one in sorted(register.members.items())
        ],
        "waiting": [
            {"site": site, "asked_at": one.asked_at.isoformat(), "keys": one.wish.keys}
            for site, one in sorted(register.waiting.items())
        ],
        "history": [entry.model_dump(mode="json") for entry in register.history],
    }


_ANSWERS: Final[Mapping[str, Callable[[Registrar, Mapping[str, Any]], Awaitable[Any]]]] = {
    "token": _token,
    "approve": _approve,
    "revoke": _revoke,
    "roster": _roster,
    "let in": _let_in,
    "let go": _let_go,
    "lend": _lend,
    "tenants": _tenants,
}


@asynccontextmanager
async def desk(path: Path, registrar: Registrar) -> AsyncIterator[None]:
    """Answer at a socket until the block ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            try:
                said = {"said": await _ANSWERS[asked["ask"]](registrar, asked)}
            except Refusal as refusal:
                said = {"cause": refusal.reason, "cure": refusal.cure}
            except Mistake as mistake:
                said = {"cause": mistake.cause, "cure": mistake.cure}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(answer, path, limit=_LONGEST)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
        path.unlink(missing_ok=True)


async def asked(folder: Path, ask: str, **about: Any) -> Any:
    """What the hub in a folder answers.

    Raises:
        Mistake: it does not run, or says no.
    """
    hub = HubFolder(folder)
    hub.read()
    try:
        reader, writer = await asyncio.open_unix_connection(hub.desk, limit=_LONGEST)
    except OSError as error:
        raise Mistake(
            f"the hub in {folder} does not run ({error.strerror})",
            "Start it with `windfall hub up`, as the user whose folder it is",
            ExitCode.SERVER,
        ) from error
    try:
        writer.write(json.dumps({"ask": ask, **about}).encode() + b"\n")
        await writer.drain()
        answer = json.loads(await reader.readline() or b'{"cause": "the hub hung up", "cure": "See its logs"}')
    finally:
        writer.close()
    if "cause" in answer:
        raise Mistake(answer["cause"], answer["cure"], ExitCode.FAILED)
    return answer["said"]
