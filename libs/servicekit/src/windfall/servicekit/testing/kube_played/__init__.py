"""Plays the parts of a cluster that an API server alone does not have, for tests and rehearsals.

Always: a scheduler and kubelets, which bring pods up and let them end. On the double also the controllers of
StatefulSets, DaemonSets, Jobs, ReplicaSets and Deployments, as far as it takes to bring up pods and report on them; a
real control plane has its own. Everything goes through the API, as the real ones do.
"""

from windfall.servicekit.testing.kube_played.kubelet import Course, Kubelet, node
from windfall.servicekit.testing.kube_played.play import played

__all__ = ["Course", "Kubelet", "node", "played"]
