"""Everything that a federation with ``engine: flower`` is made of."""

from collections.abc import Iterable

from windfall.contracts.resources import Federation
from windfall.contracts.resources.flower import Flower
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.flower import pool as pools
from windfall.provisioner.operator.flower.dialect import Dialect, spoken
from windfall.provisioner.operator.flower.node_config import placeholders, rendered
from windfall.provisioner.operator.flower.superlink import name_of as superlink_name
from windfall.provisioner.operator.flower.superlink import superlink
from windfall.provisioner.operator.marks import LONGEST_DAEMON_SET, LONGEST_STATEFUL_SET
from windfall.provisioner.operator.selection import Choice
from windfall.servicekit.kube import Object


def faults(federation: Federation, flower: Flower, facts: Facts) -> list[str]:
    """What a schema cannot say: each with its cure."""
    found = []
    if not spoken(flower.version):
        found.append(f"version {flower.version} of Flower is not known here; use one before 1.35 or from 1.40 on")
    stateful = flower.mode == "StatefulSet"
    longest = LONGEST_STATEFUL_SET if stateful else LONGEST_DAEMON_SET
    names = [(superlink_name(federation), LONGEST_STATEFUL_SET)]
    names += [(pools.name_of(federation, pool), longest) for pool in flower.supernodes.pools]
    found += [
        f"the name {name} has {len(name)} characters, {most} at most; shorten the federation's or the pool's"
        for name, most in names
        if len(name) > most
    ]
    for pool in flower.supernodes.pools:
        try:
            rendered(pool)
        except ValueError as error:
            found.append(str(error))
        if "index" in placeholders(pool):
            if not stateful:
                found.append(f"nodeConfig of pool {pool.name}: {{index}} goes with mode StatefulSet; use {{node}}")
            elif not facts.names_pods_by_index:
                found.append(
                    f"nodeConfig of pool {pool.name}: {{index}} needs Kubernetes 1.28; this is 1.{facts.minor}; "
                    "make one pool for each node"
                )
    return found


def desired(
    federation: Federation, flower: Flower, choices: Iterable[Choice], facts: Facts, nodes_left: int = 0
) -> tuple[list[Object], list[pools.Run]]:
    """The objects, and how each pool runs.

    Args:
        nodes_left: SuperNodes that are still there: a SuperLink that is suspended stays until the last has handed in.
    """
    sites = list(choices)
    runs = [pools.running(federation, pool, sites) for pool in flower.supernodes.pools]
    objects = superlink(federation, flower, facts, replicas=0 if federation.spec.suspend and not nodes_left else 1)
    for run in runs:
        objects += pools.supernodes(federation, flower, facts, run)
    return objects, runs


def serves_all_on_one_port(flower: Flower) -> bool:
    return Dialect(flower, "").new
