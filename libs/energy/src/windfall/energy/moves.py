"""The moves of a gate as sentences on the bus."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from windfall.contracts.events import (
    SiteEvent,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import derived_id
from windfall.energy.gate import Move, Run, Step
from windfall.energy.policy import Policy
from windfall.energy.verdict import Verdict

TOLERANCE: Final = timedelta(minutes=5)
"""A confidence is that an instant is right to within so much."""


@dataclass(frozen=True)
class Sight:
    """What is seen at one instant."""

    at: datetime
    """Point time of the newest reading that it rests on."""
    verdict: Verdict
    ahead: Sequence[Run] | None = None
    """Expected verdicts, oldest first; none without a forecast."""
    intensity_g_per_kwh: float | None = None
    because: str = ""
    """Why the verdict is what it is, in a sentence."""
    planned: bool = False
    """The verdict is a plan's, not the site's own rule's."""


def event_of(
    site: str,
    window_id: UUID,
    step: Step,
    policy: Policy,
    sight: Sight | None,
    dirty_since: datetime | None,
    why: Literal["stale", "ended"] | None,
) -> SiteEvent:
    """One move of a site's gate.

    Args:
        site: the site.
        window_id: of the window that it concerns.
        step: the move.
        policy: whose error model says how sure an instant is.
        sight: what moved the gate; none when silence or the end of the source did.
        dirty_since: begin of the dirty run that closes a window.
        why: what else ended it.
    """
    because = sight.because if sight is not None else ""
    match step.move:
        case Move.EXPECT:
            assert step.until is not None, "only what is foreseen is expected"
            return WindowExpected(
                id=derived_id(window_id, WindowExpected.topic, site),
                at=step.at,
                site=site,
                window_id=window_id,
                opens_at=max(step.until, step.at),
                expected_close_at=step.ends,
                confidence=policy.error.confidence(step.until - step.at, TOLERANCE),
                because=f"clean from {step.until:%H:%M} UTC on by the forecast",
            )
        case Move.WITHDRAW:
            key = derived_id(window_id, WindowWithdrawn.topic, site)
            said = because or ("the signal is silent" if why == "stale" else "")
            return WindowWithdrawn(id=key, at=step.at, site=site, window_id=window_id, because=said)
        case Move.OPEN:
            ends = step.until
            return WindowOpened(
                id=derived_id(window_id, WindowOpened.topic, site),
                at=step.at,
                site=site,
                window_id=window_id,
                intensity_g_per_kwh=sight.intensity_g_per_kwh if sight is not None else None,
                expected_close_at=ends,
                confidence=None if ends is None else policy.error.confidence(ends - step.at, TOLERANCE),
                because=because,
            )
        case Move.WARN:
            assert step.until is not None, "a warning is of an end"
            key = derived_id(f"{window_id}/{text_of(step.until)}", WindowClosing.topic, site)
            return WindowClosing(id=key, at=step.at, site=site, window_id=window_id, closes_at=step.until)
        case Move.CLOSE:
            return WindowClosed(
                id=derived_id(window_id, WindowClosed.topic, site),
                at=step.at,
                site=site,
                window_id=window_id,
                reason=why or _reason(sight),
                crossed_at=dirty_since or step.at,
                because=because,
            )


def _reason(sight: Sight | None) -> Literal["dirty", "planned", "foreseen"]:
    if sight is None or sight.verdict is not Verdict.DIRTY:
        return "foreseen"
    return "planned" if sight.planned else "dirty"


def text_of(at: datetime) -> str:
    """An instant as it stands in ids."""
    return at.astimezone(UTC).isoformat()
