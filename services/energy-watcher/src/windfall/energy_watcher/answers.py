"""Answers that are kept while they are fresh, and read strictly."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.http import Answer, Request

Json = Mapping[str, Any]
Ask = Callable[[Request, Mapping[str, str]], Awaitable[Answer]]
"""Takes the request and further headers."""
_MOST_KEPT: Final = 16


@dataclass(frozen=True)
class _Kept:
    body: Json
    etag: str | None
    asked_at: datetime
    fresh_until: datetime


class AnswerCache:
    """The latest answer to each request, until its next value is due. Its time is that of the signal."""

    def __init__(self) -> None:
        self._kept: dict[Request, _Kept] = {}
        self._asking = asyncio.Lock()

    async def get(
        self, request: Request, now: datetime, ask: Ask, since: Callable[[Json], datetime], period: timedelta
    ) -> Json:
        """The answer that is kept, or a new one. Raises what asking and ``since`` raise, and keeps nothing then.

        An answer is fresh for one period from the instant ``since`` which its value holds. One that is late already, or
        lies ahead, is kept for the very instant at which it came, so that one look is one request.
        """
        async with self._asking:
            kept = self._kept.get(request)
            if kept and (kept.asked_at == now or kept.asked_at <= now < kept.fresh_until):
                return kept.body
            answer = await ask(request, {"If-None-Match": kept.etag} if kept and kept.etag else {})
            body, etag = answer.body, answer.etag
            if body is None:
                if kept is None:
                    raise Unbelievable("unreadable", "an answer that refers to one that we never had")
                body, etag = kept.body, etag or kept.etag
            begun = since(body)
            self._kept.pop(request, None)
            self._kept[request] = _Kept(body, etag, now, begun + period if begun <= now else now)
            while len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return body


class Body(BaseModel):
    """Part of a provider's answer. What it does not name is passed over; NaN passes here and is refused as a value."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


B = TypeVar("B", bound=Body)


def read(kind: type[B], given: object) -> B:
    """Part of an answer as it is documented.

    Raises:
        Unbelievable: a field is missing or has another type; the detail names it.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise Unbelievable("unreadable", f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _parsed(given: object) -> datetime:
    if not isinstance(given, str):
        raise ValueError("not an instant of ISO 8601")
    try:
        return datetime.fromisoformat(given)
    except ValueError:
        raise ValueError("not an instant of ISO 8601") from None


def _utc(given: object) -> datetime:
    at = _parsed(given)
    return _converted(at.replace(tzinfo=UTC) if at.tzinfo is None else at)


def _zoned(given: object) -> datetime:
    at = _parsed(given)
    if at.tzinfo is None:
        raise ValueError("an instant without a time zone")
    return _converted(at)


def _converted(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("an instant before the first year or after the last") from None


UtcInstant = Annotated[datetime, BeforeValidator(_utc)]
"""Of a provider that documents UTC: without an offset it is UTC, with one it is converted."""
ZonedInstant = Annotated[datetime, BeforeValidator(_zoned)]
"""Of a provider that documents no zone: refused without an offset."""
