"""What is known of a site's links, what measuring them has cost, and what is said of a new measurement. Pure."""

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import LinkDegraded, LinkMeasured, LinkPart, LinkRecovered
from windfall.contracts.message import Instant, Name, derived_id
from windfall.profiler.band import SETTLED, Band, Course, Turn, band, moved
from windfall.profiler.profile import Link

_WORSE: Final[dict[LinkPart, Literal["above", "below"]]] = {
    "rtt_ms": "above",
    "up_mb_per_s": "below",
    "down_mb_per_s": "below",
}
_LEAST: Final[dict[LinkPart, float]] = {"rtt_ms": 5.0, "up_mb_per_s": 0.0, "down_mb_per_s": 0.0}
"""What a busy processor at either end adds to a round trip is no news of the link."""
_WORDS: Final[dict[LinkPart, tuple[str, str]]] = {
    "rtt_ms": ("a round trip", "ms"),
    "up_mb_per_s": ("the way up", "MB/s"),
    "down_mb_per_s": ("the way down", "MB/s"),
}


class Spent(BaseModel):
    """Bytes that a measurement has moved."""

    model_config = ConfigDict(frozen=True)

    at: Instant
    bytes: int


class Watch(BaseModel):
    """All links of a site."""

    model_config = ConfigDict(frozen=True)

    window_id: UUID | None = None
    """The window that is open; none outside one."""
    as_of: Instant | None = None
    """When what is known of the window was said."""
    courses: dict[str, dict[LinkPart, Course]] = Field(default_factory=dict)
    """By target."""
    spent: tuple[Spent, ...] = ()
    """In the last hour, as far as it was counted."""


def opened(watch: Watch, window_id: UUID, at: datetime) -> Watch:
    """Power is surplus: links are looked at. What is said again of an earlier window opens none."""
    if watch.as_of is not None and at < watch.as_of:
        return watch
    return watch.model_copy(update={"window_id": window_id, "as_of": at})


def closed(watch: Watch, window_id: UUID, at: datetime) -> Watch:
    """It is not any more. What is said late of an earlier window closes no other."""
    as_of = at if watch.as_of is None else max(at, watch.as_of)
    now = None if watch.window_id == window_id else watch.window_id
    return watch.model_copy(update={"window_id": now, "as_of": as_of})


def room(watch: Watch, budget: int, now: datetime, hour: timedelta) -> int:
    """Bytes that may still be moved.

    Args:
        budget: what an hour may move.
        hour: how long one is on the clock of ``now``.
    """
    return max(0, budget - sum(one.bytes for one in _within(watch, now, hour)))


def measured(
    watch: Watch, site: Name, target: Name, link: Link, now: datetime, hour: timedelta
) -> tuple[Watch, LinkMeasured, tuple[LinkDegraded | LinkRecovered, ...]]:
    """Take a measurement in. The first event says all of it; the others, what it turned."""
    cause = f"{site}/{target}/{now.isoformat()}"
    said = LinkMeasured(
        id=derived_id(cause, LinkMeasured.topic, site),
        at=now,
        site=site,
        target=target,
        rtt_ms=link.link_rtt_ms,
        jitter_ms=link.link_jitter_ms,
        up_mb_per_s=link.link_up_mb_per_s,
        down_mb_per_s=link.link_down_mb_per_s,
        moved_bytes=link.moved_bytes,
        missing=link.missing,
    )
    courses, turns = dict(watch.courses.get(target, {})), []
    for part, worse in _WORSE.items():
        value: float | None = getattr(said, part)
        if value is None:
            continue
        before = courses.get(part, Course())
        courses[part], turn = moved(before, value, worse, _LEAST[part])
        # What it is held against: of a link that has settled, the band that it has now.
        usual = band((courses[part] if turn == "settled" else before).recent, _LEAST[part])
        if turn is not None and usual is not None and (turn != "settled" or before.degraded):
            turns.append(_turned(said, part, value, usual, turn))
    spent = (*_within(watch, now, hour), Spent(at=now, bytes=link.moved_bytes)) if link.moved_bytes else watch.spent
    update = {"courses": {**watch.courses, target: courses}, "spent": spent}
    return watch.model_copy(update=update), said, tuple(turns)


def _within(watch: Watch, now: datetime, hour: timedelta) -> tuple[Spent, ...]:
    """A clock that was set back lets nothing be forgotten."""
    return tuple(one for one in watch.spent if one.at > now - hour)


def _turned(said: LinkMeasured, part: LinkPart, value: float, usual: Band, turn: Turn) -> LinkDegraded | LinkRecovered:
    kind = LinkDegraded if turn == "degraded" else LinkRecovered
    what, unit = _WORDS[part]
    lies = {
        "degraded": f"out of its band, {usual.low:.3g} to {usual.high:.3g}",
        "recovered": f"within its band, {usual.low:.3g} to {usual.high:.3g}",
        "settled": f"what it has been {SETTLED} times in a row: its band is {usual.low:.3g} to {usual.high:.3g} now",
    }[turn]
    return kind(
        id=derived_id(f"{said.id}/{part}", kind.topic, said.site),
        at=said.at,
        site=said.site,
        target=said.target,
        part=part,
        value=value,
        low=usual.low,
        high=usual.high,
        because=f"To {said.target} {what} is at {value:.3g} {unit}, {lies}.",
    )
