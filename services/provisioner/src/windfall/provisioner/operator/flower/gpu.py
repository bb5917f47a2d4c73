"""What a container gets of its node's devices."""

from typing import Any, Final

from windfall.contracts.resources.flower import Gpu

_RESOURCES: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_DEVICES: Final = {"dev-dri": "/dev/dri", "dev-kfd": "/dev/kfd"}


def asked(gpu: Gpu) -> dict[str, int]:
    """What the scheduler is asked for."""
    if not gpu.enabled or gpu.mount_all:
        return {}
    return {gpu.resource_name or _RESOURCES[gpu.vendor or "nvidia"]: gpu.count}


def on_container(gpu: Gpu) -> dict[str, Any]:
    """Fields of the one container that computes."""
    if not gpu.enabled:
        return {}
    if not gpu.mount_all:
        counts = {name: str(count) for name, count in asked(gpu).items()}
        return {"resources": {"limits": counts, "requests": counts}}
    if gpu.vendor == "nvidia":
        return {
            "env": [
                {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
                {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            ]
        }
    return {
        "securityContext": {"privileged": True, "allowPrivilegeEscalation": True},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in sorted(_DEVICES.items())],
    }


def on_pod(gpu: Gpu) -> dict[str, Any]:
    """Fields of its pod."""
    if not (gpu.enabled and gpu.mount_all):
        return {}
    if gpu.vendor == "nvidia":
        return {"runtimeClassName": "nvidia"}
    return {"volumes": [{"name": name, "hostPath": {"path": path}} for name, path in sorted(_DEVICES.items())]}
