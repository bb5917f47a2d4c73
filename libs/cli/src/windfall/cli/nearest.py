"""The cure for a name that nobody knows."""

from typing import Final

_ALIKE: Final = 0.7
"""Of the letters of two names, so many in common are a slip of the fingers."""


def near(name: str, known: list[str]) -> str:
    """For a name that is nearly right the right one, or else all that there are."""
    # Imported here: most names are right.
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1, cutoff=_ALIKE)
    if close:
        return f"Did you mean {close[0]}?"
    if not known:
        return "There is none here yet"
    shown = sorted(known)[:10]
    return f"There is {', '.join(shown)}{'' if len(shown) == len(known) else f' and {len(known) - len(shown)} more'}"
