"""Providers of other installed packages, by name.

A package brings one through an entry point in the group ``windfall.providers``, under the name by which sections say
``provider``::

    [project.entry-points."windfall.providers"]
    battery = "my_package.battery:Battery"

The class has its section in ``section`` and is made by ``of``, as those that ship are made.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.section import Means, OwnSection

GROUP: Final = "windfall.providers"

Maker = Callable[[Any, Means], Provider]


def installed() -> Mapping[str, EntryPoint]:
    """What other packages have brought, by the names of their entry points."""
    return {point.name: point for point in entry_points(group=GROUP)}


def own_section(point: EntryPoint, told: Mapping[str, Any]) -> OwnSection:
    """What one signal is told, as the package wants it.

    Raises:
        ValueError: the class cannot be imported or is no provider; or ``ValidationError``, when the section is wrong.
    """
    return cast(type[OwnSection], _class(point).section).model_validate(told)


def own_provider(point: EntryPoint) -> Maker:
    """What makes a provider of its section. Raises ``ValueError`` as above."""
    return cast(Maker, _class(point).of)


def _class(point: EntryPoint) -> Any:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"provider {point.name!r} cannot be imported from {point.value!r}: {error}") from error
    section = getattr(found, "section", None)
    if not (isinstance(section, type) and issubclass(section, OwnSection) and callable(getattr(found, "of", None))):
        raise ValueError(
            f"provider {point.name!r}: {point.value} is no provider; give it a section (an OwnSection) and of()"
        )
    return found
