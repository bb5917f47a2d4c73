"""What the operator has seen of its namespace, as small as it can be, and whom a change concerns."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from windfall.contracts.resources import Federation, Site
from windfall.provisioner.operator.marks import FEDERATION, FEDERATION_LABEL, MANAGED_BY, OPERATOR, SITE, SITE_LABEL
from windfall.provisioner.operator.reading import Read, read
from windfall.provisioner.operator.standing import Workload
from windfall.servicekit.kube import Kind, Object
from windfall.servicekit.kube.kinds import DAEMON_SET, STATEFUL_SET

Owner = tuple[Kind, str]
"""A Site or a Federation, by its name."""
_LOUD: Final = ("managedFields",)
_WORKLOADS: Final = {"StatefulSet": STATEFUL_SET, "DaemonSet": DAEMON_SET}


@dataclass(frozen=True)
class Child:
    """What is kept of an object that the operator made."""

    kind: Kind
    name: str
    uid: str
    marker: str
    """Another one when somebody has changed what was applied: the generation where there is one, else the version."""
    owner_uid: str
    labels: Mapping[str, str]
    workload: Workload | None = None
    replicas: int | None = None
    grace_s: int = 0
    suspended: bool = False


@dataclass
class Store:
    """Brought up to date by what is seen, never by what is hoped for."""

    sites: dict[str, tuple[Object, Read[Site]]] = field(default_factory=dict)
    federations: dict[str, tuple[Object, Read[Federation]]] = field(default_factory=dict)
    children: dict[tuple[Kind, str], Child] = field(default_factory=dict)
    _of: dict[Owner, set[tuple[Kind, str]]] = field(default_factory=dict)

    def seen(self, kind: Kind, found: Object) -> set[Owner]:
        """Something is as it is; whom that concerns."""
        name = found["metadata"]["name"]
        if kind == SITE:
            return self._seen_site(name, found)
        if kind == FEDERATION:
            known = self.federations.get(name)
            if known is not None and not newer(found, known[0]):
                return set()
            self.federations[name] = _quiet(found), read(Federation, found)
            return {(FEDERATION, name)}
        if found["metadata"].get("labels", {}).get(MANAGED_BY) != OPERATOR:
            return self.gone(kind, found)
        child = child_of(kind, found)
        before = self.children.get((kind, name))
        self.children[kind, name] = child
        for owner in owners(child.labels):
            self._of.setdefault(owner, set()).add((kind, name))
        return set() if before == child else owners(child.labels)

    def gone(self, kind: Kind, found: Object) -> set[Owner]:
        """Something is there no more; whom that concerns."""
        name = found["metadata"]["name"]
        if kind == SITE:
            known = self.sites.get(name)
            if known is None or not same(found, known[0]):
                return set()
            del self.sites[name]
            return {(SITE, name), *((FEDERATION, one) for one in self.federations)}
        if kind == FEDERATION:
            federation = self.federations.get(name)
            if federation is not None and same(found, federation[0]):
                del self.federations[name]
            return {(FEDERATION, name)}
        child = self.children.get((kind, name))
        if child is None or child.uid != found["metadata"].get("uid", child.uid):
            return set()
        del self.children[kind, name]
        for owner in owners(child.labels):
            self._of.get(owner, set()).discard((kind, name))
        return owners(child.labels)

    def of(self, owner: Owner) -> Iterator[Child]:
        """What was made for an owner, in one order."""
        keys = self._of.get(owner, set())
        return iter([self.children[key] for key in sorted(keys, key=lambda key: (key[0].plural, key[1]))])

    def workload(self, kind: str, name: str) -> Workload | None:
        child = self.children.get((_WORKLOADS[kind], name))
        return child.workload if child else None

    def valid_sites(self) -> Iterable[Site]:
        return [site.resource for _, site in self.sites.values() if site.resource is not None]

    def _seen_site(self, name: str, found: Object) -> set[Owner]:
        known = self.sites.get(name)
        if known is not None and not newer(found, known[0]):
            return set()
        told = read(Site, found)
        self.sites[name] = _quiet(found), told
        before = known[1].resource if known else None
        concerned: set[Owner] = {(SITE, name)}
        if _law(before) != _law(told.resource):
            return concerned | {(FEDERATION, one) for one in self.federations}
        if _window(before) != _window(told.resource):
            return concerned | {
                (FEDERATION, one) for one, (_, told_of) in self.federations.items() if _at(told_of, name)
            }
        return concerned


def owners(labels: Mapping[str, str]) -> set[Owner]:
    if federation := labels.get(FEDERATION_LABEL):
        return {(FEDERATION, federation)}
    return {(SITE, site)} if (site := labels.get(SITE_LABEL)) else set()


def child_of(kind: Kind, found: Object) -> Child:
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    generation = metadata.get("generation", 0)
    owner = next((one["uid"] for one in metadata.get("ownerReferences", ()) if one.get("controller")), "")
    pod = spec.get("template", {}).get("spec", {}) if kind.plural in ("statefulsets", "daemonsets") else {}
    return Child(
        kind,
        metadata["name"],
        metadata.get("uid", ""),
        f"g{generation}" if generation else f"v{metadata.get('resourceVersion', '')}",
        owner,
        {key: value for key, value in (metadata.get("labels") or {}).items()},
        _workload(kind, generation, spec, status),
        spec.get("replicas") if kind.plural == "statefulsets" else None,
        int(pod.get("terminationGracePeriodSeconds") or 0),
        any(key.endswith("/suspended") for key in pod.get("nodeSelector") or ()),
    )


def newer(found: Object, known: Object) -> bool:
    """Lists and watches may cross: what is older than what is known says nothing."""
    if not same(found, known):
        return True
    return int(found["metadata"].get("resourceVersion") or 0) >= int(known["metadata"].get("resourceVersion") or 0)


def same(found: Object, known: Object) -> bool:
    return bool(found["metadata"].get("uid", "") == known["metadata"].get("uid", ""))


def _workload(kind: Kind, generation: int, spec: Mapping[str, Any], status: Mapping[str, Any]) -> Workload | None:
    seen = status.get("observedGeneration", 0) >= generation
    if kind.plural == "statefulsets":
        return Workload(
            kind.kind, spec.get("replicas", 1), status.get("readyReplicas", 0), seen, status.get("replicas", 0)
        )
    if kind.plural == "daemonsets":
        left = status.get("currentNumberScheduled", 0) + status.get("numberMisscheduled", 0)
        return Workload(kind.kind, status.get("desiredNumberScheduled", 0), status.get("numberReady", 0), seen, left)
    return None


def _quiet(found: Object) -> Object:
    return {**found, "metadata": {key: value for key, value in found["metadata"].items() if key not in _LOUD}}


def _law(site: Site | None) -> object:
    if site is None:
        return None
    return site.metadata.labels, site.metadata.going, site.spec.jurisdiction, site.spec.suspend, site.spec.data_sets


def _window(site: Site | None) -> object:
    window = site.status.window if site else None
    return window is not None and window.state in ("open", "closing"), window.state if window else ""


def _at(told: Read[Federation], site: str) -> bool:
    flower = told.resource.spec.flower if told.resource else None
    return flower is not None and any(pool.site == site for pool in flower.supernodes.pools)
