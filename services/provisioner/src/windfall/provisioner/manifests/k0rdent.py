"""A site's cluster for k0rdent: one ClusterDeployment from a versioned template, and what is installed in it.

Templates never change; another version is another object, and a chain says which may follow which. Windfall shows the
upgrades that k0rdent offers and takes none by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from windfall.provisioner.manifests.contracts import (
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CLUSTER_TEMPLATE_CHAIN,
    CREDENTIAL,
    MULTI_CLUSTER_SERVICE,
    SERVICE_TEMPLATE,
    V1BETA1,
    Resource,
)
from windfall.provisioner.manifests.labels import Manifest, site_labels
from windfall.provisioner.manifests.parameters import ClusterName, ObjectName, Parameters

SERVICES_PAUSED: Final = "k0rdent.mirantis.com/service-set-paused"
"""An annotation of a ServiceSet: k0rdent leaves the cluster's services as they are."""
KUBECONFIG: Final = "windfall.dev/kubeconfig"
"""An annotation: where the cluster's kubeconfig is, ``namespace/secret#key``. Where, not what."""
_PATH: Final = r"^[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*$"


class Identity(Parameters):
    """The object of the infrastructure's provider that holds or names the secret."""

    api_version: str = Field(pattern=r"^[a-z0-9.-]+(/v\w+)?$")
    kind: str = Field(pattern=r"^[A-Z]\w*$")
    name: ObjectName
    namespace: ObjectName | None = None


class Service(Parameters):
    """One add-on from a ServiceTemplate."""

    name: ObjectName
    namespace: ObjectName = "default"
    template: ObjectName
    """Name of the ServiceTemplate, version and all."""
    values: str = ""
    """YAML for its chart."""


class K0rdentParameters(Parameters):
    """The parameters of the ``k0rdent`` backend."""

    cluster: ClusterName | None = None
    """Name of the ClusterDeployment; the site's when none is said."""
    template: ObjectName
    """Name of a ClusterTemplate, version and all, like ``remote-cluster-1-0-19``."""
    credential: ObjectName
    """Name of the Credential."""
    identity: Identity | None = None
    """Makes the Credential; otherwise it is there."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The template's values."""
    workers: str = Field(default="workersNumber", pattern=_PATH)
    """Where in ``config`` the template takes the number of workers, steps joined by dots."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Of the ClusterDeployment: a MultiClusterService chooses by them."""
    services: tuple[Service, ...] = ()
    """Installed in this cluster by the ClusterDeployment itself."""
    add_ons: tuple[Service, ...] = ()
    """Installed by a MultiClusterService in every cluster of the site."""
    dry_run: bool = False
    """k0rdent checks template, credential and values and makes nothing; leases are refused."""
    paused: bool = False
    """k0rdent leaves the services of the cluster as they are, and leases wait."""
    when_idle: Literal["scale", "delete"] = "scale"
    """What happens when no lease is left: no workers, or no cluster."""
    trainer: Literal["apply", "given"] = "given"
    """As of the ``cluster-api`` backend."""

    @field_validator("labels")
    @classmethod
    def _free(cls, labels: dict[str, str]) -> dict[str, str]:
        if ours := sorted(set(labels) & set(site_labels(""))):
            raise ValueError(f"{', '.join(ours)} is said by Windfall itself")
        return labels

    @model_validator(mode="after")
    def _whole(self) -> "K0rdentParameters":
        at: Any = self.config
        for step in self.workers.split("."):
            if not isinstance(at, Mapping):
                raise ValueError(f"workers: {self.workers} leads through a value of config that holds no others")
            at = at.get(step, {})
        if at not in ({}, 0):
            raise ValueError(f"config.{self.workers} is the number of leases: take it out of config")
        for what, services in (("services", self.services), ("addOns", self.add_ons)):
            names = [(service.namespace, service.name) for service in services]
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names a service twice")
        return self

    def named(self, site: str) -> "K0rdentParameters":
        """With every name that was left to the site's."""
        return self.model_copy(update={"cluster": self.cluster or site})


def cluster_deployment(site: str, namespace: str, said: K0rdentParameters) -> Manifest:
    """The ClusterDeployment, without its number of workers."""
    name = str(said.cluster)
    spec: dict[str, Any] = {"template": said.template, "credential": said.credential}
    if config := without(said.config, said.workers):
        spec["config"] = config
    if said.dry_run:
        spec["dryRun"] = True
    if said.services:
        spec["serviceSpec"] = {"services": [_service(service) for service in said.services]}
    made = _object(CLUSTER_DEPLOYMENT, site, namespace, name, spec)
    made["metadata"]["labels"] |= said.labels
    made["metadata"]["annotations"] = {KUBECONFIG: kubeconfig_reference(namespace, name)}
    return made


def counted(workers: str, count: int) -> dict[str, Any]:
    """The part of a ClusterDeployment's spec that says how many workers there are."""
    at: Any = count
    for step in reversed(workers.split(".")):
        at = {step: at}
    return {"config": at}


def count_of(deployment: Mapping[str, Any], workers: str) -> int | None:
    """How many workers a ClusterDeployment asks for; none when it does not say."""
    at: Any = deployment["spec"].get("config")
    for step in workers.split("."):
        at = at.get(step) if isinstance(at, Mapping) else None
    return at if isinstance(at, int) else None


def without(config: Mapping[str, Any], workers: str) -> dict[str, Any]:
    """The template's values but the number of workers, which another hand writes."""
    step, _, rest = workers.partition(".")
    left = {key: value for key, value in config.items() if key != step}
    if rest and step in config and (inner := without(config[step], rest)):
        left[step] = inner
    return left


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of values in one; where both say something, the second."""
    made = dict(values)
    for key, value in more.items():
        before = made.get(key)
        made[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return made


def credential(site: str, namespace: str, name: str, identity: Identity) -> Manifest:
    """A Credential, which names an identity and holds no secret."""
    reference = identity.model_dump(by_alias=True, exclude_none=True)
    return _object(CREDENTIAL, site, namespace, name, {"identityRef": reference})


def multi_cluster_service(
    site: str, name: str, services: Sequence[Service], selector: Mapping[str, str] | None = None
) -> Manifest:
    """Add-ons for every cluster that carries the labels; the site's own when none are said."""
    spec = {
        "clusterSelector": {"matchLabels": dict(selector or site_labels(site))},
        "serviceSpec": {"services": [_service(service) for service in services]},
    }
    return _object(MULTI_CLUSTER_SERVICE, site, None, name, spec)


class Chart(Parameters):
    """A Helm chart of one version, and the HelmRepository that it comes from."""

    name: ObjectName
    version: str = Field(pattern=r"^\d+\.\d+\.\d+([-+][\w.]+)?$")
    repository: ObjectName

    @property
    def template_name(self) -> str:
        """What a template of this version is called: ``cilium-1-16-3`` for 1.16.3."""
        version = "".join(sign if sign.isalnum() else "-" for sign in self.version.lower())
        return f"{self.name.replace('.', '-')}-{version}"

    @property
    def spec(self) -> dict[str, Any]:
        source = {"kind": "HelmRepository", "name": self.repository}
        chart = {"chart": self.name, "version": self.version, "interval": "10m0s", "sourceRef": source}
        return {"helm": {"chartSpec": chart}}


def cluster_template(site: str, namespace: str, chart: Chart) -> Manifest:
    """A ClusterTemplate of a chart's version."""
    return _object(CLUSTER_TEMPLATE, site, namespace, chart.template_name, chart.spec)


def service_template(site: str, namespace: str, chart: Chart) -> Manifest:
    """A ServiceTemplate of a chart's version."""
    return _object(SERVICE_TEMPLATE, site, namespace, chart.template_name, chart.spec)


def cluster_template_chain(site: str, namespace: str, name: str, upgrades: Mapping[str, Sequence[str]]) -> Manifest:
    """Which templates may be used, and to which each may be upgraded."""
    supported = [
        {"name": template, **({"availableUpgrades": [{"name": next_} for next_ in following]} if following else {})}
        for template, following in sorted(upgrades.items())
    ]
    return _object(CLUSTER_TEMPLATE_CHAIN, site, namespace, name, {"supportedTemplates": supported})


def kubeconfig_reference(namespace: str, cluster: str) -> str:
    """Where the kubeconfig of a cluster is, as :data:`KUBECONFIG` says it."""
    return f"{namespace}/{cluster}-kubeconfig#value"


def kubeconfig_references(site: str, namespace: str, clusters: Sequence[str]) -> Manifest:
    """Where the kubeconfigs of a site's clusters are: the aggregate, of references and not of copies."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"windfall-{site}-kubeconfigs", "namespace": namespace, "labels": site_labels(site)},
        "data": {cluster: kubeconfig_reference(namespace, cluster) for cluster in sorted(clusters)},
    }


def _service(service: Service) -> dict[str, str]:
    said = service.model_dump(include={"name", "namespace", "template"})
    return {**said, "values": service.values} if service.values else said


def _object(resource: Resource, site: str, namespace: str | None, name: str, spec: dict[str, Any]) -> Manifest:
    metadata: dict[str, Any] = {"name": name, "labels": site_labels(site)}
    if namespace is not None:
        metadata["namespace"] = namespace
    return {
        "apiVersion": resource.at(V1BETA1).api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "spec": spec,
    }
