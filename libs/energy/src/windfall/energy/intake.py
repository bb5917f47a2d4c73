"""What is remembered of one signal: what was last believed, and why something was not.

A value is taken when it can be true, is of the signal's kind, is newer than the last one and not from the future.
Anything else is refused: it changes nothing, is no sign of life, and is said once for each reason until a value is
believed again. Ids are derived from the last believed value, so that a retry says the same sentence.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import Point, SignalKind, SignalRefused
from windfall.contracts.message import Name, derived_id
from windfall.energy.judgement import plain
from windfall.energy.quotes import Quote, Refusal, Unbelievable, believed

EARLY: Final = timedelta(minutes=1)
"""How far ahead of our clock a value may lie: two honest clocks differ by as much."""
MOST_POINTS: Final = 2016
"""Of a history: a week in steps of 5 minutes. A longer look-back, or a faster signal, is kept more coarsely."""

Taken = tuple["Intake", tuple[SignalRefused, ...]]


class Intake(BaseModel):
    """The memory of one signal between two values."""

    model_config = ConfigDict(frozen=True)

    site: Name
    signal: Name
    kind: SignalKind
    last: Quote | None = None
    """The value that was last believed."""
    history: tuple[Point, ...] = ()
    """Believed values, oldest first, as far as the rule looks back."""
    refused: tuple[Refusal, ...] = ()
    """Reasons that were said since a value was last believed, or since a second source last agreed."""


def take(intake: Intake, given: Quote | Unbelievable, now: datetime, *, look_back: timedelta = timedelta(0)) -> Taken:
    """One value, or the reason why there is none, in; the new memory and what is to be said out.

    The same value again is passed over without a word; another value for the same instant is refused, for nobody knows
    which of the two was acted upon elsewhere. A last value that the clock was set back under is forgotten first
    (``set_back``): otherwise nothing would be news until the clock has caught up.

    Args:
        intake: the memory.
        given: a quote of any origin, or what a provider refused already.
        now: the instant by our clock.
        look_back: how long a history is kept; zero keeps none.
    """
    intake, before = set_back(intake, now)
    try:
        if isinstance(given, Unbelievable):
            raise given
        quote = _news(intake, given, now)
    except Unbelievable as doubt:
        intake, said = refuse(intake, doubt, now)
        return intake, (*before, *said)
    if quote is None:
        return intake, before
    history = _kept(intake.history, quote, look_back)
    disputed = tuple(reason for reason in intake.refused if reason == "disagrees")
    return intake.model_copy(update={"last": quote, "history": history, "refused": disputed}), before


def settle(intake: Intake) -> Intake:
    """A second source does not contradict it any more, so that a next disagreement is said again."""
    if "disagrees" not in intake.refused:
        return intake
    return intake.model_copy(update={"refused": tuple(reason for reason in intake.refused if reason != "disagrees")})


def refuse(intake: Intake, doubt: Unbelievable, now: datetime) -> Taken:
    """Say that a value is not believed, unless the same reason was said since the last that was."""
    if doubt.reason in intake.refused:
        return intake, ()
    since = "never" if intake.last is None else intake.last.point_time.astimezone(UTC).isoformat()
    event = SignalRefused(
        id=derived_id(f"{intake.signal}/{doubt.reason}/{since}", SignalRefused.topic, intake.site),
        at=now,
        site=intake.site,
        signal=intake.signal,
        reason=doubt.reason,
        detail=doubt.detail,
        point_time=doubt.point_time,
    )
    return intake.model_copy(update={"refused": (*intake.refused, doubt.reason)}), (event,)


def set_back(intake: Intake, now: datetime) -> Taken:
    """Forget a last value that lies in the future, because our clock was ahead when it came, and say so."""
    if intake.last is None or intake.last.point_time <= now + EARLY:
        return intake, ()
    ahead = intake.last.point_time
    detail = f"the last value is of {_text(ahead)} and the clock now says {_text(now)}"
    intake, said = refuse(intake, Unbelievable("future", detail, ahead), now)
    history = tuple(point for point in intake.history if point.point_time <= now)
    return intake.model_copy(update={"last": None, "history": history}), said


def _news(intake: Intake, quote: Quote, now: datetime) -> Quote | None:
    """The quote if it is one to believe; none when it is known already.

    Raises:
        Unbelievable: it is not.
    """
    at = quote.point_time
    if quote.kind is not intake.kind:
        raise Unbelievable("kind", f"{quote.kind} instead of {intake.kind}", at)
    believed(quote)
    if at > now + EARLY:
        raise Unbelievable("future", f"a value of {_text(at)} at {_text(now)}", at)
    if intake.last is None or at > intake.last.point_time:
        return quote
    if at < intake.last.point_time:
        raise Unbelievable("order", f"a value of {_text(at)} after one of {_text(intake.last.point_time)}", at)
    if quote.value == intake.last.value:
        return None
    told = f"{plain(intake.last.value)} and then {plain(quote.value)} {quote.unit}"
    raise Unbelievable("order", f"{told} for the same instant {_text(at)}", at)


def _kept(history: tuple[Point, ...], quote: Quote, look_back: timedelta) -> tuple[Point, ...]:
    """The history with one more point, if it lies far enough from the last: so many points span the whole look-back."""
    if not look_back:
        return ()
    start = quote.point_time - look_back
    told = tuple(point for point in history if start <= point.point_time < quote.point_time)
    near = bool(told) and quote.point_time - told[-1].point_time < look_back / MOST_POINTS
    point = Point(point_time=quote.point_time, value=quote.value)
    return told if near else (*told, point)[-MOST_POINTS:]


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
