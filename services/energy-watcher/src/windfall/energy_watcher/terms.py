"""The owner's settings and the providers, brought together and checked against each other."""

from collections.abc import Mapping
from dataclasses import replace

from windfall.contracts.events import UNITS
from windfall.energy.forecast import PERFECT
from windfall.energy.intensity import INTENSITIES
from windfall.energy.lookout import Terms
from windfall.energy.rule import signals
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.replay import Replay
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.static import Static
from windfall.servicekit.errors import Mistake


def terms_of(settings: WatcherSettings, providers: Mapping[str, Provider]) -> Terms:
    """What the owner told, checked against what the providers are.

    Raises:
        Mistake: nothing in the rule can be checked by what should, no signal is an intensity that a plan's limit could
            bound, or a trace is coarser than the age at which it is stale.
    """
    rule = settings.surplus
    for name, provider in providers.items():
        if isinstance(provider, Replay) and provider.trace.step > settings.limit(name):
            raise Mistake(
                f"the values of {name} are {provider.trace.step} apart and stale after {settings.limit(name)}",
                "Set WINDFALL_STALE_AFTER to more than that distance",
            )
    if settings.plan_limit is not None and not any(providers[name].kind in INTENSITIES for name in signals(rule)):
        raise Mistake("WINDFALL_PLAN_LIMIT is set and no signal of the rule is an intensity", "Leave it out")
    return Terms(
        rule=rule,
        policy=replace(settings.policy, error=PERFECT) if _certain(providers) else settings.policy,
        stale_after={name: settings.limit(name) for name in providers},
        check=_check(settings, providers),
        horizon=settings.forecast_horizon,
        plan_limit_g_per_kwh=settings.plan_limit,
    )


def _certain(providers: Mapping[str, Provider]) -> bool:
    """Whether forecasts are never wrong: a trace that is replayed says what comes."""
    return all(isinstance(provider, Replay | Static) for provider in providers.values())


def _check(settings: WatcherSettings, providers: Mapping[str, Provider]) -> tuple[str, str] | None:
    """The signal of the rule that is checked, and the one that checks it."""
    if not settings.check:
        return None
    unit = UNITS[providers[settings.check].kind]
    same = [name for name in signals(settings.surplus) if UNITS[providers[name].kind] == unit]
    if len(same) != 1:
        found = ", ".join(same) or "none"
        cure = "Let it have the unit of exactly one signal of the rule"
        raise Mistake(f"{settings.check!r} has values in {unit}; of the rule's signals so have: {found}", cure)
    return same[0], settings.check
