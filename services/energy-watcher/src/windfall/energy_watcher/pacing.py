"""How fast a provider is asked, and how long to wait before asking again: pure arithmetic over seconds."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

FIRST_BACKOFF_S: Final = 1.0


@dataclass(frozen=True)
class TokenBucket:
    """At most ``burst`` requests at once and ``per_s`` of them a second in the long run."""

    per_s: float
    burst: float
    tokens: float
    at_s: float = 0.0
    """When ``tokens`` was true, on a clock that never goes back."""

    @classmethod
    def full(cls, per_s: float, burst: float) -> "TokenBucket":
        return cls(per_s, burst, burst)

    def take(self, at_s: float) -> "tuple[TokenBucket, float]":
        """Take one token: the bucket afterwards, and the seconds to wait before it may be used.

        Tokens may be owed, so that whoever comes next waits for those before.
        """
        gained = max(0.0, at_s - self.at_s) * self.per_s
        tokens = min(self.burst, self.tokens + gained) - 1.0
        return replace(self, tokens=tokens, at_s=max(at_s, self.at_s)), max(0.0, -tokens / self.per_s)


def backoff_s(tried: int, longest_s: float, random: Random) -> float:
    """Full jitter: anything from nothing to ``2^tried`` seconds, bounded (M. Brooker, AWS Architecture Blog, 2015)."""
    return random.uniform(0.0, min(longest_s, FIRST_BACKOFF_S * 2.0**tried))


def retry_after(text: str | None, answered_at: str | None, now: datetime) -> timedelta | None:
    """What a ``Retry-After`` header asks for, as seconds or as a date (RFC 9110, section 10.2.3); none when unreadable.

    Args:
        text: the header.
        answered_at: the answer's ``Date`` header, by which a date is measured: our clock may differ from theirs.
        now: taken when there is no such header.
    """
    if text is None:
        return None
    if text.strip().isdecimal():
        return timedelta(seconds=min(int(text.strip()[:12]), 86_400 * 365))
    at = _http_date(text)
    return None if at is None else max(timedelta(0), at - (_http_date(answered_at) or now))


def _http_date(text: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
