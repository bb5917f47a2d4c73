"""What starting a lease on counted machines would write, as lines that a person can read and apply."""

import json
from collections.abc import Sequence

from windfall.provisioner.roster import Roster
from windfall.servicekit.kube import Object


def lines(written: Sequence[Object], roster: Roster, spec: Object) -> tuple[str, ...]:
    """
    Args:
        written: what the server would keep, the object that counts last.
        roster: with the lease on it.
        spec: the part of that object's spec which asks for so many machines.
    """
    *before, counted = [_plain(found) for found in written]
    counted["metadata"].setdefault("annotations", {}).update(roster.annotation())
    _merge(counted["spec"], spec)
    return tuple(json.dumps(found, sort_keys=True) for found in (*before, counted))


def _plain(found: Object) -> Object:
    """Without what the server writes into it."""
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    metadata = {key: value for key, value in found["metadata"].items() if key in kept}
    return {**{key: value for key, value in found.items() if key != "status"}, "metadata": metadata}


def _merge(at: Object, patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(at.setdefault(key, {}), value)
        else:
            at[key] = value
