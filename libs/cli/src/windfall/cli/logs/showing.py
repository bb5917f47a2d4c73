"""Lines of logs for people and for machines. Pure."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Final, Literal, NamedTuple

from windfall.cli.resources.resource import VERSION
from windfall.contracts.logs import LogLine, LogTold

Form = Literal["plain", "json", "jsonl"]
KIND: Final = "LogLine"


class Told(NamedTuple):
    """A line, and whose it is."""

    line: LogLine
    service: str
    whom: str
    process: str


def of(batch: LogTold, lines: Sequence[LogLine]) -> Sequence[Told]:
    """Some lines of a batch."""
    return [Told(line, batch.service, batch.whom, batch.process) for line in lines]


def in_order(told: Sequence[Told]) -> Sequence[Told]:
    """By time; a process's own order where that is one."""
    return sorted(told, key=lambda one: (one.line.at, one.process, one.line.number))


def shown(told: Sequence[Told], form: Form) -> str:
    """All of them."""
    if form == "json":
        items = [dict(_record(one)) for one in told]
        return json.dumps({"apiVersion": VERSION, "kind": f"{KIND}List", "items": items}, indent=2, ensure_ascii=False)
    return "\n".join(line(one, form) for one in told)


def line(one: Told, form: Form) -> str:
    """One of them: of JSON, or as it is read, with its stack trace below it."""
    if form != "plain":
        return json.dumps({"apiVersion": VERSION, "kind": KIND, **_record(one)}, ensure_ascii=False)
    said = one.line
    at = f"{said.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{said.at.microsecond // 1000:03d}Z"
    trace = f" trace={said.trace_id}" if said.trace_id else ""
    text = f"{at} {said.severity:7} {one.service}@{one.whom} {said.message}{trace}"
    return _printable(f"{text}\n{said.stack}" if said.stack else text)


def _record(one: Told) -> Mapping[str, object]:
    said = one.line
    made = {
        "timestamp": said.at.astimezone(UTC).isoformat(),
        "severity": said.severity,
        "service": one.service,
        "whom": one.whom,
        "process": one.process,
        "logger": said.logger,
        "message": said.message,
    }
    more = {"trace_id": said.trace_id, "span_id": said.span_id, "stack": said.stack}
    return made | {name: value for name, value in more.items() if value}


def _printable(text: str) -> str:
    """A terminal obeys nothing that stands in a log."""
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)
