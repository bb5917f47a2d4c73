"""What machines read: JSON, YAML, or a line of JSON for each thing, and with each the version of its form."""

import json
from collections.abc import Mapping, Sequence

from windfall.cli.resources.resource import VERSION


def single(kind: str, about: Mapping[str, object], form: str) -> str:
    """One thing.

    Args:
        form: ``json``, ``yaml`` or ``jsonl``.
    """
    return _written({"apiVersion": VERSION, "kind": kind, **about}, form)


def several(kind: str, items: Sequence[Mapping[str, object]], form: str) -> str:
    """Many of a kind: one list, or in ``jsonl`` a line for each."""
    if form == "jsonl":
        return "\n".join(single(kind, one, form) for one in items)
    return _written({"apiVersion": VERSION, "kind": f"{kind}List", "items": [dict(one) for one in items]}, form)


def _written(made: Mapping[str, object], form: str) -> str:
    if form == "jsonl":
        return json.dumps(made, ensure_ascii=False)
    if form == "json":
        return json.dumps(made, indent=2, ensure_ascii=False)
    # Imported here: most people read tables.
    import yaml

    return str(yaml.safe_dump(dict(made), sort_keys=False, allow_unicode=True)).rstrip()
