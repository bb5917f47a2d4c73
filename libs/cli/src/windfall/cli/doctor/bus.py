"""A server: its version, its clock, its streams, who listens, what was buried, and which sites it hears."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

from windfall.cli.counting import counted
from windfall.cli.doctor.finding import Finding, failure, good, warning
from windfall.contracts.subjects import COMMANDS_STREAM, DEAD_STREAM, EVENTS_STREAM, HUB
from windfall.servicekit.errors import ExitCode, Mistake

_TIMEOUT_S: Final = 5.0
_SKEW_S: Final = 2.0
_FULL: Final = 0.7
_BEHIND: Final = 1000
_SILENT: Final = timedelta(minutes=1)
_NANOSECONDS: Final = 1_000_000_000


async def look(client: Client, now: datetime) -> list[Finding]:
    """Everything of the server that one is connected to.

    Raises:
        Mistake: it does not answer.
    """
    version = client.connected_server_version
    found = [good("server", f"nats-server {version.major}.{version.minor}.{version.patch}")]
    account = await _asked(client, "$JS.API.INFO")
    if "error" in account:
        return [*found, failure("server", "it has no JetStream", "Start it with JetStream and a store on a disk")]
    domain = str(account.get("domain") or "")
    found.append(good("server", f"domain {domain or '(none)'}"))
    for stream in (EVENTS_STREAM, COMMANDS_STREAM, DEAD_STREAM):
        info = await _asked(client, f"$JS.API.STREAM.INFO.{stream}")
        found += of_stream(stream, info, domain, now)
        if "error" not in info and stream != DEAD_STREAM:
            listed = await _asked(client, f"$JS.API.CONSUMER.LIST.{stream}")
            found += of_consumers(stream, listed)
    return found


def of_stream(stream: str, info: Mapping[str, Any], domain: str, now: datetime) -> Iterator[Finding]:
    """What a stream's state says."""
    if "error" in info:
        yield failure("bus", f"there is no stream {stream}", "Start the services of this domain: they make it")
        return
    state, config = info["state"], info["config"]
    room = config.get("max_bytes", -1)
    share = state["bytes"] / room if room > 0 else 0.0
    text = f"{stream} holds {counted(state['messages'], 'messages')}, {share:.0%} of its room"
    if share >= _FULL:
        yield warning("bus", text, "Raise its max_bytes, or find out who fills it with `windfall events tail`")
    else:
        yield good("bus", text)
    if stream == DEAD_STREAM and state["messages"]:
        yield warning("dead letters", f"{state['messages']} could not be handled", "Read them: `windfall dlq list`")
    if stream == EVENTS_STREAM and info.get("ts"):
        yield of_clock(datetime.fromisoformat(_micro(info["ts"])), now)
    for source in info.get("sources") or []:
        yield of_source(source, domain)


def of_clock(theirs: datetime, ours: datetime) -> Finding:
    """How far two clocks are apart; half a round trip is in it."""
    apart = (ours - theirs).total_seconds()
    if abs(apart) > _SKEW_S:
        ahead = "ahead of" if apart > 0 else "behind"
        return warning(
            "clock", f"this machine is {abs(apart):.1f} s {ahead} the server", "Set both by NTP: windows are instants"
        )
    return good("clock", f"{abs(apart) * 1000:.0f} ms apart from the server's")


def of_source(source: Mapping[str, Any], domain: str) -> Finding:
    """Whether what another domain says arrives."""
    external = (source.get("external") or {}).get("api", "")
    site = external.removeprefix("$JS.").removesuffix(".API") or source.get("name", "?")
    whom = site if domain == HUB else f"{source.get('name')} of {site}"
    active, lag = source.get("active", -1), source.get("lag", 0)
    silent = timedelta(seconds=active / _NANOSECONDS)
    if active < 0:
        return warning(
            whom, "has never been heard", "Start its NATS leaf, and look at what its log says of the hub's address"
        )
    if silent > _SILENT:
        return warning(whom, f"not heard for {silent.total_seconds():.0f} s", "Look whether its link is up")
    if lag > _BEHIND:
        return warning(whom, f"{lag:,} events behind", "Wait: it catches up after a cut. If it does not, restart it")
    return good(whom, f"heard {silent.total_seconds():.0f} s ago" + (f", {lag} behind" if lag else ""))


def of_consumers(stream: str, listed: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether services keep up."""
    for one in listed.get("consumers") or []:
        if not one["config"].get("durable_name"):
            continue
        name, waiting, stuck = one["name"], one["num_pending"], one["num_redelivered"]
        text = f"{name} has {counted(waiting, 'messages')} of {stream} before it"
        if waiting > _BEHIND:
            yield warning("bus", text, f"Look whether {name} runs, and at its log")
        elif stuck:
            yield warning(
                "bus", f"{name} takes {counted(stuck, 'messages')} of {stream} again and again", "Look at its log"
            )
        else:
            yield good("bus", text if waiting else f"{name} has heard all of {stream}")


async def _asked(client: Client, subject: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads((await client.request(subject, timeout=_TIMEOUT_S)).data)
    except nats.errors.NoRespondersError:
        return {"error": "nobody answers"}
    except (TimeoutError, nats.errors.Error, ValueError) as error:
        raise Mistake(
            f"the server does not answer {subject} ({type(error).__name__})",
            "Try again, or look at its log",
            ExitCode.SERVER,
        ) from error
    return answer


def _micro(instant: str) -> str:
    """Go writes nanoseconds, of which Python reads microseconds."""
    head, dot, rest = instant.partition(".")
    digits = rest.rstrip("Z")
    return f"{head}{dot}{digits[:6]}+00:00" if dot else instant
