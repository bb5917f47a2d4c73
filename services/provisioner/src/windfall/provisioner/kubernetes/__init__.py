"""Nodes that are pods of a site's own cluster: a Job for each worker of a lease, see
:mod:`windfall.provisioner.manifests.workload`.

The lease's ConfigMap stands for the node: it is written first, owns the rest, and goes last. What is there is told by
watches; what a start, a kill or an adoption has to be sure of is asked of the server itself.

``access`` connects and remembers what the server knows, ``refusing`` says what its refusals mean to a lease,
``choosing`` finds the machines, ``starting``, ``watching`` and ``ending`` are a node's life, ``backend`` is the port.
"""

from windfall.provisioner.kubernetes.backend import KubernetesBackend

__all__ = ["KubernetesBackend"]
