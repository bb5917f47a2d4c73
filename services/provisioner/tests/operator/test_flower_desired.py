"""What a federation with ``engine: flower`` is made of, and that each defect of the peer (FO1 to FO13) is none here."""

import copy
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from windfall.contracts.resources import Federation, Site
from windfall.contracts.resources.federation import PoolStatus
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.flower.desired import desired, faults
from windfall.provisioner.operator.selection import selected
from windfall.provisioner.operator.standing import Workload, pool_finding, service_finding
from windfall.servicekit.kube import Object

NEW = Facts(30)


def given_of(*pools: dict[str, Any], **flower: Any) -> dict[str, Any]:
    said = {
        "mode": "StatefulSet",
        "isolationMode": "subprocess",
        "insecure": True,
        "superlink": {"image": "flwr/superlink:1.41.0"},
        "supernodes": {"image": "flwr/supernode:1.41.0", "pools": list(pools) or [{"name": "a", "replicas": 2}]},
    }
    for key, value in flower.items():
        said[key] = {**said[key], **value} if isinstance(said.get(key), dict) else value  # type: ignore[dict-item]
    return {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "demo", "namespace": "ns", "uid": "u-1", "generation": 3},
        "spec": {"engine": "flower", "flower": {key: value for key, value in said.items() if value is not None}},
    }


def site(name: str, window: str | None = None, **spec: Any) -> Site:
    status = {"window": {"id": "w", "state": window, "at": datetime(2026, 1, 1, tzinfo=UTC)}} if window else {}
    return Site.model_validate(
        {
            "apiVersion": "windfall.dev/v1alpha1",
            "kind": "Site",
            "metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}"},
            "spec": {"jurisdiction": "CA-QC", **spec},
            "status": status,
        }
    )


def made(given: dict[str, Any], sites: Sequence[Site] = (), facts: Facts = NEW, left: int = 0) -> list[Object]:
    federation = Federation.model_validate(given)
    assert federation.spec.flower is not None
    assert not faults(federation, federation.spec.flower, facts)
    return desired(federation, federation.spec.flower, selected(federation.spec, sites), facts, left)[0]


def wrong(given: dict[str, Any], facts: Facts = NEW) -> str:
    federation = Federation.model_validate(given)
    assert federation.spec.flower is not None
    return "; ".join(faults(federation, federation.spec.flower, facts))


def one(objects: Sequence[Object], kind: str, name: str) -> Object:
    return next(obj for obj in objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name))


def pod(objects: Sequence[Object], name: str, kind: str = "StatefulSet") -> dict[str, Any]:
    found: dict[str, Any] = one(objects, kind, name)["spec"]["template"]["spec"]
    return found


def container(objects: Sequence[Object], name: str, which: str, kind: str = "StatefulSet") -> dict[str, Any]:
    return next(one for one in pod(objects, name, kind)["containers"] if one["name"] == which)


TLS = {"secretName": "demo-tls"}
PROCESS = {"isolationMode": "process", "superlink": {"superexecImage": "flwr/superexec:1.41.0"}}


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same, with the keys of every object in another order, and lists of named things as well."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    if isinstance(value, list):
        items = [shuffled(item, chance) for item in value]
        if items and all(isinstance(item, dict) and "name" in item and "replicas" not in item for item in items):
            chance.shuffle(items)
        return items
    return value


@given(st.randoms(use_true_random=False))
def test_fo1_pod_templates_are_the_same_whatever_the_order_in_which_fields_are_written(chance: random.Random) -> None:
    pool = {
        "name": "a",
        "replicas": 2,
        "env": [{"name": "X", "value": "$(B)-$(A)"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "u", "hostPath": {"path": "/u", "type": "Directory"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "u", "mountPath": "/u"}],
        "nodeConfig": {"z": "1", "y": "{pool}", "a": "{replicas}"},
        "podTemplate": {
            "metadata": {"annotations": {"k": "v", "j": "w"}},
            "spec": {"nodeSelector": {"m": "1", "n": "2"}, "priorityClassName": "low"},
        },
        "gpu": {"enabled": True, "vendor": "amd", "mountAll": True, "allowPrivileged": True},
    }
    given = given_of(pool, supernodes={"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]})
    assert json.dumps(made(shuffled(given, chance)), sort_keys=True) == json.dumps(made(given), sort_keys=True)


def test_fo1_a_pools_variables_win_and_follow_those_that_they_refer_to() -> None:
    pool = {"name": "a", "replicas": 1, "env": [{"name": "A", "value": "$(Z)"}, {"name": "B", "value": "pool"}]}
    given = given_of(pool, supernodes={"env": [{"name": "B", "value": "all"}, {"name": "Z", "value": "z"}]})
    env = container(made(given), "demo-supernode-a", "supernode")["env"]
    assert env == [{"name": "B", "value": "pool"}, {"name": "Z", "value": "z"}, {"name": "A", "value": "$(Z)"}]


def test_fo2_pods_come_in_parallel_and_a_site_is_scaled_alone() -> None:
    objects = made(
        given_of({"name": "q", "replicas": 2, "site": "quebec"}, {"name": "t", "replicas": 3, "site": "texas"}),
        [site("quebec", "closed"), site("texas", "open")],
    )
    sets = [obj for obj in objects if obj["kind"] == "StatefulSet"]
    assert {obj["spec"]["podManagementPolicy"] for obj in sets} == {"Parallel"}
    assert one(objects, "StatefulSet", "demo-supernode-q")["spec"]["replicas"] == 0
    assert one(objects, "StatefulSet", "demo-supernode-t")["spec"]["replicas"] == 3


def test_fo3_after_a_mode_switch_the_old_workload_is_not_wanted() -> None:
    before = {(obj["kind"], obj["metadata"]["name"]) for obj in made(given_of())}
    after = {(obj["kind"], obj["metadata"]["name"]) for obj in made(given_of({"name": "a"}, mode="DaemonSet"))}
    assert ("StatefulSet", "demo-supernode-a") in before - after
    assert ("DaemonSet", "demo-supernode-a") in after - before


def test_fo4_supernodes_dial_the_port_that_the_superlink_has() -> None:
    objects = made(given_of(superlink={"service": {"ports": {"grpc": 19092}}}))
    assert "--superlink=demo-superlink:19092" in container(objects, "demo-supernode-a", "supernode")["args"]
    assert "--port=19092" in container(objects, "demo-superlink", "superlink")["args"]
    assert [port["port"] for port in one(objects, "Service", "demo-superlink")["spec"]["ports"]] == [19092]


def test_fo5_tls_is_on_by_default_and_reaches_every_program() -> None:
    with pytest.raises(ValidationError, match="tls is missing; name a Secret, or say insecure: true"):
        Federation.model_validate(given_of(insecure=None))
    pools = {"name": "a", "replicas": 1, "images": {"superExecClientApp": "x"}}
    objects = made(given_of(pools, insecure=None, tls=TLS, **PROCESS))
    link = container(objects, "demo-superlink", "superlink")
    assert "--ssl-certfile=/etc/windfall/tls/tls.crt" in link["args"]
    assert {"name": "tls", "mountPath": "/etc/windfall/tls", "readOnly": True} in link["volumeMounts"]
    beside = container(objects, "demo-superlink", "superexec-serverapp")
    # It dials the name that the certificate has, and stays within the pod.
    assert beside["args"] == [
        "--runtime-api-address=demo-superlink:9092",
        "--root-certificates=/etc/windfall/tls/ca.crt",
    ]
    assert pod(objects, "demo-superlink")["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["demo-superlink"]}]
    node = container(objects, "demo-supernode-a", "supernode")
    assert "--root-certificates=/etc/windfall/tls/ca.crt" in node["args"]
    assert "--insecure" not in node["args"]
    # The private key stays with the SuperLink.
    secret = next(volume["secret"] for volume in pod(objects, "demo-supernode-a")["volumes"] if volume["name"] == "tls")
    assert secret["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


@pytest.mark.parametrize("version", ["1.25.0", "1.41.0"])
def test_fo5_what_is_for_the_pod_alone_is_on_its_loopback(version: str) -> None:
    pools = {"name": "a", "replicas": 1, "images": {"superExecClientApp": "x"}}
    objects = made(given_of(pools, version=version, **PROCESS))
    words = " ".join(container(objects, "demo-superlink", "superlink")["args"])
    assert "serverappio" not in words or "--serverappio-api-address=127.0.0.1:9091" in words
    node = " ".join(container(objects, "demo-supernode-a", "supernode")["args"])
    assert "--clientappio-api-address=127.0.0.1:9094" in node or "--host=127.0.0.1 --port=9094" in node
    assert all(
        port["port"] != 9091 for obj in objects if obj["kind"] == "Service" for port in obj["spec"].get("ports", ())
    )


def test_fo6_nothing_is_given_to_a_shell_and_nothing_is_expanded_that_a_person_wrote() -> None:
    config = {
        "name": "$(reboot) `reboot` ${X} {pool}",
        "say": 'a "b" \\c',
        "path": "C:\\x",
        "n": "{replicas}",
        "node": "{node}",
    }
    pool = {"name": "a", "replicas": 2, "nodeConfig": config, "extraArgs": ["--max-retries=3; reboot"]}
    objects = made(given_of(pool))
    for obj in objects:
        for one_container in obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            hook = one_container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["python"])
            assert {one_container["command"][0], hook[0]} <= {"flower-superlink", "flower-supernode", "python"}
    args = container(objects, "demo-supernode-a", "supernode")["args"]
    assert "--max-retries=3; reboot" in args
    assert args[-1] == (
        '--node-config=n=2 name="$$(reboot) `reboot` $${X} a" node="$(WINDFALL_NODE_NAME)" path="C:\\\\x" '
        "say='a \"b\" \\c'"
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"a b": "1"}, "'a b' is no key"),
        ({"a": "{host}"}, "{host}; known are {index}"),
        ({"a": "x\ny"}, "control character"),
        ({"a": 'it\'s "so"'}, "both kinds of quotes"),
    ],
)
def test_fo11_a_node_config_that_cannot_be_is_said_and_not_tried(config: dict[str, str], said: str) -> None:
    assert said in wrong(given_of({"name": "a", "replicas": 1, "nodeConfig": config}))


def test_an_index_comes_from_the_pods_own_label_where_there_is_one() -> None:
    pool = {"name": "a", "replicas": 2, "nodeConfig": {"partition-id": "{index}"}}
    node = container(made(given_of(pool)), "demo-supernode-a", "supernode")
    assert node["args"][-1] == "--node-config=partition-id=$(WINDFALL_POD_INDEX)"
    path = "metadata.labels['apps.kubernetes.io/pod-index']"
    assert {"name": "WINDFALL_POD_INDEX", "valueFrom": {"fieldRef": {"fieldPath": path}}} in node["env"]
    assert "{index} needs Kubernetes 1.28; this is 1.20" in wrong(given_of(pool), Facts(20))
    daemon = {"name": "a", "nodeConfig": {"partition-id": "{index}"}}
    assert "{index} goes with mode StatefulSet" in wrong(given_of(daemon, mode="DaemonSet"))


def test_fo7_the_superlinks_runs_outlive_its_pod() -> None:
    objects = made(given_of())
    link = container(objects, "demo-superlink", "superlink")
    assert "--database=/var/lib/flower/state.db" in link["args"]
    assert {"name": "state", "mountPath": "/var/lib/flower"} in link["volumeMounts"]
    assert one(objects, "PersistentVolumeClaim", "demo-superlink-state")["metadata"]["ownerReferences"]
    assert {"readinessProbe", "livenessProbe", "startupProbe"} <= set(link)
    assert one(objects, "PodDisruptionBudget", "demo-superlink")["spec"]["minAvailable"] == 1
    retained = made(given_of(superlink={"database": {"whenDeleted": "Retain"}}))
    assert "ownerReferences" not in one(retained, "PersistentVolumeClaim", "demo-superlink-state")["metadata"]


def test_fo8_a_supernode_waits_for_its_client_app_and_its_grace_is_a_persons_to_say() -> None:
    pools = ({"name": "a", "replicas": 1}, {"name": "b", "replicas": 1, "drain": {"grace": "PT90S", "settle": "PT2S"}})
    objects = made(given_of(*pools))
    assert pod(objects, "demo-supernode-a")["terminationGracePeriodSeconds"] == 600
    assert pod(objects, "demo-supernode-b")["terminationGracePeriodSeconds"] == 90
    hook = container(objects, "demo-supernode-b", "supernode")["lifecycle"]["preStop"]["exec"]["command"]
    assert (hook[:2], hook[-1]) == (["python", "-c"], "2")
    theirs = {"name": "c", "replicas": 1, "podTemplate": {"spec": {"terminationGracePeriodSeconds": 7}}}
    assert pod(made(given_of(theirs)), "demo-supernode-c")["terminationGracePeriodSeconds"] == 7


def test_fo8_in_process_isolation_a_supernode_sees_the_client_app_beside_it() -> None:
    pools = {"name": "a", "replicas": 1, "images": {"superExecClientApp": "x"}}
    objects = made(given_of(pools, **PROCESS))
    assert pod(objects, "demo-supernode-a")["shareProcessNamespace"] is True
    assert "lifecycle" in container(objects, "demo-supernode-a", "superexec-clientapp")


@pytest.mark.parametrize(
    ("pools", "workloads", "reason"),
    [
        ([PoolStatus(name="a", kind="DaemonSet", desired=0, ready=0)], [Workload("DaemonSet", seen=True)], "NoNodes"),
        ([PoolStatus(name="a", kind="StatefulSet", desired=2, ready=0)], [Workload("StatefulSet", 2)], "Unobserved"),
        ([PoolStatus(name="a", kind="StatefulSet", desired=2, ready=1)], [Workload("", 2, 1, True)], "NotReady"),
        (
            [PoolStatus(name="a", kind="StatefulSet", desired=0, ready=0, because="closed")],
            [Workload("", 0, 0, True)],
            "AtZero",
        ),
        ([PoolStatus(name="a", kind="StatefulSet", desired=2, ready=2)], [Workload("", 2, 2, True)], "AllReady"),
    ],
)
def test_fo9_readiness_is_honest(pools: list[PoolStatus], workloads: list[Workload], reason: str) -> None:
    finding = pool_finding(pools, workloads)
    assert (finding.reason, finding.status) == (reason, "True" if reason == "AllReady" else "False")


def test_fo9_a_superlink_that_nobody_has_looked_at_is_not_ready() -> None:
    assert service_finding("SuperLinkReady", None).status == "False"
    assert service_finding("SuperLinkReady", Workload("StatefulSet", 1, 1, seen=False)).status == "False"
    assert service_finding("SuperLinkReady", Workload("StatefulSet", 1, 1, seen=True)).status == "True"


def test_fo10_a_services_type_is_a_field_of_one_object() -> None:
    for kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        service = {"service": {"type": kind, "labels": {"a": "b"}, "annotations": {"c": "d"}}}
        found = one(made(given_of(superlink=service)), "Service", "demo-superlink")
        assert found["spec"]["type"] == kind
        assert found["metadata"]["labels"]["a"] == "b"
        assert found["metadata"]["annotations"] == {"c": "d"}


def test_fo12_the_governing_services_exist_and_are_headless() -> None:
    objects = made(given_of())
    for stateful in (obj for obj in objects if obj["kind"] == "StatefulSet"):
        governing = one(objects, "Service", stateful["spec"]["serviceName"])
        assert governing["spec"]["clusterIP"] == "None"
        assert governing["spec"]["selector"].items() <= stateful["spec"]["template"]["metadata"]["labels"].items()


def test_fo12_names_that_become_too_long_and_pools_that_are_there_twice_are_said() -> None:
    assert "has 55 characters, 52 at most" in wrong(given_of({"name": "p" * 40, "replicas": 1}))
    assert "has 58 characters, 57 at most" in wrong(given_of({"name": "p" * 43}, mode="DaemonSet"))
    with pytest.raises(ValidationError, match="pools: a is there twice"):
        Federation.model_validate(given_of({"name": "a", "replicas": 1}, {"name": "a", "replicas": 1}))


def test_fo13_the_version_decides_how_programs_are_called() -> None:
    pools = {"name": "a", "replicas": 1, "images": {"superExecClientApp": "x"}}
    old, new = (made(given_of(pools, version=version, **PROCESS)) for version in ("1.25.0", "1.41.0"))
    assert "--fleet-api-address=0.0.0.0:9092" in container(old, "demo-superlink", "superlink")["args"]
    assert container(old, "demo-supernode-a", "superexec-clientapp")["args"][0] == "--plugin-type=clientapp"
    assert container(new, "demo-superlink", "superlink")["args"][2:4] == ["--host=0.0.0.0", "--port=9092"]
    assert container(new, "demo-supernode-a", "superexec-clientapp")["args"] == [
        "--runtime-api-address=127.0.0.1:9094",
        "--insecure",
    ]
    assert "version 1.38.0 of Flower is not known here" in wrong(given_of(version="1.38.0"))


def test_fo13_a_privileged_container_is_one_that_a_person_has_asked_for() -> None:
    gpu = {"enabled": True, "vendor": "amd", "mountAll": True}
    with pytest.raises(ValidationError, match="say allowPrivileged: true"):
        Federation.model_validate(given_of({"name": "a", "replicas": 1, "gpu": gpu}))
    pools = {
        "name": "a",
        "replicas": 1,
        "gpu": {**gpu, "allowPrivileged": True},
        "images": {"superExecClientApp": "x"},
    }
    objects = made(given_of(pools, **PROCESS))
    assert "privileged" not in container(objects, "demo-supernode-a", "supernode")["securityContext"]
    beside = container(objects, "demo-supernode-a", "superexec-clientapp")
    assert beside["securityContext"]["privileged"] is True
    assert {"name": "dev-kfd", "mountPath": "/dev/kfd"} in beside["volumeMounts"]


def test_gpus_go_to_the_container_that_computes() -> None:
    gpu = {"enabled": True, "vendor": "nvidia", "count": 2}
    alone = made(given_of({"name": "a", "replicas": 1, "gpu": gpu}))
    assert container(alone, "demo-supernode-a", "supernode")["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    pools = {
        "name": "a",
        "replicas": 1,
        "gpu": {**gpu, "resourceName": "x.io/mig"},
        "images": {"superExecClientApp": "x"},
    }
    beside = made(given_of(pools, **PROCESS))
    assert "resources" not in container(beside, "demo-supernode-a", "supernode")
    assert container(beside, "demo-supernode-a", "superexec-clientapp")["resources"]["requests"] == {"x.io/mig": "2"}
    every = made(given_of({"name": "a", "replicas": 1, "gpu": {**gpu, "mountAll": True}}))
    assert pod(every, "demo-supernode-a")["runtimeClassName"] == "nvidia"
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in container(every, "demo-supernode-a", "supernode")[
        "env"
    ]


def test_a_pod_template_is_taken_whole() -> None:
    theirs = {
        "metadata": {"annotations": {"a": "b"}, "labels": {"team": "x", "windfall.dev/pool": "liar"}},
        "spec": {
            "initContainers": [{"name": "prepare", "image": "i"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "tolerations": [{"key": "gpu"}],
            "containers": [{"name": "supernode", "imagePullPolicy": "Always"}, {"name": "sidecar", "image": "s"}],
        },
    }
    template = one(
        made(given_of({"name": "a", "replicas": 1, "podTemplate": theirs})), "StatefulSet", "demo-supernode-a"
    )["spec"]["template"]
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["metadata"]["labels"]["team"] == "x"
    assert template["metadata"]["labels"]["windfall.dev/pool"] == "a"
    assert template["spec"]["initContainers"] == theirs["spec"]["initContainers"]  # type: ignore[index]
    assert template["spec"]["topologySpreadConstraints"] == theirs["spec"]["topologySpreadConstraints"]  # type: ignore[index]
    assert [one["name"] for one in template["spec"]["containers"]] == ["supernode", "sidecar"]
    assert template["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert template["spec"]["containers"][0]["command"] == ["flower-supernode"]


@pytest.mark.parametrize(
    ("sites", "spec", "because"),
    [
        ([], {}, "there is no site quebec"),
        ([site("quebec")], {}, "not open"),
        ([site("quebec", "expected")], {}, "expected"),
        ([site("quebec", "withdrawn")], {}, "withdrawn"),
        ([site("quebec", "open", suspend=True)], {}, "suspended"),
        ([site("quebec", "open")], {"allowedJurisdictions": ["US"]}, "jurisdiction CA-QC is not within US"),
        ([site("quebec", "open")], {"suspend": True}, "the federation is suspended"),
        ([site("quebec", "open")], {}, ""),
        ([site("quebec", "closing")], {}, ""),
    ],
)
@pytest.mark.parametrize("mode", ["StatefulSet", "DaemonSet"])
def test_a_pool_runs_when_the_law_and_its_window_allow_it(
    mode: str, sites: list[Site], spec: dict[str, Any], because: str
) -> None:
    pool = {"name": "q", "site": "quebec", **({"replicas": 4} if mode == "StatefulSet" else {})}
    given = given_of(pool, mode=mode)
    given["spec"] |= spec
    federation = Federation.model_validate(given)
    assert federation.spec.flower is not None
    objects, runs = desired(federation, federation.spec.flower, selected(federation.spec, sites), NEW)
    assert because in runs[0].because
    assert runs[0].on == (not because)
    if mode == "StatefulSet":
        assert one(objects, mode, "demo-supernode-q")["spec"]["replicas"] == (0 if because else 4)
    else:
        selector = pod(objects, "demo-supernode-q", mode).get("nodeSelector", {})
        assert selector == ({"windfall.dev/suspended": "true"} if because else {})


def test_a_pool_that_does_not_follow_the_window_heeds_the_law_all_the_same() -> None:
    pool = {"name": "q", "replicas": 1, "site": "quebec", "followWindow": False}
    assert one(made(given_of(pool), [site("quebec")]), "StatefulSet", "demo-supernode-q")["spec"]["replicas"] == 1
    given = given_of(pool)
    given["spec"]["allowedJurisdictions"] = ["US"]
    assert one(made(given, [site("quebec", "open")]), "StatefulSet", "demo-supernode-q")["spec"]["replicas"] == 0


def test_a_suspended_superlink_stays_until_the_last_supernode_has_handed_in() -> None:
    given = given_of()
    given["spec"]["suspend"] = True
    assert one(made(given, left=2), "StatefulSet", "demo-superlink")["spec"]["replicas"] == 1
    assert one(made(given, left=0), "StatefulSet", "demo-superlink")["spec"]["replicas"] == 0


def test_every_pod_runs_as_nobody_special_and_without_a_token() -> None:
    objects = made(given_of())
    for name in ("demo-superlink", "demo-supernode-a"):
        spec = pod(objects, name)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one_container in spec["containers"]:
            assert one_container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_what_is_given_is_not_changed() -> None:
    given = given_of({"name": "a", "replicas": 1, "podTemplate": {"spec": {"containers": [{"name": "supernode"}]}}})
    before = copy.deepcopy(given)
    made(given)
    assert given == before
