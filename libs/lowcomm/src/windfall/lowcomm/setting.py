"""One line of a setting, like ``nesterov:lr=0.7,momentum=0.9``: a name and numbers for what it names."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

Named = TypeVar("Named")


def parse_named(what: str, text: str, factories: Mapping[str, Callable[..., Named]]) -> Named:
    """Call the factory of that name with the numbers given; what is left out has its default.

    Raises:
        ValueError: unknown name or setting, or a value that is no number or that the factory refuses.
    """
    name, _, rest = text.strip().partition(":")
    factory = factories.get(name)
    if factory is None:
        raise ValueError(f"unknown {what} {name!r}; known are {', '.join(sorted(factories))}")
    known = inspect.signature(factory).parameters
    settings: dict[str, float] = {}
    for part in rest.split(",") if rest else ():
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known or key in settings:
            problem = "given twice" if key in settings else f"unknown; known are {', '.join(known)}"
            raise ValueError(f"{what} {name!r}: setting {key!r} is {problem}")
        try:
            settings[key] = float(value)
        except ValueError:
            raise ValueError(f"{what} {name!r}: {key} is a number, not {value!r}") from None
    return factory(**settings)
