"""A site's pool of machines that are reached by SSH, kept on the API server as :mod:`~windfall.provisioner.remote_pool`
decides."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from windfall.provisioner import remote_pool
from windfall.provisioner.counted import Beside
from windfall.provisioner.machine import Machine
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.contracts import POOLED_MACHINE, REMOTE_MACHINE, Contract
from windfall.provisioner.manifests.labels import at_version, lease_annotations, lease_labels, selector, site_labels
from windfall.provisioner.manifests.pooled_machines import Place, pooled, pooled_name
from windfall.provisioner.ownership import is_ours
from windfall.servicekit.kube import Absent, Cluster, Object

log = logging.getLogger(__name__)


class RemotePool:
    """See the module. Every method raises ``Transient`` or ``Mistake`` as :class:`Cluster` does.

    Args:
        site: whose machines these are.
        namespace: of the objects.
        said: the backend's parameters, with every name.
        spoken: the versions that the server is spoken to in.
        remotes: the selector of the RemoteMachines.
    """

    def __init__(self, site: str, namespace: str, said: ClusterApiParameters, spoken: Contract, remotes: str) -> None:
        self._site = site
        self._namespace = namespace
        self._said = said
        self._spoken = spoken
        self._remotes = remotes
        self._pooled = spoken[POOLED_MACHINE]
        # A pool of a name of its own holds this site's machines, and no other site need hear of them.
        self.labels = selector(site_labels(site)) if said.machines and said.pool == said.cluster else ""
        """The selector of the pool's machines."""
        self._remote = spoken[REMOTE_MACHINE]

    async def places(self, cluster: Cluster) -> Mapping[str, Place]:
        """Where the site's machines should stand now; asked for, because what the watches will say may be late."""
        found = (await cluster.list(self._pooled, self._namespace, labels=self.labels)).items
        remotes = (await cluster.list(self._remote, self._namespace, labels=self._remotes)).items
        return self._places(found, remotes)

    def explained(self, machine: Machine, beside: Beside) -> Machine:
        """As the port has it."""
        found = [remote_pool.pooled(each) for each in beside[self._pooled].values()]
        return remote_pool.explained(machine, found, map(remote_pool.remote, beside[self._remote].values()))

    async def tend(self, cluster: Cluster, machines: Sequence[Machine], beside: Beside) -> None:
        """Say whose each RemoteMachine is, move machines that did not answer, and take out those that are in the
        settings no more."""
        remotes = beside[self._remote]
        for machine, remote in remote_pool.unlabelled(machines, map(remote_pool.remote, remotes.values())):
            await self._label(cluster, machine, remotes[remote.name])
        found = beside[self._pooled]
        for name, place in self._places(found.values(), remotes.values()).items():
            before = remote_pool.pooled(found[name])
            if place != Place(before.pool, before.unreachable):
                await self._move(cluster, found[name], place)
        ours = [remote_pool.pooled(each) for each in found.values() if is_ours(each, self._site)]
        for name in remote_pool.gone(ours, self._named):
            log.info("%s is in the settings no more and leaves the pool", name)
            await cluster.delete(self._pooled, name, self._namespace, uid=found[name]["metadata"]["uid"])

    @property
    def _named(self) -> set[str]:
        return {pooled_name(str(self._said.cluster), machine) for machine in self._said.machines}

    def _places(self, found: Iterable[Object], remotes: Iterable[Object]) -> Mapping[str, Place]:
        ours = [remote_pool.pooled(each) for each in found if is_ours(each, self._site)]
        kept = [each for each in ours if each.name in self._named]
        return remote_pool.places(str(self._said.pool), kept, map(remote_pool.remote, remotes))

    async def _label(self, cluster: Cluster, machine: Machine, found: Object) -> None:
        assert machine.node is not None
        metadata = {
            "labels": lease_labels(machine.node, self._site),
            "annotations": lease_annotations(machine.node),
            "uid": found["metadata"]["uid"],
        }
        try:
            await cluster.patch(self._remote, found["metadata"]["name"], self._namespace, {"metadata": metadata})
        except Absent:
            log.info("%s has gone already", found["metadata"]["name"])

    async def _move(self, cluster: Cluster, found: Object, place: Place) -> None:
        """Whoever takes it at the same moment is first, and its place is decided anew."""
        metadata = found["metadata"]
        name = metadata["name"]
        machine = next(each for each in self._said.machines if pooled_name(str(self._said.cluster), each) == name)
        log.info("%s goes to the pool %s: %s", name, place.pool, place.unreachable or "it answers")
        whole = pooled(self._site, self._namespace, self._said, self._spoken, machine, {name: place})
        kept = ("apiVersion", "kind", "name", "uid")
        owners = [{key: owner[key] for key in kept} for owner in metadata.get("ownerReferences") or ()]
        whole["metadata"] |= {"ownerReferences": owners, "uid": metadata["uid"]}
        await cluster.apply(self._pooled, at_version(whole, metadata["resourceVersion"]), force=True)
