"""What was heard of an addressee so far. Pure: ``(state, batch) -> (state, new lines)``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from windfall.cli.logs.addressing import Addressee
from windfall.cli.nearest import near
from windfall.contracts.logs import LogLine, LogTold
from windfall.servicekit.errors import ExitCode, Mistake

_NOBODY: Mapping[str, int] = MappingProxyType({})
_AT_WORK = "It runs while its site has power: `windfall get windows`"
_WHERE = "Start it, or read its log where it ran (`kubectl logs`, `docker logs`, `journalctl`)"


@dataclass(frozen=True)
class Heard:
    """Of one addressee."""

    seen: Mapping[str, int] = field(default_factory=lambda: _NOBODY)
    """By process the last line that was told."""
    waited: frozenset[str] = frozenset()
    """Processes that have begun to tell what they keep, and are not through."""
    nobody: bool = False
    """Whether the server said that nobody listens there."""
    refusals: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """By the site or federation of who does not tell why not."""

    @property
    def settled(self) -> bool:
        """Whether nobody is waited for, as far as is known."""
        return self.nobody or (bool(self.seen or self.refusals) and not self.waited)


def told(heard: Heard, batch: LogTold) -> tuple[Heard, Sequence[LogLine]]:
    """With a batch, and the lines of it that are new."""
    if batch.refused:
        return replace(heard, nobody=False, refusals={**heard.refusals, batch.whom: batch.refused}), ()
    before = heard.seen.get(batch.process, 0)
    seen = {**heard.seen, batch.process: max(before, batch.until)}
    waited = heard.waited - {batch.process} if batch.whole else heard.waited | {batch.process}
    new = [line for line in batch.lines if line.number > before]
    return replace(heard, seen=seen, waited=waited, nobody=False), new


def unanswered(heard: Heard) -> Heard:
    """When the server says that nobody listens."""
    return replace(heard, nobody=True, waited=frozenset())


def complaint(heard: Heard, of: Addressee, place: str, seconds: float) -> Mistake | None:
    """Why an addressee told nothing, or not all; none when it did.

    Args:
        place: the site or hub whose server was asked.
        seconds: how long it was silent.
    """
    if heard.nobody:
        cure = _AT_WORK if of.service == "site-trainer" else _WHERE
        return Mistake(
            f"no {of.service} answers at {place}: none runs, or it or its rights there are older than `logs`",
            cure,
            ExitCode.SERVER,
        )
    if not heard.seen and heard.refusals:
        if of.whom and of.whom not in heard.refusals:
            return Mistake(f"no {of.service} of {of.whom!r} answers", near(of.whom, list(heard.refusals)))
        why = next(iter(heard.refusals.values()))
        return Mistake(f"{of} does not tell its log: {why}", "Try again when one of them has ended", ExitCode.SERVER)
    if not heard.seen or heard.waited:
        part = "the rest of its log" if heard.seen else "its log"
        return Mistake(
            f"{of} did not tell {part} within {seconds:g} s",
            "It hangs, or its key may not (docs/permissions.md): read it where it runs, or give it --timeout",
            ExitCode.SERVER,
        )
    return None


def dropping(batch: LogTold) -> str:
    """What a person is told of lines that are gone; empty when none is."""
    if not batch.dropped:
        return ""
    lines = "1 line" if batch.dropped == 1 else f"{batch.dropped} lines"
    return f"{lines} of {batch.service}@{batch.whom} went before they could be told. Read them where it runs"
