"""SuperNodes that are alike: one workload, scaled by the window of the site that it stands at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from windfall.contracts.resources import Federation
from windfall.contracts.resources.flower import Flower, Pool
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.flower import drain, gpu
from windfall.provisioner.operator.flower.dialect import TLS_FOLDER, Dialect
from windfall.provisioner.operator.flower.node_config import rendered, variables
from windfall.provisioner.operator.flower.superlink import name_of as superlink_name
from windfall.provisioner.operator.marks import FEDERATION, POOL_LABEL, SITE_LABEL, SUSPENDED, labels_of, made
from windfall.provisioner.operator.merging import joined, overlaid
from windfall.provisioner.operator.pods import POD_RESTRICTED, container, plain, template
from windfall.provisioner.operator.selection import Choice
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import DAEMON_SET, SERVICE, STATEFUL_SET

COMPONENT: Final = "supernode"


@dataclass(frozen=True)
class Run:
    """Whether a pool runs now."""

    pool: Pool
    because: str = ""
    """Why it is at 0; empty when it runs."""

    @property
    def on(self) -> bool:
        return not self.because


def running(federation: Federation, pool: Pool, choices: Iterable[Choice]) -> Run:
    """The site's owner and the law come first, then its window."""
    if federation.metadata.going:
        return Run(pool, "the federation is being deleted")
    if federation.spec.suspend:
        return Run(pool, "the federation is suspended")
    if pool.site is None:
        return Run(pool)
    choice = next((choice for choice in choices if choice.site.metadata.name == pool.site), None)
    if choice is None:
        return Run(pool, f"there is no site {pool.site}")
    if not choice.used:
        return Run(pool, f"site {pool.site} is not used: {choice.reason}")
    window = choice.site.status.window
    if pool.follow_window and (window is None or window.state not in ("open", "closing")):
        return Run(pool, f"the window of site {pool.site} is {'not open' if window is None else window.state}")
    return Run(pool)


def name_of(federation: Federation, pool: Pool) -> str:
    return f"{federation.metadata.name}-supernode-{pool.name}"


def supernodes(federation: Federation, flower: Flower, facts: Facts, run: Run) -> list[Object]:
    pool, name = run.pool, name_of(federation, run.pool)
    more = {POOL_LABEL: pool.name, **({SITE_LABEL: pool.site} if pool.site else {})}
    labels = labels_of(federation.metadata, COMPONENT, **more)
    selector = {key: value for key, value in labels.items() if key != SITE_LABEL}
    pod = _template(federation, flower, run, labels)
    spec: dict[str, Any] = {"selector": {"matchLabels": selector}, "template": pod}
    objects = [
        made(
            facts.pdb,
            name,
            FEDERATION,
            federation.metadata,
            labels,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": selector}},
        )
    ]
    if flower.mode == "DaemonSet":
        return [made(DAEMON_SET, name, FEDERATION, federation.metadata, labels, spec=spec), *objects]
    spec |= {
        "replicas": (pool.replicas or 0) if run.on else 0,
        "serviceName": name,
        # A pod that has no node must not keep the others from coming.
        "podManagementPolicy": "Parallel",
    }
    if pool.volume_claim_templates:
        spec["volumeClaimTemplates"] = [_claim(one, labels) for one in plain(pool.volume_claim_templates)]
    headless = made(
        SERVICE,
        name,
        FEDERATION,
        federation.metadata,
        labels,
        spec={"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
    )
    return [made(STATEFUL_SET, name, FEDERATION, federation.metadata, labels, spec=spec), headless, *objects]


def _template(federation: Federation, flower: Flower, run: Run, labels: Mapping[str, str]) -> dict[str, Any]:
    pool, nodes = run.pool, flower.supernodes
    process = flower.isolation_mode == "process"
    dialect = Dialect(flower, superlink_name(federation))
    secret = [] if flower.tls is None else [{"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}]
    own = variables(pool)
    node = container(
        "supernode",
        pool.images.supernode or nodes.image,
        "flower-supernode",
        dialect.supernode(pool.extra_args, rendered(pool)),
        env=[plain(nodes.env), plain(pool.env), own],
        resources=pool.supernode_resources,
        mounts=pool.volume_mounts,
        ours=secret,
        lifecycle=drain.hook(pool),
    )
    containers = [node]
    if process:
        mounts = pool.volume_mounts if pool.superexec_volume_mounts is None else pool.superexec_volume_mounts
        containers.append(
            container(
                "superexec-clientapp",
                pool.images.super_exec_client_app,
                "flower-superexec",
                dialect.superexec_client_app(),
                env=[plain(nodes.env), plain(pool.env)],
                resources=pool.superexec_resources,
                mounts=mounts,
                lifecycle=drain.hook(pool),
            )
        )
    # Whoever runs the app computes.
    containers[-1] = overlaid(containers[-1], gpu.on_container(pool.gpu))
    device = gpu.on_pod(pool.gpu)
    tls = (
        []
        if flower.tls is None
        else [
            {
                "name": "tls",
                "secret": {
                    "secretName": flower.tls.secret_name,
                    "defaultMode": 0o444,
                    "items": [{"key": flower.tls.authority_key, "path": flower.tls.authority_key}],
                },
            }
        ]
    )
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": -int(-drain.grace(pool).total_seconds() // 1),
        "securityContext": POD_RESTRICTED,
        "containers": containers,
        **device,
        "volumes": joined("volumes", tls, device.get("volumes", ()), plain(pool.volumes)),
    }
    if process:
        # So that the SuperNode sees when the ClientApp beside it is done.
        pod["shareProcessNamespace"] = True
    made_template = template(labels, pod, pool.pod_template)
    if flower.mode == "DaemonSet" and not run.on:
        made_template["spec"]["nodeSelector"] = {**made_template["spec"].get("nodeSelector", {}), SUSPENDED: "true"}
    return made_template


def _claim(one: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "metadata": {**one["metadata"], "labels": {**one["metadata"].get("labels", {}), **labels}},
        "spec": one["spec"],
    }
