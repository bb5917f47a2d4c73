"""Flower's server: one pod whose runs are on a volume, its Service, and what protects it."""

from collections.abc import Mapping
from typing import Any, Final

from windfall.contracts.resources import Federation
from windfall.contracts.resources.flower import Flower
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.flower.dialect import STATE_FILE, TLS_FOLDER, Dialect
from windfall.provisioner.operator.marks import FEDERATION, labels_of, made
from windfall.provisioner.operator.merging import joined
from windfall.provisioner.operator.pods import POD_RESTRICTED, container, plain, template
from windfall.provisioner.operator.state_claim import state_claim
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import SERVICE, STATEFUL_SET

COMPONENT: Final = "superlink"
_END_S: Final = 60
_FLOWER_GROUP: Final = 49999
"""Of the user ``app`` in Flower's images: the volume is the group's."""


def name_of(federation: Federation) -> str:
    return f"{federation.metadata.name}-superlink"


def superlink(federation: Federation, flower: Flower, facts: Facts, replicas: int) -> list[Object]:
    name = name_of(federation)
    labels = labels_of(federation.metadata, COMPONENT)
    dialect = Dialect(flower, name)
    objects = [
        _stateful_set(federation, flower, dialect, labels, replicas),
        _service(federation, flower, dialect, labels),
        # The governing Service of the StatefulSet: its pods' names resolve before they are ready.
        made(
            SERVICE,
            f"{name}-pods",
            FEDERATION,
            federation.metadata,
            labels,
            spec={
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": labels,
                "ports": _ports(dialect),
            },
        ),
        made(
            facts.pdb,
            name,
            FEDERATION,
            federation.metadata,
            labels,
            spec={"minAvailable": 1, "selector": {"matchLabels": labels}},
        ),
    ]
    if flower.superlink.database is not None:
        objects.append(_claim(federation, flower, labels))
    return objects


def _stateful_set(
    federation: Federation, flower: Flower, dialect: Dialect, labels: Mapping[str, str], replicas: int
) -> Object:
    link, name = flower.superlink, name_of(federation)
    secret = [] if flower.tls is None else [{"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}]
    state = [{"name": "state", "mountPath": STATE_FILE.rpartition("/")[0]}] if link.database else []
    knock = {"tcpSocket": {"port": "fleet"}}
    containers = [
        container(
            "superlink",
            link.image,
            "flower-superlink",
            dialect.superlink(),
            env=[plain(link.env)],
            resources=link.resources,
            mounts=link.volume_mounts,
            ours=[*secret, *state],
            ports=[
                {"name": port, "containerPort": number, "protocol": "TCP"} for port, number in dialect.ports.items()
            ],
            startupProbe={**knock, "periodSeconds": 2, "failureThreshold": 90},
            readinessProbe={**knock, "periodSeconds": 5},
            livenessProbe={**knock, "periodSeconds": 10, "failureThreshold": 6},
        )
    ]
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _END_S,
        "securityContext": {**POD_RESTRICTED, "fsGroup": _FLOWER_GROUP},
        "containers": containers,
        "volumes": _volumes(federation, flower),
    }
    if flower.isolation_mode == "process":
        mounts = link.volume_mounts if link.superexec_volume_mounts is None else link.superexec_volume_mounts
        containers.append(
            container(
                "superexec-serverapp",
                link.superexec_image,
                "flower-superexec",
                dialect.superexec_server_app(),
                env=[plain(link.env)],
                resources=link.superexec_resources,
                mounts=mounts,
                ours=secret,
            )
        )
        pod["hostAliases"] = [{"ip": "127.0.0.1", "hostnames": [name]}]
    spec: dict[str, Any] = {
        "replicas": replicas,
        "serviceName": f"{name}-pods",
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": dict(labels)},
        "template": template(labels, pod, link.pod_template),
    }
    if link.volume_claim_templates:
        spec["volumeClaimTemplates"] = [
            {
                "metadata": one["metadata"] | {"labels": {**one["metadata"].get("labels", {}), **labels}},
                "spec": one["spec"],
            }
            for one in plain(link.volume_claim_templates)
        ]
    return made(STATEFUL_SET, name, FEDERATION, federation.metadata, dict(labels), spec=spec)


def _volumes(federation: Federation, flower: Flower) -> list[dict[str, Any]]:
    ours: list[dict[str, Any]] = []
    if flower.tls is not None:
        ours.append({"name": "tls", "secret": {"secretName": flower.tls.secret_name, "defaultMode": 0o440}})
    if flower.superlink.database is not None:
        ours.append({"name": "state", "persistentVolumeClaim": {"claimName": f"{name_of(federation)}-state"}})
    return joined("volumes", ours, plain(flower.superlink.volumes))


def _ports(dialect: Dialect) -> list[dict[str, Any]]:
    return [
        {"name": port, "port": number, "targetPort": port, "protocol": "TCP"} for port, number in dialect.ports.items()
    ]


def _service(federation: Federation, flower: Flower, dialect: Dialect, labels: Mapping[str, str]) -> Object:
    service = flower.superlink.service
    obj = made(
        SERVICE,
        name_of(federation),
        FEDERATION,
        federation.metadata,
        {**service.labels, **labels},
        spec={
            "type": service.type,
            "selector": dict(labels),
            "ports": _ports(dialect),
        },
    )
    if service.annotations:
        obj["metadata"]["annotations"] = dict(service.annotations)
    return obj


def _claim(federation: Federation, flower: Flower, labels: Mapping[str, str]) -> Object:
    database = flower.superlink.database
    assert database is not None
    kept = database.when_deleted == "Retain"
    return state_claim(
        name_of(federation), federation.metadata, labels, str(database.size), database.storage_class_name, kept
    )
