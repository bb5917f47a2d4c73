"""What a run amounts to: from its events, traces and configuration to one dictionary of figures. Pure.

``bytes_dense_sync`` is what the same optimizer steps would have moved with classic synchronous data parallelism: after
every step each site sends its fp32 gradient and receives the sum, so ``steps × model bytes × 2``, summed over sites.

Energy and emissions are those of the power model under each site's trace, in the trace's own time: what the same hours
would have cost on the modelled nodes, not what the machine that replayed them drew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from windfall.cli.faults import survived
from windfall.cli.hardware_table import nodes
from windfall.cli.recording import Said
from windfall.cli.story import Window, windows
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    RoundCompleted,
    RoundEvaluated,
    TrainingStarted,
)
from windfall.energy.ledger import Account, account, always_on, intervals
from windfall.energy.power import PowerModel
from windfall.energy.signals import Trace

FORMAT: Final = 1
"""Version of ``summary.json``: grows when a figure changes its meaning."""
_DENSE_DIRECTIONS: Final = 2


@dataclass(frozen=True)
class Run:
    """What was known before the first event, and what the disk says after the last."""

    federation: str
    sites: tuple[str, ...]
    traces: Mapping[str, Trace]
    trace_start: datetime
    trace_end: datetime
    speed: float
    """Business seconds per wall second."""
    wall_start: datetime
    """Wall instant of ``trace_start``."""
    commanded_at: datetime
    """Wall instant at which the person gave the command."""
    ended_at: datetime
    """Wall instant at which the last process had ended."""
    open_below_g_per_kwh: float
    close_above_g_per_kwh: float
    model_bytes: int = 0
    """fp32 parameters of the model."""
    model_sha256: str | None = None
    seed: int = 0
    power: PowerModel = field(default_factory=PowerModel)
    app: str | None = None
    """The Flower app that was run; none for a task of ours. Its tokens are examples, and it counts no steps."""

    started_again: Mapping[str, int] = field(default_factory=dict)
    """How often each process died and was started again, by its name."""

    def wall_s(self, duration: timedelta) -> float:
        """A business duration in seconds on the wall."""
        return (duration / self.speed).total_seconds()


def summarise(run: Run, said: Sequence[Said], ledger: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All figures of a run as plain JSON values. What did not happen is none, never a zero that looks measured.

    ``ledger`` is what the sites themselves have kept and signed, as ``ledger.section`` says it.
    """
    messages = [sentence.message for sentence in said]
    completed = [message for message in messages if isinstance(message, RoundCompleted)]
    accepted = [message for message in messages if isinstance(message, ContributionAccepted)]
    refused = [message for message in messages if isinstance(message, ContributionRefused)]
    held_out = sorted((m for m in messages if isinstance(m, RoundEvaluated)), key=lambda m: m.round)
    finished = [message for message in messages if isinstance(message, FederationFinished)]
    first_steps = [message.at for message in messages if isinstance(message, TrainingStarted)]
    steps = sum(message.steps for message in completed)
    up, down = sum(m.bytes_up for m in completed), sum(m.bytes_down for m in completed)
    dense = steps * run.model_bytes * _DENSE_DIRECTIONS
    all_windows = windows(said)
    used, counterfactual = energy(run, said)
    return {
        "format": FORMAT,
        "rounds": len(completed),
        "sites": len(run.sites),
        "site_names": list(run.sites),
        "federation": run.federation,
        "app": run.app,
        "tokens": max((message.tokens_total for message in completed), default=0),
        "steps": steps,
        "contributions": len(accepted),
        "contributions_partial": sum(message.partial for message in accepted),
        "contributions_refused": len(refused),
        "loss_first": held_out[0].loss_nats if held_out else None,
        "loss_final": held_out[-1].loss_nats if held_out else None,
        "bytes_up": up,
        "bytes_down": down,
        "bytes_dense_sync": dense,
        "bytes_saved_factor": round(dense / (up + down), 2) if dense and up + down else None,
        "energy_kwh": _kept(used.total.energy_kwh),
        "energy_always_on_kwh": _kept(counterfactual.total.energy_kwh),
        "emissions_kg": _kept(used.total.emissions_kg),
        "emissions_always_on_kg": _kept(counterfactual.total.emissions_kg),
        "clean_energy_share": _kept(used.total.clean_energy_share),
        "duration_s": round((run.ended_at - run.commanded_at).total_seconds(), 2),
        "time_to_first_step_s": _first_step(run, first_steps),
        "close_to_last_contribution_s": [
            last_word_s for window in all_windows if (last_word_s := _last_word_s(run, window)) is not None
        ],
        "finished": bool(finished),
        "model_sha256": run.model_sha256,
        "model_bytes": run.model_bytes,
        "model_digest": finished[-1].model_digest if finished else completed[-1].model_digest if completed else None,
        "trace_ids": [window.trace_id for window in all_windows],
        "windows": [_window(run, window) for window in all_windows],
        "energy_by_site": {
            site: {"energy_kwh": _kept(usage.energy_kwh), "emissions_kg": _kept(usage.emissions_kg)}
            for site, usage in used.sites.items()
        },
        "ledger": ledger,
        "faults": [asdict(fault) for fault in survived(said, run.started_again)],
        "nodes": nodes(said),
        "open_below_g_per_kwh": run.open_below_g_per_kwh,
        "close_above_g_per_kwh": run.close_above_g_per_kwh,
        "trace_start": run.trace_start.isoformat(),
        "trace_end": run.trace_end.isoformat(),
        "speed": run.speed,
        "seed": run.seed,
        "events": len(messages),
    }


def energy(run: Run, said: Sequence[Said]) -> tuple[Account, Account]:
    """What the fleet used, and what it would have used had every site trained all the time."""
    lived = intervals((sentence.message for sentence in said), run.trace_start, run.trace_end)
    used = account(lived, run.traces, run.power, run.open_below_g_per_kwh)
    counterfactual = always_on(
        run.sites, run.traces, run.trace_start, run.trace_end, run.power, run.open_below_g_per_kwh
    )
    return used, counterfactual


def _first_step(run: Run, first_steps: Sequence[datetime]) -> float | None:
    if not first_steps:
        return None
    since_replay_began = run.wall_s(min(first_steps) - run.trace_start)
    return round((run.wall_start - run.commanded_at).total_seconds() + since_replay_began, 2)


def _window(run: Run, window: Window) -> dict[str, Any]:
    return {
        "window_id": str(window.window_id),
        "site": window.site,
        "trace_id": window.trace_id,
        "expected_at": _text(window.expected_at),
        "opened_at": _text(window.opened_at),
        "ready_at": _text(window.ready_at),
        "training_from": _text(window.training_from),
        "warned_at": _text(window.warned_at),
        "crossed_at": _text(window.crossed_at),
        "closed_at": _text(window.closed_at),
        "closed_because": window.closed_because,
        "drained_at": _text(window.drained_at),
        "released_at": _text(window.released_at),
        "released_because": window.released_because,
        "contributions": window.contributions,
        "tokens": window.tokens,
        "bytes_up": window.bytes_up,
        "last_word_s": _last_word_s(run, window),
    }


def _last_word_s(run: Run, window: Window) -> float | None:
    business_s = window.close_to_last_contribution_s
    return None if business_s is None else round(run.wall_s(timedelta(seconds=business_s)), 3)


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _kept(value: float | None) -> float | None:
    """Six digits after the point: a milligram, a milliwatt-hour."""
    return None if value is None else round(value, 6)
