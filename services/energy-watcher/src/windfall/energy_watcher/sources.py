"""Every provider by its name, and a site's signals as the settings name them.

``WINDFALL_SIGNALS`` is a JSON object from the site's names of its signals to sections, for example
``{"carbon": {"provider": "watttime", "region": "CAISO_NORTH"}, "surplus": {"provider": "prometheus", …}}``.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from windfall.contracts.message import Name
from windfall.energy_watcher.bus import Bus, BusSection
from windfall.energy_watcher.electricitymaps import ElectricityMaps, ElectricityMapsSection
from windfall.energy_watcher.own_provider import Maker, installed, own_provider, own_section
from windfall.energy_watcher.prometheus import Prometheus, PrometheusSection
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.replay import Replay, ReplaySection
from windfall.energy_watcher.section import Means, OwnSection
from windfall.energy_watcher.static import Static, StaticSection
from windfall.energy_watcher.uk_carbon_intensity import UkCarbonIntensity, UkCarbonIntensitySection
from windfall.energy_watcher.vessim import Vessim, VessimSection
from windfall.energy_watcher.watttime import WattTime, WattTimeSection

_Shipped = (
    BusSection
    | ElectricityMapsSection
    | PrometheusSection
    | ReplaySection
    | StaticSection
    | UkCarbonIntensitySection
    | VessimSection
    | WattTimeSection
)
SourceSettings = _Shipped | OwnSection
"""What one signal is told; ``provider`` says which."""

PROVIDERS: Final[dict[str, Maker]] = {
    "bus": Bus.of,
    "electricitymaps": ElectricityMaps.of,
    "prometheus": Prometheus.of,
    "replay": Replay.of,
    "static": Static.of,
    "uk_carbon_intensity": UkCarbonIntensity.of,
    "vessim": Vessim.of,
    "watttime": WattTime.of,
}
"""Each takes its own section. Each raises ``Mistake`` when it cannot be had at all."""


def provider_of(section: SourceSettings, means: Means) -> Provider:
    """The provider that a section tells of.

    Raises:
        Mistake: a credential is missing or cannot be read, or a trace cannot be.
    """
    if isinstance(section, OwnSection):
        return own_provider(installed()[section.provider])(section, means)
    return PROVIDERS[section.provider](section, means)


_SIGNALS: Final = TypeAdapter(dict[Name, Annotated[_Shipped, Field(discriminator="provider")]])
_NAMES: Final = TypeAdapter(dict[Name, Any])


def signals_of(given: object) -> dict[str, SourceSettings]:
    """A site's signals, from JSON text or from what it holds.

    Raises:
        ValueError: not JSON, a name twice, or a section that is wrong; it names the place and shows no values but those
            that a section's own checks show.
    """
    try:
        told: Any = json.loads(given, object_pairs_hook=_once) if isinstance(given, str) else given
        own = _of_others(told)
        shipped = {name: one for name, one in told.items() if name not in own} if own else told
        known = own | _SIGNALS.validate_python(shipped)
        return {name: known[name] for name in told}
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON of signals: it is nested too deep") from None
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        raise ValueError("; ".join(_explain(mistake["loc"], mistake["msg"]) for mistake in mistakes)) from None


def _of_others(told: object) -> dict[str, SourceSettings]:
    """The sections whose providers other packages have brought."""
    if not isinstance(told, Mapping):
        return {}
    asked = {name: str(one.get("provider")) for name, one in told.items() if isinstance(one, Mapping)}
    if set(asked.values()) <= set(PROVIDERS):
        return {}
    points = {name: point for name, point in installed().items() if name not in PROVIDERS}
    found: dict[str, SourceSettings] = {}
    for name in _NAMES.validate_python({name: None for name, provider in asked.items() if provider in points}):
        try:
            found[name] = own_section(points[asked[name]], told[name])
        except ValidationError as error:
            mistakes = error.errors(include_url=False, include_input=False, include_context=False)
            raise ValueError(
                "; ".join(_explain((name, "", *mistake["loc"]), mistake["msg"]) for mistake in mistakes)
            ) from None
    return found


Signals = Annotated[dict[Name, SourceSettings], BeforeValidator(signals_of)]
"""The type of a settings field that holds them."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice")
    return dict(pairs)


def _explain(where: tuple[int | str, ...], message: str) -> str:
    # The second part is the provider, by which the section was chosen: it is no place in what a person wrote.
    place = ".".join(str(part) for index, part in enumerate(where) if index != 1)
    said = " ".join(message.removeprefix("Value error, ").split())
    return f"{place}: {said[:1].lower()}{said[1:]}" if place else said
