"""What the server serves: the built-in kinds that Windfall's and its users' manifests name, and custom ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from windfall.servicekit.kube import kinds
from windfall.servicekit.kube.kinds import Kind, Object
from windfall.servicekit.testing.kube_api.schemas import Schema
from windfall.servicekit.testing.kube_api.shapes import BuiltIn, Shape, Structural

VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Scale:
    """Where a kind keeps what its scale subresource shows: dotted paths."""

    replicas: str = "spec.replicas"
    status: str = "status.replicas"
    selector: str = ""


@dataclass(frozen=True)
class Resource:
    """One version of one kind as it is served."""

    kind: Kind
    subresources: frozenset[str] = frozenset()
    short_names: tuple[str, ...] = ()
    scale: Scale | None = None
    generation: bool = True
    """Counts changes of what is wished for."""
    schema: Schema | None = field(default=None, compare=False)
    """Of a custom one."""
    verbs: tuple[str, ...] = VERBS
    singular: str = ""

    @property
    def custom(self) -> bool:
        return self.schema is not None

    @property
    def shape(self) -> Shape:
        return BuiltIn() if self.schema is None else Structural(self.schema.text, root=True)


_STATUS: Final = frozenset({"status"})
_SCALED: Final = frozenset({"status", "scale"})
_REVIEW: Final = ("create",)
_AUTHORIZATION: Final = "authorization.k8s.io"


def _plain(kind: Kind, *short: str) -> Resource:
    return Resource(kind, short_names=short, generation=False)


def _with_status(kind: Kind, *short: str, generation: bool = True) -> Resource:
    return Resource(kind, _STATUS, short, generation=generation)


def _scaled(kind: Kind, *short: str) -> Resource:
    return Resource(kind, _SCALED, short, Scale(selector="spec.selector"))


BUILT_IN: Final = (
    _with_status(kinds.NAMESPACE, "ns", generation=False),
    _with_status(kinds.NODE, "no", generation=False),
    Resource(kinds.POD, frozenset({"status", "binding", "eviction"}), ("po",), generation=False),
    _with_status(kinds.SERVICE, "svc", generation=False),
    Resource(kinds.SERVICE_ACCOUNT, frozenset({"token"}), ("sa",), generation=False),
    _plain(kinds.CONFIG_MAP, "cm"),
    _plain(kinds.SECRET),
    _plain(kinds.EVENT, "ev"),
    _plain(Kind("", "v1", "Endpoints", "endpoints"), "ep"),
    _plain(Kind("", "v1", "LimitRange", "limitranges"), "limits"),
    _with_status(Kind("", "v1", "ResourceQuota", "resourcequotas"), "quota", generation=False),
    _with_status(kinds.PERSISTENT_VOLUME_CLAIM, "pvc", generation=False),
    _with_status(Kind("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False), "pv", generation=False),
    _scaled(kinds.STATEFUL_SET, "sts"),
    _scaled(kinds.DEPLOYMENT, "deploy"),
    _scaled(kinds.REPLICA_SET, "rs"),
    _with_status(kinds.DAEMON_SET, "ds"),
    _plain(Kind("apps", "v1", "ControllerRevision", "controllerrevisions")),
    _with_status(kinds.JOB),
    _with_status(Kind("batch", "v1", "CronJob", "cronjobs"), "cj"),
    _plain(kinds.LEASE),
    _with_status(kinds.PDB, "pdb"),
    _with_status(kinds.PDB_BETA, "pdb"),
    Resource(kinds.NETWORK_POLICY, short_names=("netpol",)),
    _with_status(Kind("networking.k8s.io", "v1", "Ingress", "ingresses"), "ing"),
    _plain(kinds.RUNTIME_CLASS),
    _plain(Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False), "pc"),
    _plain(Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False), "sc"),
    _with_status(Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"), "hpa"),
    _plain(kinds.ROLE),
    _plain(kinds.ROLE_BINDING),
    _plain(kinds.CLUSTER_ROLE),
    _plain(kinds.CLUSTER_ROLE_BINDING),
    _with_status(kinds.CRD, "crd", "crds"),
    Resource(Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False), verbs=_REVIEW),
    Resource(
        Kind(_AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False), verbs=_REVIEW
    ),
    Resource(
        Kind(_AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False),
        verbs=_REVIEW,
    ),
)


class Catalogue:
    """The kinds that are served now."""

    def __init__(self) -> None:
        self._served = {(item.kind.group, item.kind.version, item.kind.plural): item for item in BUILT_IN}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def any_version(self, group: str, plural: str) -> Resource | None:
        return next((item for item in self if (item.kind.group, item.kind.plural) == (group, plural)), None)

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        return next((item for item in self if (item.kind.api_version, item.kind.kind) == (api_version, kind)), None)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._served.values())

    def define(self, crd: Object) -> None:
        """Serve what a definition defines, in place of what it has defined before."""
        self.withdraw(crd)
        for resource in defined(crd):
            self._served[resource.kind.group, resource.kind.version, resource.kind.plural] = resource

    def withdraw(self, crd: Object) -> None:
        spec = crd["spec"]
        for key in [key for key in self._served if (key[0], key[2]) == (spec["group"], spec["names"]["plural"])]:
            del self._served[key]


def defined(crd: Object) -> list[Resource]:
    """The served versions of a definition."""
    spec, names = crd["spec"], crd["spec"]["names"]
    found = []
    for version in spec["versions"]:
        if not version["served"]:
            continue
        subresources = version.get("subresources") or {}
        scale = subresources.get("scale")
        kind = Kind(spec["group"], version["name"], names["kind"], names["plural"], spec["scope"] == "Namespaced")
        found.append(
            Resource(
                kind,
                frozenset(subresources),
                tuple(names.get("shortNames", ())),
                scale
                and Scale(
                    scale["specReplicasPath"].lstrip("."),
                    scale["statusReplicasPath"].lstrip("."),
                    scale.get("labelSelectorPath", "").lstrip("."),
                ),
                schema=Schema(version["schema"]["openAPIV3Schema"]),
                singular=names.get("singular", names["kind"].lower()),
            )
        )
    return found
