"""Kubernetes' Pod Security profile *restricted* (and so *baseline*), as https://kubernetes.io/docs/concepts/security/pod-security-standards
has it for Linux pods, as a pure function."""

from collections.abc import Iterator
from typing import Any, Final

VOLUMES: Final = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
    }
)


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What the admission controller would refuse a pod's specification for."""
    security = pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", ()):
        (kind,) = volume.keys() - {"name"}
        if kind not in VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    if any(sysctl["name"] not in _SYSCTLS for sysctl in security.get("sysctls", ())):
        yield "sysctls"
    if "windowsOptions" in security:
        yield "windowsOptions"
    for container in (*pod["containers"], *pod.get("initContainers", ()), *pod.get("ephemeralContainers", ())):
        yield from (f"{container['name']}: {what}" for what in _of(container, security))


def _of(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as root"
    if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield "capabilities are not dropped"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
