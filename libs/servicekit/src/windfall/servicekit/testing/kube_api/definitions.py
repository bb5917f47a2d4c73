"""What becomes of a definition that is accepted."""

from windfall.servicekit.kube.kinds import Object


def established(crd: Object, now: str) -> Object:
    """A definition that is served at once."""
    spec = crd["spec"]
    names = {"singular": spec["names"]["kind"].lower(), "listKind": f"{spec['names']['kind']}List"} | spec["names"]
    spec = {"conversion": {"strategy": "None"}, **spec, "names": names}
    before = crd.get("status") or {}
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    reasons = {"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}
    conditions = before.get("conditions") or [
        {"type": name, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now}
        for name, reason in reasons.items()
    ]
    versions = list(dict.fromkeys([*before.get("storedVersions", ()), stored]))
    status = {"conditions": conditions, "acceptedNames": names, "storedVersions": versions}
    return {**crd, "spec": spec, "status": status}
