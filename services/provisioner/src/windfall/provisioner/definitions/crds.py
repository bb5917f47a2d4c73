"""The two CustomResourceDefinitions."""

from typing import Any, Final

from pydantic import BaseModel

from windfall.contracts.resources import GROUP, VERSION, Federation, Site
from windfall.provisioner.definitions.schema import structural

_SITE_COLUMNS: Final = (
    ("Jurisdiction", "string", ".spec.jurisdiction", 0),
    ("Region", "string", ".spec.region", 1),
    ("Backend", "string", ".spec.backend.name", 0),
    ("Devices", "integer", ".status.devices", 1),
    ("Window", "string", ".status.window.state", 0),
    ("Capacity", "string", ".status.capacity.state", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)
_FEDERATION_COLUMNS: Final = (
    ("Engine", "string", ".spec.engine", 0),
    ("Task", "string", ".spec.task", 0),
    ("Mode", "string", ".spec.flower.mode", 1),
    ("Isolation", "string", ".spec.flower.isolationMode", 1),
    ("Sites", "integer", ".status.selectedSites", 0),
    ("Supernodes", "string", ".status.supernodes", 0),
    ("Round", "integer", ".status.progress.round", 0),
    ("Loss", "number", ".status.progress.lossNats", 1),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)
# The operator says all of this as well: a server that knows no CEL says nothing.
_FEDERATION_RULES: Final = (
    (
        "has(self.coordinator) == (self.engine == 'windfall') && has(self.flower) == (self.engine == 'flower')",
        "engine windfall goes with coordinator, engine flower with flower",
    ),
)
_FLOWER_RULES: Final = (
    ("self.insecure != has(self.tls)", "name a Secret in tls, or say insecure: true on a network that you own"),
    (
        "self.supernodes.pools.all(pool, has(pool.replicas) == (self.mode == 'StatefulSet'))",
        "replicas of a pool go with mode StatefulSet, and with it alone",
    ),
)


def crds() -> dict[str, dict[str, Any]]:
    """By the name of the file that holds each."""
    federation = structural(Federation)
    spec = federation["properties"]["spec"]
    spec["x-kubernetes-validations"] = _rules(_FEDERATION_RULES)
    spec["properties"]["flower"]["x-kubernetes-validations"] = _rules(_FLOWER_RULES)
    return {
        "sites": _crd(Site, structural(Site), "sites", ("wsite",), _SITE_COLUMNS),
        "federations": _crd(Federation, federation, "federations", ("wfed",), _FEDERATION_COLUMNS),
    }


def _crd(
    model: type[BaseModel],
    schema: dict[str, Any],
    plural: str,
    short: tuple[str, ...],
    columns: tuple[tuple[str, str, str, int], ...],
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "windfall"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": model.__name__,
                "listKind": f"{model.__name__}List",
                "plural": plural,
                "singular": plural.removesuffix("s"),
                "shortNames": list(short),
                "categories": ["windfall", "all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in columns
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _rules(rules: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"rule": rule, "message": message} for rule, message in rules]
