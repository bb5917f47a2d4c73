"""A trace from a CSV file, played by the clock; its forecast is what it will say, no further than the horizon."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from windfall.contracts.events import SignalKind
from windfall.energy.forecast import perfect
from windfall.energy.quotes import Quote
from windfall.energy.signals import Reading, Trace, TraceError, parse_trace
from windfall.energy_watcher.section import Means, Section
from windfall.servicekit.errors import ExitCode, Mistake, Transient


class ReplaySection(Section):
    """A CSV file with ``point_time`` and a column of gCO2/kWh for each site. No credential."""

    provider: Literal["replay"]
    trace_file: Path
    column: str | None = None
    """The column of this site, when it is not called like the site."""
    kind: Literal[SignalKind.MARGINAL, SignalKind.AVERAGE] = SignalKind.MARGINAL


@dataclass
class Replay:
    """One column of a trace."""

    trace: Trace
    kind: SignalKind
    region: str

    @classmethod
    def of(cls, told: ReplaySection, means: Means) -> Self:
        """Raises ``Mistake`` when there is no such file, or it is not a trace."""
        column = told.column or means.site
        return cls(_read(told.trace_file, column), told.kind, column)

    async def current(self, now: datetime) -> Quote:
        reading = self.trace.at(now)
        if reading is None:
            raise Transient(f"the trace begins at {self.trace.start.isoformat()}", self.trace.start - now)
        return self._quote(reading)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        return tuple(map(self._quote, self.trace.between(after, now)))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        return tuple(map(self._quote, perfect(self.trace, now, horizon)))

    def next_at(self, now: datetime) -> datetime | None:
        following = self.trace.next_after(now)
        return following.point_time if following else self.trace.end

    def ended(self, now: datetime) -> bool:
        return now >= self.trace.end

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _quote(self, reading: Reading) -> Quote:
        return Quote(self.kind, reading.point_time, reading.intensity_g_per_kwh, self.region)


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
