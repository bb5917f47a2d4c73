"""What is free on a node, from Node and Pod objects, and what a GPU is called."""

from decimal import Decimal
from typing import Any

import pytest

from windfall.provisioner.placement.gpus import Gpu, canonical_model, gpus_of
from windfall.provisioner.placement.nodes import Toleration, claimed, node_capacities

GIB = 2**30


def node(
    name: str = "n", *, gpus: int = 8, taints: list[dict[str, str]] | None = None, **spec: object
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "pool": "train"}},
        "spec": {"taints": taints or [], **spec},
        "status": {
            "allocatable": {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(gpus: int = 0, *, where: str | None = "n", phase: str = "Running", **spec: object) -> dict[str, Any]:
    resources = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": str(gpus)}}
    held = {"nodeName": where} if where else {}
    return {
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {**held, "containers": [{"resources": resources}], **spec},
        "status": {"phase": phase},
    }


def free_gpus(nodes: list[dict[str, Any]], pods: list[dict[str, Any]]) -> list[int]:
    return [int(each.free.of("nvidia.com/gpu")) for each in node_capacities(nodes, pods)]


def test_what_runs_is_taken_off_and_what_ended_is_not() -> None:
    (found,) = node_capacities([node()], [pod(2), pod(1, phase="Succeeded"), pod(1, phase="Failed"), pod(3, where="m")])
    assert found.free.of("nvidia.com/gpu") == 6
    assert found.free.of("cpu") == Decimal("63.5") and found.free.of("memory") == 511 * GIB
    assert found.free.of("pods") == 109 and found.ready and found.schedulable


def test_a_pod_that_waits_for_a_node_claims_one_already() -> None:
    nodes = [node("a", gpus=2), node("b", gpus=4)]
    assert free_gpus(nodes, [pod(4, where=None, phase="Pending")]) == [2, 0]
    assert free_gpus(nodes, [pod(4, where=None, nodeSelector={"pool": "other"})]) == [2, 4]
    assert free_gpus([node("a", taints=[{"key": "x", "effect": "NoSchedule"}])], [pod(4, where=None)]) == [8]
    nominated = pod(1, where=None)
    nominated["status"]["nominatedNodeName"] = "b"
    assert free_gpus(nodes, [nominated]) == [2, 3]


@pytest.mark.parametrize(
    ("term", "left"),
    [
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}, [4, 0]),
        ({"matchExpressions": [{"key": "size", "operator": "NotIn", "values": ["large"]}]}, [4, 0]),
        ({"matchExpressions": [{"key": "size", "operator": "DoesNotExist"}]}, [4, 0]),
        ({"matchExpressions": [{"key": "size", "operator": "Exists"}]}, [0, 4]),
        ({"matchExpressions": [{"key": "rank", "operator": "Gt", "values": ["1"]}]}, [4, 0]),
        ({"matchExpressions": [{"key": "rank", "operator": "Lt", "values": ["2"]}]}, [0, 4]),
        ({"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["1"]}]}, [4, 4]),
        ({"matchExpressions": [{"key": "size", "operator": "Like", "values": ["large"]}]}, [4, 4]),
        ({}, [4, 4]),
    ],
)
def test_a_pod_that_waits_claims_a_node_that_its_affinity_lets_it_onto(term: dict[str, Any], left: list[int]) -> None:
    nodes = [node("a", gpus=4), node("b", gpus=4)]
    nodes[0]["metadata"]["labels"] |= {"size": "large", "rank": "1"}
    nodes[1]["metadata"]["labels"] |= {"rank": "2"}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    waits = pod(4, where=None, phase="Pending", affinity={"nodeAffinity": required})
    assert free_gpus(nodes, [waits]) == left


def test_init_containers_and_sidecars_count_as_the_scheduler_counts_them() -> None:
    def asks(cpu: str, **more: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [asks("1"), asks("500m", restartPolicy="Always"), asks("4")],
        "containers": [asks("2"), asks("1")],
        "overhead": {"cpu": "250m"},
    }
    # The last init container runs beside the sidecar: 4.5, more than 3.5 of the steady state.
    assert claimed({"spec": spec}).of("cpu") == Decimal("4.75")
    spec["initContainers"] = [asks("500m", restartPolicy="Always")]
    assert claimed({"spec": spec}).of("cpu") == Decimal("3.75")


def test_taints_cordons_and_readiness_are_seen() -> None:
    cordoned = node("c", unschedulable=True)
    silent = node("s")
    silent["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    soft, hard = {"key": "soft", "effect": "PreferNoSchedule"}, {"key": "hard", "value": "1", "effect": "NoSchedule"}
    by_name = {each.name: each for each in node_capacities([cordoned, silent, node("t", taints=[soft, hard])], [])}
    assert not by_name["c"].schedulable and not by_name["s"].ready
    assert by_name["t"].taints == (("hard", "1", "NoSchedule"),)
    assert by_name["t"].unborne([Toleration("hard", "Equal", "2")]) is not None
    assert by_name["t"].unborne([Toleration("hard", "Equal", "1", "NoSchedule")]) is None
    assert by_name["t"].unborne([Toleration(operator="Exists")]) is None


def test_a_quantity_that_cannot_be_read_promises_nothing() -> None:
    odd = node()
    odd["status"]["allocatable"]["nvidia.com/gpu"] = "many"
    assert free_gpus([odd], []) == [0]


@pytest.mark.parametrize(
    ("product", "model"),
    [
        ("NVIDIA-A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("A100", "a100"),
        ("NVIDIA-H100-80GB-HBM3", "h100"),
        ("NVIDIA-H100-NVL", "h100"),
        ("NVIDIA-L40S", "l40s"),
        ("Tesla-T4-SHARED", "t4"),
        ("NVIDIA-GeForce-RTX-4090", "rtx-4090"),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "a100-mig-1g.10gb"),
        ("AMD_Instinct_MI300X_OAM", "mi300x"),
        ("AMD_Instinct_MI250X_/_MI250", "mi250x"),
        ("74a1", "mi300x"),
        ("0x740f", "mi210"),
        ("h100-sxm5-80gb", "h100"),
        ("Arcturus GL-XL [AMD Instinct MI100]", "mi100"),
        ("", ""),
    ],
)
def test_models_have_one_name(product: str, model: str) -> None:
    assert canonical_model(product) == model
    assert canonical_model(model) == model


def test_a_node_may_hold_both_vendors_and_slices() -> None:
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
        "nvidia.com/gpu.memory": "81920",
        "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
        "amd.com/gpu.vram": "192G",
    }
    allocatable = {"nvidia.com/gpu": "4", "amd.com/gpu": "8", "nvidia.com/mig-1g.10gb": "7"}
    whole, other, part = gpus_of(labels, allocatable)
    product = ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB")
    assert whole == Gpu("nvidia", "a100", "nvidia.com/gpu", 80 * GIB, "nvlink", (product,))
    assert (other.model, other.memory_bytes, other.interconnect) == ("mi300x", 192 * GIB, "xgmi")
    assert (part.model, part.memory_bytes, part.resource) == ("a100-mig-1g.10gb", 10 * GIB, "nvidia.com/mig-1g.10gb")


def test_what_an_operator_says_wins() -> None:
    labels = {
        "nvidia.com/gpu.product": "Tesla-T4",
        "windfall.dev/gpu.model": "l4",
        "windfall.dev/gpu.interconnect": "nvlink",
    }
    (found,) = gpus_of(labels, {"nvidia.com/gpu": "1"})
    assert (found.model, found.interconnect) == ("l4", "nvlink")
    assert found.selector == (("windfall.dev/gpu.model", "l4"),)
