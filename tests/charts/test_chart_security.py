"""What a pod of the charts may do, and who may talk to whom: as little as each needs."""

from typing import Any

import pytest

from tests.charts.restricted import violations
from tests.charts.value_sets import INSECURE, SETS, of_kind, pods, values
from windfall.cli.gitops.documents import Object
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.manifests.pod import pod_template
from windfall.servicekit.admission import identity
from windfall.servicekit.settings import load


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


def trainer(name: str) -> dict[str, Any]:
    """The pod that the provisioner of this set would make."""
    (provisioner,) = (pod for workload, _, pod in pods(name) if workload == "one-provisioner")
    told = load(TrainerSettings, environment(provisioner["containers"][0]))
    made: dict[str, Any] = pod_template(
        told,
        labels={},
        annotations={},
        module="windfall.site_trainer",
        claim="state",
        sources=(),
        variables={},
        accelerators=told.kube_accelerators,
        resource=None,
        drain_time_s=30,
    )["spec"]
    return made


OF_KUBERNETES = [name for name in SETS if name.startswith("site/") and not name.endswith("/k0rdent")]


@pytest.mark.parametrize("name", SETS)
def test_every_pod_passes_as_restricted(name: str) -> None:
    found = list(pods(name))
    assert found
    for workload, _, pod in found:
        assert list(violations(pod)) == [], workload


@pytest.mark.parametrize("name", OF_KUBERNETES)
def test_so_does_a_trainer(name: str) -> None:
    assert list(violations(trainer(name))) == []


def test_the_profile_itself_refuses() -> None:
    (_, _, good), *_ = pods("hub/minimal")
    container = good["containers"][0]
    spoilt = [
        {**good, "hostNetwork": True},
        {**good, "volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {**good, "securityContext": {**good["securityContext"], "runAsNonRoot": None}},
        {**good, "securityContext": {**good["securityContext"], "seccompProfile": {"type": "Unconfined"}}},
        *(
            {**good, "containers": [{**container, "securityContext": {**container["securityContext"], **change}}]}
            for change in (
                {"privileged": True},
                {"allowPrivilegeEscalation": True},
                {"capabilities": {"drop": ["NET_RAW"]}},
                {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
                {"runAsUser": 0},
            )
        ),
    ]
    assert [list(violations(pod)) for pod in spoilt].count([]) == 0
    assert list(violations(good)) == []


@pytest.mark.parametrize("name", SETS)
def test_a_pod_has_nothing_that_it_does_not_need(name: str) -> None:
    for workload, obj, pod in pods(name):
        container, *beside = pod["containers"]
        assert [each["name"] for each in beside] == (["reload"] if workload == "one-nats" else [])
        assert not [mount for each in beside for mount in each["volumeMounts"] if not mount.get("readOnly")]
        for each in pod["containers"]:
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
            assert each["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in each["resources"]["limits"]
        assert pod["enableServiceLinks"] is False
        assert pod["serviceAccountName"] == workload, "one of its own"
        asks_the_server = workload == "one-operator" or (workload == "one-provisioner" and not name.endswith("k0rdent"))
        assert pod["automountServiceAccountToken"] is asks_the_server, workload
        assert pod["terminationGracePeriodSeconds"] >= 30
        assert {"startupProbe", "livenessProbe"} <= container.keys()
        assert ("readinessProbe" in container) is (workload != "one-operator"), "who stands by is never ready"
        written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written <= {"/var/lib/windfall", "/tmp", "/data", "/run/nats"}
        seeds = [volume["secret"].get("items") for volume in pod["volumes"] if volume["name"] == "nkey"]
        own = f"{container['name']}.nk"
        assert all(items == [{"key": own, "path": own}] for items in seeds), "nobody else's"
        if obj["spec"]["replicas"] > 1:
            keys = [constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]]
            assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


@pytest.mark.parametrize("name", SETS)
def test_what_runs_more_than_once_has_a_budget_and_nothing_else_has(name: str) -> None:
    several = {
        obj["metadata"]["name"] for obj in of_kind(name, "StatefulSet", "Deployment") if obj["spec"]["replicas"] > 1
    }
    # Of two coordinators one is never ready: a budget would never let the other go.
    several.discard("one-federation-coordinator")
    budgets = {obj["metadata"]["name"]: obj["spec"] for obj in of_kind(name, "PodDisruptionBudget")}
    assert budgets.keys() == several, "one that runs once would hold up whoever empties a node, and gains nothing"
    assert all(spec["maxUnavailable"] == 1 for spec in budgets.values())


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SETS if name not in INSECURE])
def test_nothing_listens_or_calls_in_plain_text(name: str) -> None:
    for workload, _, pod in pods(name):
        container = pod["containers"][0]
        if container["name"] == "nats":
            assert {container[probe]["httpGet"]["scheme"] for probe in ("livenessProbe", "readinessProbe")} == {"HTTPS"}
            continue
        told = environment(container)
        assert told["WINDFALL_NATS_URL"].startswith("tls://"), workload
        assert told["WINDFALL_NATS_CERTIFICATE"] and "WINDFALL_INSECURE" not in told
        if "WINDFALL_LISTEN" in told or workload == "one-profiler":
            assert told["WINDFALL_TLS_CERTIFICATE"] and told["WINDFALL_TLS_AUTHORITY"]


@pytest.mark.parametrize("name", INSECURE)
def test_plain_text_has_to_be_asked_for_and_is_said_aloud(name: str) -> None:
    for _, _, pod in pods(name):
        told = environment(pod["containers"][0])
        assert "tls" not in {volume["name"] for volume in pod["volumes"]}
        if told.get("WINDFALL_LISTEN"):
            assert told["WINDFALL_INSECURE"] == "true"


def test_a_certificate_holds_for_the_names_by_which_others_come() -> None:
    hosts = {obj["metadata"]["name"]: obj["spec"] for obj in of_kind("hub/cert-manager", "Certificate")}
    assert hosts["one"]["dnsNames"] == ["one-federation-coordinator.windfall.svc", "hub.example.org"]
    assert hosts["one-nats"]["dnsNames"] == [
        "one-nats.windfall.svc",
        "*.one-nats-pods.windfall.svc",
        "hub.example.org",
    ]
    assert {spec["secretName"] for spec in hosts.values()} == {"windfall-hub-tls", "windfall-nats-tls"}
    assert all({"server auth", "client auth"} <= set(spec["usages"]) for spec in hosts.values())


def test_a_sites_certificate_names_the_site() -> None:
    made = {obj["metadata"]["name"]: obj["spec"] for obj in of_kind("site/cert-manager", "Certificate")}
    site = values("site/cert-manager")["site"]
    assert made["one"]["uris"] == [identity(site, "site")]
    assert "uris" not in made["one-nats"]


# --- network ----------------------------------------------------------------------------------------------------------


def way(rule: dict[str, Any], peers: str) -> str:
    """One rule of a policy, as a person says it."""
    ports = ",".join(str(port["port"]) for port in rule.get("ports", ())) or "any"
    names = []
    for peer in rule.get(peers, ()):
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        known = ("app.kubernetes.io/name", "k8s-app", "windfall.dev/site", "app.kubernetes.io/component")
        label = next((labels[name] for name in known if name in labels), None)
        names.append(label or peer["ipBlock"]["cidr"])
    return f"{'+'.join(names) or 'anywhere'}:{ports}"


def flows(name: str) -> dict[str, tuple[list[str], list[str]]]:
    return {
        policy["metadata"]["name"].removeprefix("one-"): (
            [way(rule, "from") for rule in policy["spec"].get("ingress", ())],
            [way(rule, "to") for rule in policy["spec"].get("egress", ())],
        )
        for policy in of_kind(name, "NetworkPolicy")
    }


def test_the_hub_s_flows() -> None:
    assert flows("hub/operator") == {
        "default-deny": ([], []),
        "operator": ([], ["kube-dns:53,53", "nats:4222", "0.0.0.0/0:443,6443"]),
        "coordinators": (["0.0.0.0/0:any"], ["kube-dns:53,53", "nats:4222"]),
        "nats": (
            ["coordinator+federation-coordinator+operator:4222", "0.0.0.0/0:7422", "nats:6222"],
            ["kube-dns:53,53", "nats:6222"],
        ),
    }
    assert flows("hub/minimal")["federation-coordinator"] == (["0.0.0.0/0:9500"], ["kube-dns:53,53", "nats:4222"])


def test_a_site_s_flows() -> None:
    assert flows("site/production") == {
        "default-deny": ([], []),
        "energy-watcher": ([], ["kube-dns:53,53", "anywhere:4317", "nats:4222", "0.0.0.0/0:443"]),
        "provisioner": ([], ["kube-dns:53,53", "anywhere:4317", "nats:4222", "10.0.0.1/32:443,6443"]),
        "profiler": (
            ["203.0.113.7/32:9501"],
            ["kube-dns:53,53", "anywhere:4317", "nats:4222", "203.0.113.7/32:9500"],
        ),
        "site-trainer": (
            ["quebec:any"],
            ["kube-dns:53,53", "anywhere:4317", "nats:4222", "203.0.113.7/32:9500", "quebec:any"],
        ),
        "nats": (
            ["quebec+energy-watcher+provisioner+profiler:4222", "nats:6222"],
            ["kube-dns:53,53", "anywhere:4317", "nats:6222", "203.0.113.7/32:7422"],
        ),
    }


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_shut_by_default_and_has_one_door(name: str) -> None:
    policies = of_kind(name, "NetworkPolicy")
    for _, obj, _ in pods(name):
        labels = obj["spec"]["template"]["metadata"]["labels"]
        ours = [policy for policy in policies if selects(policy, labels)]
        assert len(ours) == 2
        assert sum("ingress" in policy["spec"] or "egress" in policy["spec"] for policy in ours) == 1
    assert all(policy["spec"]["policyTypes"] == ["Ingress", "Egress"] for policy in policies)


def selects(policy: Object, labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = policy["spec"]["podSelector"]["matchLabels"]
    return wanted.items() <= labels.items()
