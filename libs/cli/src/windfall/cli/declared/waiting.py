"""Until what was declared stands, or what was deleted has gone."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pydantic import ValidationError

from windfall.cli.declared.kinds import away
from windfall.contracts.resources.conditions import Condition
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Cluster, Connection, Kind, Object

_SILENT: Final = "no operator has said anything of it"


@dataclass(frozen=True)
class Named:
    """An object of the server's."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind.lower()}/{self.name}"


@dataclass
class _Waited:
    """For what, and why it has not come."""

    of: Named | None = None
    why: str = _SILENT


async def until_ready(
    named: Sequence[Named], connection: Connection, within: timedelta, say: Callable[[str], None]
) -> None:
    """Wait until each of them is ready as it stands now.

    Args:
        within: for all of them together.
        say: takes each reason why one is not, when it is a new one.

    Raises:
        Mistake: one is refused or deleted, or not ready in time; or the server cannot be reached.
    """
    waited = _Waited()
    try:
        async with asyncio.timeout(within.total_seconds()), Cluster.connect(connection) as cluster:
            for one in named:
                waited.of, waited.why = one, _SILENT
                await _ready(cluster, one, waited, say)
    except TimeoutError as error:
        raise Mistake(
            f"{waited.of} is not ready after {within.total_seconds():g} s: {waited.why}",
            "Wait longer with --wait; `kubectl describe` shows its conditions, and the operator's log why",
            ExitCode.FAILED,
        ) from error
    except Transient as error:
        raise away(error) from error


async def until_gone(one: Named, connection: Connection, within: timedelta, say: Callable[[str], None]) -> None:
    """Wait until its finalizers are done and it is gone.

    Raises:
        Mistake: it is not gone in time, or the server cannot be reached.
    """
    waited = _Waited(one, "nothing was said of why")
    try:
        async with (
            asyncio.timeout(within.total_seconds()),
            Cluster.connect(connection) as cluster,
            aclosing(cluster.follow(one.kind, one.namespace, fields=f"metadata.name={one.name}")) as changes,
        ):
            there = False
            async for change in changes:
                there = change.verb == "present" or (there and change.verb == "synced")
                if not there:
                    return
                _heard(_condition(change.object, current=False), waited, say)
    except TimeoutError as error:
        raise Mistake(
            f"{one} is not gone after {within.total_seconds():g} s: {waited.why}",
            "Wait longer with --wait; it goes when it is drained, and its operator must run for that",
            ExitCode.FAILED,
        ) from error
    except Transient as error:
        raise away(error) from error


async def _ready(cluster: Cluster, one: Named, waited: _Waited, say: Callable[[str], None]) -> None:
    async with aclosing(cluster.follow(one.kind, one.namespace, fields=f"metadata.name={one.name}")) as changes:
        async for change in changes:
            if change.verb == "absent":
                raise Mistake(f"{one} was deleted meanwhile", "Apply it again", ExitCode.FAILED)
            refused = _condition(change.object, "Accepted")
            if refused is not None and refused.status == "False":
                raise Mistake(f"{one} is refused: {refused.message}", "Mend it, and apply it again", ExitCode.FAILED)
            found = _condition(change.object)
            if found is not None and found.status == "True":
                say(f"{one} is ready")
                return
            _heard(found, waited, say)


def _heard(found: Condition | None, waited: _Waited, say: Callable[[str], None]) -> None:
    if found is None or found.status == "True":
        return
    why = found.message or found.reason
    if why != waited.why:
        waited.why = why
        say(f"{waited.of} is not ready: {why}")


def _condition(obj: Object, kind: str = "Ready", *, current: bool = True) -> Condition | None:
    """What is said of an object, where that is said of it as it stands now."""
    generation = (obj.get("metadata") or {}).get("generation", 0)
    for told in (obj.get("status") or {}).get("conditions") or ():
        if told.get("type") != kind:
            continue
        try:
            found = Condition.model_validate(told)
        except ValidationError:
            # Another operator's, which says it otherwise.
            return None
        return found if not current or found.observed_generation >= generation else None
    return None
