"""A coordinator that the operator makes, towards the NATS server of the hub's chart."""

from typing import Any

from windfall.contracts.resources import Federation
from windfall.contracts.resources.federation import CoordinatorPod
from windfall.provisioner.operator import coordinator
from windfall.provisioner.operator.facts import Facts
from windfall.servicekit.settings import Settings, load


def made(**pod: Any) -> dict[str, Any]:
    """The environment and the pod of a coordinator."""
    told = CoordinatorPod.model_validate(pod)
    document = {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "f", "namespace": "windfall", "uid": "u"},
        "spec": {"coordinator": pod},
    }
    objects = coordinator.desired(Federation.model_validate(document), told, (), Facts.of("v1.30.0"))
    (config,) = (obj for obj in objects if obj["kind"] == "ConfigMap" and obj["metadata"]["name"] == "f-coordinator")
    (workload,) = (obj for obj in objects if obj["kind"] == "StatefulSet")
    return {"environment": config["data"], "pod": workload["spec"]["template"]["spec"]}


def test_it_shows_its_certificate_and_signs_with_its_own_seed_alone() -> None:
    found = made(
        natsUrl="tls://windfall-hub-nats:4222",
        natsTlsFirst=True,
        natsReplicas=3,
        tlsSecretName="hub-tls",
        nkeySecretName="nkeys",
    )
    settings = load(Settings, found["environment"])
    access = settings.nats_access
    assert str(access.tls.certificate) == "/etc/windfall/tls/tls.crt" and access.handshake_first
    assert str(access.nkey) == "/etc/windfall/nkey/federation-coordinator.nk" and settings.nats_replicas == 3
    volumes = {volume["name"]: volume.get("secret") for volume in found["pod"]["volumes"]}
    assert volumes["nkey"]["items"] == [{"key": "federation-coordinator.nk", "path": "federation-coordinator.nk"}]
    mounts = {mount["name"]: mount for mount in found["pod"]["containers"][0]["volumeMounts"]}
    assert mounts["nkey"]["readOnly"] and mounts["tls"]["mountPath"] == "/etc/windfall/tls"


def test_an_open_server_is_shown_nothing() -> None:
    found = made(tlsSecretName="hub-tls")
    assert not [
        name for name in found["environment"] if name.startswith("WINDFALL_NATS_") and name != "WINDFALL_NATS_URL"
    ]
    assert "nkey" not in {volume["name"] for volume in found["pod"]["volumes"]}
