"""The trace that comes with the project; its provenance stands beside it in ``data``."""

from importlib.resources import files
from typing import Final

SYNTHETIC_SITES: Final = ("site-a", "site-b", "site-c")


def synthetic_trace() -> tuple[str, ...]:
    """The lines of a day of three artificial sites at 5-minute steps, for ``parse_trace``."""
    text = files("windfall.energy").joinpath("data/synthetic_3site.csv").read_text(encoding="utf-8")
    return tuple(text.splitlines())
