"""Who may do what at the API server: the whole matrix, so that a change of it is seen."""

from collections.abc import Iterator

import pytest

from tests.charts.value_sets import SETS, changed, of_kind, pods
from windfall.cli.gitops.documents import Object

PROVISIONER = [
    "configmaps: create delete get list patch",
    "events: list watch",
    "jobs.batch: create delete list patch watch",
    "persistentvolumeclaims: create get patch",
    "poddisruptionbudgets.policy: create delete patch",
    "pods/eviction: create",
    "pods: delete list watch",
    "secrets: create patch",
    "services: create patch",
]
"""In its own namespace. No ``get`` of a Secret: it makes them and cannot read one."""
CORDONS = ["nodes: list patch (in every namespace)"]
OPERATOR = [
    "configmaps: create delete get list patch watch",
    "daemonsets.apps: create delete get list patch watch",
    "events: create get patch",
    "federations.windfall.dev/finalizers: update",
    "federations.windfall.dev/status: patch",
    "federations.windfall.dev: get list patch watch",
    "leases.coordination.k8s.io [windfall-operator]: get update",
    "leases.coordination.k8s.io: create",
    "persistentvolumeclaims: create delete get list patch watch",
    "poddisruptionbudgets.policy: create delete get list patch watch",
    "pods: list",
    "services: create delete get list patch watch",
    "sites.windfall.dev/finalizers: update",
    "sites.windfall.dev/status: patch",
    "sites.windfall.dev: get list patch watch",
    "statefulsets.apps: create delete get list patch watch",
]
MATRIX = {
    "hub/minimal": {"federation-coordinator": [], "nats": []},
    "hub/production": {"federation-coordinator": [], "nats": [], "operator": OPERATOR},
    "site/minimal": {"energy-watcher": [], "nats": [], "profiler": [], "provisioner": PROVISIONER},
    "site/nvidia": {
        "energy-watcher": [],
        "nats": [],
        "profiler": [],
        "provisioner": sorted([*PROVISIONER, *CORDONS]),
    },
    "site/k0rdent": {"energy-watcher": [], "nats": [], "profiler": [], "provisioner": []},
}
"""Set → service account → resource: verbs."""


def granted(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {
        account["metadata"]["name"].removeprefix("one-"): [] for account in of_kind(name, "ServiceAccount")
    }
    roles = {(obj["kind"], obj["metadata"]["name"]): obj for obj in of_kind(name, "Role", "ClusterRole")}
    for binding in of_kind(name, "RoleBinding", "ClusterRoleBinding"):
        role = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        everywhere = " (in every namespace)" if binding["kind"] == "ClusterRoleBinding" else ""
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "windfall")
            found[subject["name"].removeprefix("one-")] += [line + everywhere for line in lines(role)]
    return {account: sorted(lines) for account, lines in sorted(found.items())}


def lines(role: Object) -> Iterator[str]:
    for rule in role["rules"]:
        names = f" [{', '.join(rule['resourceNames'])}]" if "resourceNames" in rule else ""
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                kind, slash, part = resource.partition("/")
                whole = f"{kind}.{group}{slash}{part}" if group else resource
                yield f"{whole}{names}: {' '.join(sorted(rule['verbs']))}"


@pytest.mark.parametrize("name", MATRIX)
def test_the_matrix(name: str) -> None:
    assert granted(name) == MATRIX[name]


@pytest.mark.parametrize("name", SETS)
def test_nobody_may_do_everything_or_read_a_secret(name: str) -> None:
    for role in of_kind(name, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            assert not {"secrets"} & set(rule["resources"]) or not {"get", "list", "watch"} & set(rule["verbs"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@pytest.mark.parametrize("name", SETS)
def test_only_whoever_may_something_is_given_a_token(name: str) -> None:
    rights = granted(name)
    for workload, _, pod in pods(name):
        account = workload.removeprefix("one-")
        assert pod["automountServiceAccountToken"] is bool(rights[account]), workload
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(name, "ServiceAccount"))


def test_a_site_resource_is_read_by_its_name_alone() -> None:
    made = changed("site/minimal", {"provisioner": {"kubeOwner": "quebec"}})
    (role,) = (obj for obj in made if obj["kind"] == "Role")
    assert "sites.windfall.dev [quebec]: get" in set(lines(role))
