"""Machines of a cluster that k0rdent keeps, counted by a value of its ClusterDeployment."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from windfall.provisioner.backend import Outage
from windfall.provisioner.counted import Beside
from windfall.provisioner.discovery import spoken
from windfall.provisioner.machine import Machine, current, line
from windfall.provisioner.manifests import k0rdent as manifests
from windfall.provisioner.manifests.cluster_api import CLUSTER_NAME
from windfall.provisioner.manifests.contracts import (
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CREDENTIAL,
    MACHINE,
    MULTI_CLUSTER_SERVICE,
    SERVICE_SET,
    Contract,
)
from windfall.provisioner.manifests.k0rdent import SERVICES_PAUSED, K0rdentParameters
from windfall.provisioner.ownership import is_ours, owned_by
from windfall.provisioner.roster import counted_yet
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP

log = logging.getLogger(__name__)

_CONTROL_PLANE: Final = "cluster.x-k8s.io/control-plane"
_PAUSE_MANAGER: Final = "windfall-pause"
"""Field manager of the annotation that pauses services: what somebody else has paused stays so."""


class ClusterDeployments:
    """The :class:`~windfall.provisioner.counted.Counted` of the backend ``k0rdent``.

    Args:
        site: whose leases these are.
        namespace: of the objects.
        said: the backend's parameters.
    """

    platform = "k0rdent"

    def __init__(self, site: str, namespace: str, said: K0rdentParameters) -> None:
        self._site = site
        self._namespace = namespace
        self._said = said.named(site)
        self._spoken: Contract = {}
        self._upgrades: tuple[str, ...] = ()

    @property
    def cluster_name(self) -> str:
        return str(self._said.cluster)

    @property
    def name(self) -> str:
        return self.cluster_name

    def describe(self) -> str:
        there = f"; upgrades that wait for a person: {', '.join(self._upgrades)}" if self._upgrades else ""
        return f"one worker of the ClusterDeployment {self.name} from the template {self._said.template}{there}"

    async def prepare(self, cluster: Cluster) -> tuple[Kind, Kind]:
        wanted = [CLUSTER_DEPLOYMENT, CLUSTER_TEMPLATE, CREDENTIAL, SERVICE_SET, MACHINE]
        self._spoken = await spoken(cluster, [*wanted, MULTI_CLUSTER_SERVICE] if self._said.add_ons else wanted)
        return self._spoken[CLUSTER_DEPLOYMENT], self._spoken[MACHINE]

    def machine_labels(self) -> str:
        return f"{CLUSTER_NAME}={self.cluster_name},!{_CONTROL_PLANE}"

    def beside(self) -> Mapping[Kind, str]:
        return {}

    def explained(self, machine: Machine, beside: Beside) -> Machine:
        return machine

    async def tend(self, cluster: Cluster, machines: Sequence[Machine], beside: Beside) -> None:
        """What is beside its machines, k0rdent's template keeps."""

    async def ensure(self, cluster: Cluster, owner: Object, *, dry_run: bool = False) -> Sequence[Object]:
        kind = self._spoken[CLUSTER_DEPLOYMENT]
        found = await cluster.get(kind, self.name, self._namespace)
        self._may_be_used(found)
        written: list[Object] = []
        if self._said.identity:
            made = manifests.credential(self._site, self._namespace, self._said.credential, self._said.identity)
            await self._is_free(cluster, self._spoken[CREDENTIAL], made)
            applied = await cluster.apply(self._spoken[CREDENTIAL], owned_by(made, owner), force=True, dry_run=dry_run)
            written.append(applied)
        if not dry_run:
            await self._check_template(cluster)
            await self._check_credential(cluster)
            await self._pause_services(cluster)
        whole = owned_by(manifests.cluster_deployment(self._site, self._namespace, self._said), owner)
        if dry_run:
            # What k0rdent itself would only check.
            trial = {**whole, "spec": {**whole["spec"], "dryRun": True}}
            return [*written, await cluster.apply(kind, trial, force=True, dry_run=True)]
        references = manifests.kubeconfig_references(self._site, self._namespace, [self.name])
        written.append(await cluster.apply(CONFIG_MAP, owned_by(references, owner), force=True))
        if self._said.add_ons:
            named = f"windfall-{self._site}"
            services = manifests.multi_cluster_service(self._site, named, self._said.add_ons)
            written.append(await cluster.apply(self._spoken[MULTI_CLUSTER_SERVICE], services, force=True))
        if not counted_yet(found, self.count(found) if found else None):
            config = manifests.merged(whole["spec"].get("config", {}), self.counting(0)["config"])
            whole = {**whole, "spec": {**whole["spec"], "config": config}}
        if found and found["spec"]["template"] != self._said.template:
            log.warning("%s goes from the template %s to %s", self.name, found["spec"]["template"], self._said.template)
        written.append(await cluster.apply(kind, whole, force=True))
        if self._said.dry_run:
            raise Mistake(
                f"the ClusterDeployment {self.name} is on trial ({self.hindrance(written[-1]) or 'no fault so far'})",
                "Take dryRun out of the parameters once k0rdent finds no fault with it",
            )
        return written

    def count(self, found: Object) -> int | None:
        return manifests.count_of(found, self._said.workers)

    def counting(self, count: int) -> Object:
        return manifests.counted(self._said.workers, count)

    def hindrance(self, found: Object) -> str:
        self._upgrades = tuple((found.get("status") or {}).get("availableUpgrades") or ())
        conditions = current(found)
        paused = conditions.get("Paused")
        if paused is not None and paused["status"] == "True":
            return line(paused)
        for name, condition in conditions.items():
            if name not in ("Ready", "Paused", "Deleting") and condition["status"] == "False":
                return line(condition)
        ready = conditions.get("Ready")
        return line(ready) if ready is not None and ready["status"] != "True" else ""

    async def idle(self, cluster: Cluster, found: Object) -> None:
        """Scaled to no workers, which has been done, or deleted as a whole."""
        if self._said.when_idle == "delete":
            kind = self._spoken[CLUSTER_DEPLOYMENT]
            await cluster.delete(kind, self.name, self._namespace, uid=found["metadata"]["uid"])

    # --- what must be so ----------------------------------------------------------------------------------------------

    def _may_be_used(self, found: Object | None) -> None:
        if found is None:
            return
        if not is_ours(found, self._site):
            raise Mistake(
                f"the ClusterDeployment {self.name} in {self._namespace} is not this site's",
                "Name another one as cluster",
            )
        if found["metadata"].get("deletionTimestamp"):
            raise Outage(f"the ClusterDeployment {self.name} is still being deleted")
        if region := (found.get("status") or {}).get("region"):
            raise Mistake(
                f"the ClusterDeployment {self.name} is in the region {region}: its machines are not on this server",
                "Let the provisioner of this site speak with the regional cluster, by the cluster-api backend",
            )
        self.hindrance(found)
        paused = current(found).get("Paused")
        if paused is not None and paused["status"] == "True":
            raise Outage(f"the ClusterDeployment {self.name}: {line(paused)}")

    async def _is_free(self, cluster: Cluster, kind: Kind, made: Object) -> None:
        found = await cluster.get(kind, made["metadata"]["name"], self._namespace)
        if found is not None and not is_ours(found, self._site):
            raise Mistake(
                f"the {kind.kind} {made['metadata']['name']} in {self._namespace} is not this site's",
                "Take identity out of the parameters to use it as it is",
            )

    async def _check_template(self, cluster: Cluster) -> None:
        template = await cluster.get(self._spoken[CLUSTER_TEMPLATE], self._said.template, self._namespace)
        if template is None:
            raise Mistake(
                f"there is no ClusterTemplate {self._said.template} in {self._namespace}",
                "Install it, or name one that `kubectl get clustertemplates` shows",
            )
        status = template.get("status") or {}
        if status.get("validationError"):
            raise Mistake(
                f"the ClusterTemplate {self._said.template} is not valid: {status['validationError']}",
                "Install what it needs, or name another one",
            )
        if not status.get("valid"):
            raise Outage(f"the ClusterTemplate {self._said.template} has not been checked by k0rdent yet")

    async def _check_credential(self, cluster: Cluster) -> None:
        found = await cluster.get(self._spoken[CREDENTIAL], self._said.credential, self._namespace)
        if found is None:
            raise Mistake(
                f"there is no Credential {self._said.credential} in {self._namespace}",
                "Create it, or say by identity what it is made of",
            )
        if not (found.get("status") or {}).get("ready"):
            said = [line(condition) for condition in current(found).values() if condition["status"] != "True"]
            raise Outage(f"the Credential {self._said.credential} is not ready: {'; '.join(said) or 'not checked yet'}")

    async def _pause_services(self, cluster: Cluster) -> None:
        kind = self._spoken[SERVICE_SET]
        for found in (await cluster.list(kind, self._namespace)).items:
            if (found.get("spec") or {}).get("cluster") != self.name:
                continue
            metadata = {key: found["metadata"][key] for key in ("name", "namespace", "uid")}
            if self._said.paused:
                metadata["annotations"] = {SERVICES_PAUSED: "true"}
            managers = {entry.get("manager") for entry in found["metadata"].get("managedFields") or ()}
            if self._said.paused or _PAUSE_MANAGER in managers:
                whole = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
                await cluster.apply(kind, whole, manager=_PAUSE_MANAGER, force=True)
        if self._said.paused:
            raise Outage(f"the ClusterDeployment {self.name} is paused by its parameters")
