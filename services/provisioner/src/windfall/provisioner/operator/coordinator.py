"""Everything that a federation with ``engine: windfall`` is made of: its coordinator, and a word to every site that it
uses."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from windfall.contracts.resources import Federation
from windfall.contracts.resources.federation import CoordinatorPod
from windfall.contracts.resources.fields import iso
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.marks import FEDERATION, LONGEST_STATEFUL_SET, SITE_LABEL, labels_of, made
from windfall.provisioner.operator.pods import RESTRICTED, container, plain, template
from windfall.provisioner.operator.selection import Choice
from windfall.provisioner.operator.state_claim import state_claim
from windfall.provisioner.operator.telemetry import passed_on
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, SERVICE, STATEFUL_SET

COMPONENT: Final = "coordinator"
_HEALTH_PORT: Final = 8081
_STATE: Final = "/var/lib/windfall"
_TLS: Final = "/etc/windfall/tls"
_NKEY_DIR: Final = "/etc/windfall/nkey"
_NKEY: Final = "federation-coordinator.nk"
_GROUP: Final = 65532
_END: Final = timedelta(minutes=1)
_TLS_FILES: Final = {"CERTIFICATE": "tls.crt", "KEY": "tls.key", "AUTHORITY": "ca.crt"}


def name_of(federation: Federation) -> str:
    return f"{federation.metadata.name}-coordinator"


def address(federation: Federation, pod: CoordinatorPod) -> str:
    """Where sites reach it."""
    return pod.address or f"{name_of(federation)}.{federation.metadata.namespace}.svc:{pod.port}"


def faults(federation: Federation) -> list[str]:
    """What a schema cannot say: each with its cure."""
    name = name_of(federation)
    if len(name) > LONGEST_STATEFUL_SET:
        return [f"the name {name} has {len(name)} characters, {LONGEST_STATEFUL_SET} at most; shorten the federation's"]
    ours = set(_fixed(federation, CoordinatorPod(insecure=True))) & set(federation.spec.settings)
    return [f"settings: {name} is the operator's to say; leave it out" for name in sorted(ours)]


def desired(federation: Federation, pod: CoordinatorPod, choices: Iterable[Choice], facts: Facts) -> list[Object]:
    used = [choice for choice in choices if choice.used]
    labels = labels_of(federation.metadata, COMPONENT)
    authority = f"{_TLS}/{_TLS_FILES['AUTHORITY']}" if pod.tls_secret_name else ""
    settings = passed_on(facts.environment, authority) | coordinator_settings(federation, pod, used)
    objects = [
        _config(federation, name_of(federation), labels, settings),
        _stateful_set(federation, pod, labels, settings),
        _service(federation, pod, labels),
        made(
            SERVICE,
            f"{name_of(federation)}-pods",
            FEDERATION,
            federation.metadata,
            labels,
            spec={"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels, "ports": _ports(pod)},
        ),
        made(
            facts.pdb,
            name_of(federation),
            FEDERATION,
            federation.metadata,
            labels,
            spec={"minAvailable": 1, "selector": {"matchLabels": labels}},
        ),
        _claim(federation, pod, labels),
    ]
    for choice in used:
        site = choice.site.metadata.name
        objects.append(
            _config(
                federation,
                f"{federation.metadata.name}-site-{site}",
                labels_of(federation.metadata, "site", **{SITE_LABEL: site}),
                site_settings(federation, pod, choice),
            )
        )
    return objects


def coordinator_settings(federation: Federation, pod: CoordinatorPod, used: Iterable[Choice]) -> dict[str, str]:
    """The coordinator's environment."""
    spec = federation.spec
    told: dict[str, object] = {
        "TASK": spec.task,
        "TASK_SETTINGS": json.dumps(spec.task_settings, sort_keys=True) if spec.task_settings else None,
        "SEED": spec.seed or None,
        "CODEC": spec.codec,
        "OUTER": spec.outer,
        "MERGE": spec.merge,
        "CLIP": spec.clip or None,
        "JURISDICTION": spec.jurisdiction,
        "JURISDICTIONS": ",".join(sorted(spec.allowed_jurisdictions)),
        "ROUND_LENGTH": spec.rounds.length,
        "ROUND_STEPS": spec.rounds.steps,
        "ROUND_TOKENS": spec.rounds.tokens,
        "ALONE": spec.rounds.alone,
        "ALONE_CODEC": spec.rounds.alone_codec,
        "MINIMUM_SITES": spec.rounds.minimum_sites,
        "MAXIMUM_SITES": spec.rounds.maximum_sites,
        "STRAGGLER_GRACE": spec.rounds.straggler_grace,
        "STRAGGLER_LIMIT": spec.rounds.straggler_limit,
        "ROUNDS_LATE": spec.rounds.rounds_late,
        "OVERLAP": spec.rounds.overlap or None,
        "OBJECTIVE": spec.objective.kind,
        "WORK_TOKENS": spec.objective.work_tokens,
        "DEADLINE": spec.objective.deadline,
        "BUDGET_KG": spec.objective.budget_kg,
        "STOP_TOKENS": spec.stop.tokens,
        "STOP_LOSS": spec.stop.loss,
        "STOP_AT": spec.stop.at,
        "STOP_KG": spec.stop.kg,
        "SITES": ",".join(sorted(choice.site.metadata.name for choice in used)),
    }
    return environment_of(told) | dict(spec.settings) | _fixed(federation, pod)


def site_settings(federation: Federation, pod: CoordinatorPod, choice: Choice) -> dict[str, str]:
    """What a site's provisioner and profiler are told of the federation: ``WINDFALL_TRAINER_X`` is its nodes' ``X``."""
    trainer = {
        "WINDFALL_TRAINER_" + key.removeprefix("WINDFALL_"): value
        for key, value in federation.spec.trainer_settings.items()
    }
    told: dict[str, object] = {
        "COORDINATOR": address(federation, pod),
        "TRAINER_COORDINATOR": address(federation, pod),
        "TRAINER_FEDERATION": federation.metadata.name,
        "TRAINER_DATA_DIR": None if choice.data is None else choice.data.path,
        "TRAINER_SEED": federation.spec.seed or None,
    }
    return trainer | environment_of(told)


def environment_of(told: Mapping[str, object]) -> dict[str, str]:
    """Settings as variables, by name; what is not told is left out."""
    return {
        f"WINDFALL_{name}": _said(value) for name, value in sorted(told.items()) if value is not None and value != ""
    }


def _said(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case timedelta():
            return iso(value)
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


def _fixed(federation: Federation, pod: CoordinatorPod) -> dict[str, str]:
    told: dict[str, object] = {
        "FEDERATION": federation.metadata.name,
        "NATS_URL": pod.nats_url,
        "NATS_REPLICAS": pod.nats_replicas if pod.nats_replicas > 1 else None,
        "NATS_TLS_FIRST": True if pod.nats_tls_first else None,
        "NATS_NKEY_FILE": f"{_NKEY_DIR}/{_NKEY}" if pod.nkey_secret_name else None,
        "STATE_DIR": _STATE,
        "HEALTH_PORT": _HEALTH_PORT,
        "LISTEN": f"0.0.0.0:{pod.port}",
        "INSECURE": True if pod.insecure else None,
    }
    if pod.tls_secret_name:
        told |= {f"TLS_{name}": f"{_TLS}/{file}" for name, file in _TLS_FILES.items()}
        if pod.nats_url.startswith("tls://"):
            told |= {f"NATS_{name}": f"{_TLS}/{file}" for name, file in _TLS_FILES.items()}
    return environment_of(told)


def _config(federation: Federation, name: str, labels: Mapping[str, str], data: Mapping[str, str]) -> Object:
    return made(CONFIG_MAP, name, FEDERATION, federation.metadata, dict(labels), data=dict(sorted(data.items())))


def _stateful_set(
    federation: Federation, pod: CoordinatorPod, labels: Mapping[str, str], settings: Mapping[str, str]
) -> Object:
    name = name_of(federation)
    secrets = {"tls": (pod.tls_secret_name, _TLS), "nkey": (pod.nkey_secret_name, _NKEY_DIR)}
    named = {part: told for part, told in secrets.items() if told[0]}
    secret = [{"name": part, "mountPath": folder, "readOnly": True} for part, (_, folder) in named.items()]
    made_container = container(
        "coordinator",
        pod.image,
        "python",
        ["-m", "windfall.federation_coordinator"],
        env=[plain(pod.env)],
        resources=pod.resources,
        ours=[*secret, {"name": "state", "mountPath": _STATE}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        envFrom=[{"configMapRef": {"name": name}}],
        ports=[{"name": "training", "containerPort": pod.port, "protocol": "TCP"}],
        readinessProbe={**_probe("readyz"), "periodSeconds": 5},
        livenessProbe={**_probe("livez"), "periodSeconds": 10, "failureThreshold": 6},
        startupProbe={**_probe("livez"), "periodSeconds": 2, "failureThreshold": 150},
    )
    made_container["securityContext"] = {**RESTRICTED, "readOnlyRootFilesystem": True}
    volumes: list[dict[str, Any]] = [
        {"name": "state", "persistentVolumeClaim": {"claimName": f"{name}-state"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    for part, (secret_name, _) in named.items():
        # Of the seeds that lie there this one alone.
        items = {"items": [{"key": _NKEY, "path": _NKEY}]} if part == "nkey" else {}
        volumes.append({"name": part, "secret": {"secretName": secret_name, "defaultMode": 0o440, **items}})
    end = _END if pod.drain is None else pod.drain
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": -int(-end.total_seconds() // 1),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _GROUP,
            "fsGroup": _GROUP,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [made_container],
        "volumes": volumes,
    }
    # Settings are read once: other ones are another pod.
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return made(
        STATEFUL_SET,
        name,
        FEDERATION,
        federation.metadata,
        dict(labels),
        spec={
            "replicas": 0 if federation.spec.suspend else 1,
            "serviceName": f"{name}-pods",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": dict(labels)},
            "template": template(labels, spec, pod.pod_template, {"windfall.dev/settings": digest[:16]}),
        },
    )


def _probe(question: str) -> dict[str, Any]:
    # Health is answered on loopback alone, where the kubelet cannot ask.
    return {"exec": {"command": ["windfall-health", question]}, "timeoutSeconds": 6}


def _ports(pod: CoordinatorPod) -> list[dict[str, Any]]:
    return [{"name": "training", "port": pod.port, "targetPort": "training", "protocol": "TCP"}]


def _service(federation: Federation, pod: CoordinatorPod, labels: Mapping[str, str]) -> Object:
    spec = {"type": pod.service_type, "selector": dict(labels), "ports": _ports(pod)}
    return made(SERVICE, name_of(federation), FEDERATION, federation.metadata, dict(labels), spec=spec)


def _claim(federation: Federation, pod: CoordinatorPod, labels: Mapping[str, str]) -> Object:
    kept = pod.when_deleted == "Retain"
    return state_claim(name_of(federation), federation.metadata, labels, str(pod.storage), pod.storage_class_name, kept)
