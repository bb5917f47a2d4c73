"""How containers and pod templates are put together, the same way every time."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from windfall.contracts.resources.pods import Mount, Resources
from windfall.provisioner.operator.merging import by_key, environment, overlaid

RESTRICTED: Final[dict[str, Any]] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_RESTRICTED: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def plain(parts: Iterable[BaseModel]) -> list[dict[str, Any]]:
    """As Kubernetes has them."""
    return [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in parts]


def container(
    name: str,
    image: str,
    command: str,
    args: list[str],
    *,
    env: Iterable[Iterable[Mapping[str, Any]]] = (),
    resources: Resources,
    mounts: Iterable[Mount] = (),
    ours: Iterable[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """A container by its arguments, never by a shell's line.

    Args:
        env: lists of variables, the later the stronger.
        ours: mounts that are made here.
        more: fields that have a value of their own; empty ones are left out.
    """
    wanted = resources.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    made = {
        "name": name,
        "image": image,
        "command": [command],
        "args": args,
        "env": environment(*env),
        "resources": {kind: {key: str(amount) for key, amount in amounts.items()} for kind, amounts in wanted.items()},
        "securityContext": RESTRICTED,
        "volumeMounts": by_key("volumeMounts", [*ours, *plain(mounts)]),
        **more,
    }
    return {key: value for key, value in made.items() if value or key == "image"}


def template(
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    theirs: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A pod template with a person's laid over it. The labels by which its owner finds the pods stay."""
    made: dict[str, Any] = {"metadata": {"labels": dict(labels)}, "spec": dict(spec)}
    if annotations:
        made["metadata"]["annotations"] = dict(annotations)
    merged = overlaid(made, theirs)
    merged["metadata"]["labels"] |= labels
    merged["spec"]["volumes"] = by_key("volumes", merged["spec"].get("volumes", ()))
    for one in merged["spec"]["containers"]:
        for port in one.get("ports", ()):
            # Part of the key by which the server tells ports apart; without it older ones refuse to.
            port.setdefault("protocol", "TCP")
        if "env" in one:
            one["env"] = environment(one["env"])
        if "volumeMounts" in one:
            one["volumeMounts"] = by_key("volumeMounts", one["volumeMounts"])
    if not merged["spec"]["volumes"]:
        del merged["spec"]["volumes"]
    return merged
