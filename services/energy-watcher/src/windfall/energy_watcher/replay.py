"""A trace from a CSV file, played by the clock; its forecast is what it will say, no further than the horizon."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from windfall.energy.forecast import perfect
from windfall.energy.signals import Reading, Trace, TraceError, parse_trace
from windfall.energy_watcher.settings import WatcherSettings
from windfall.servicekit.errors import ExitCode, Mistake


@dataclass(frozen=True)
class ReplaySource:
    """One site's column of a trace."""

    trace: Trace

    @classmethod
    def of(cls, settings: WatcherSettings) -> Self:
        """Read the file of the settings.

        Raises:
            Mistake: no such file, not a trace, or one whose readings are always too old for the policy.
        """
        assert settings.trace_file is not None, "the settings ask for it"
        trace = _read(settings.trace_file, settings.trace_column or settings.site)
        if trace.step > settings.stale_after:
            raise Mistake(
                f"the readings of {settings.trace_file} are {trace.step} apart and stale after {settings.stale_after}",
                "Set WINDFALL_STALE_AFTER to more than that distance",
            )
        return cls(trace)

    async def readings(self, after: datetime | None, now: datetime) -> Sequence[Reading]:
        return self.trace.between(after, now)

    async def ahead(self, at: datetime, horizon: timedelta) -> Sequence[Reading]:
        return perfect(self.trace, at, horizon)

    def next_at(self, now: datetime) -> datetime | None:
        following = self.trace.next_after(now)
        return following.point_time if following else self.trace.end

    def ended(self, now: datetime) -> bool:
        return now >= self.trace.end


def _read(path: Path, column: str) -> Trace:
    try:
        return parse_trace(path.read_text(encoding="utf-8").splitlines(), column)
    except OSError as error:
        raise Mistake(
            f"cannot read the trace {path} ({error.strerror})",
            "Set WINDFALL_TRACE_FILE to a file that this user may read",
            ExitCode.RESOURCE,
        ) from error
    except UnicodeDecodeError as error:
        raise Mistake(f"the trace {path} is not text in UTF-8", "Save it as plain CSV in UTF-8") from error
    except TraceError as error:
        raise Mistake(f"the trace {path}, {error.cause}", error.cure[0].upper() + error.cure[1:]) from error
