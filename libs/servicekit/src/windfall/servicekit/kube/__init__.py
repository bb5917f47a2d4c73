"""Kubernetes' API on the official client's asyncio part: objects are plain JSON, errors say what to do."""

from windfall.servicekit.kube.cluster import FIELD_MANAGER, STATUS_MANAGER, Cluster
from windfall.servicekit.kube.connection import Connection
from windfall.servicekit.kube.follow import Change, Listing
from windfall.servicekit.kube.kinds import Kind, Object
from windfall.servicekit.kube.refusals import Absent, Conflict, Exists

__all__ = [
    "FIELD_MANAGER",
    "STATUS_MANAGER",
    "Absent",
    "Change",
    "Cluster",
    "Conflict",
    "Connection",
    "Exists",
    "Kind",
    "Listing",
    "Object",
]
