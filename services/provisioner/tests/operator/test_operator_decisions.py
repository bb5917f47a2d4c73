"""Pure decisions of the operator: what the bus tells, which sites are used, what settings follow, what is said."""

import json
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from pydantic import ValidationError

from windfall.contracts.events import (
    FederationFinished,
    NodeFailed,
    NodeHindered,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    SiteDrained,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.resources import Federation, Site
from windfall.contracts.resources.conditions import condition, holds
from windfall.contracts.resources.selectors import Selector
from windfall.contracts.resources.site import Capacity, SiteStatus, Window
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.operator import coordinator, site_services
from windfall.provisioner.operator.applying import holds as contains
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.hearsay import Hearsay
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.provisioner.operator.merging import environment
from windfall.provisioner.operator.reading import read
from windfall.provisioner.operator.selection import selected
from windfall.provisioner.operator.standing import conditions, no, site_status, yes
from windfall.provisioner.operator.store import Store
from windfall.provisioner.operator.window import WindowWord, capacity_after, window_after
from windfall.provisioner.placement import Pool
from windfall.servicekit.kube import Object
from windfall.servicekit.settings import load

T0 = datetime(2026, 3, 1, tzinfo=UTC)
FIRST, SECOND = UUID(int=1), UUID(int=2)
DIGEST = "0" * 64


def at(minutes: float) -> dict[str, Any]:
    return {"id": UUID(int=int(minutes * 10)), "at": T0 + timedelta(minutes=minutes), "site": "quebec"}


def opened(minutes: float, window: UUID) -> WindowOpened:
    return WindowOpened(
        **at(minutes), window_id=window, intensity_g_per_kwh=1.0, expected_close_at=None, because="clean"
    )


def closed(minutes: float, window: UUID) -> WindowClosed:
    return WindowClosed(**at(minutes), window_id=window, reason="dirty", crossed_at=T0, because="dirty")


def site_object(name: str = "quebec", **more: Any) -> Object:
    spec = {"jurisdiction": "CA-QC", **more}
    metadata = {"name": name, "namespace": "ns", "uid": f"u-{name}", "generation": 1, "resourceVersion": "5"}
    return {"apiVersion": "windfall.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": spec}


def site(name: str = "quebec", labels: dict[str, str] | None = None, **more: Any) -> Site:
    found = site_object(name, **more)
    found["metadata"]["labels"] = labels or {}
    return Site.model_validate(found)


def federation(**spec: Any) -> Federation:
    return Federation.model_validate(
        {
            "apiVersion": "windfall.dev/v1alpha1",
            "kind": "Federation",
            "metadata": {"name": "forest", "namespace": "ns", "uid": "u"},
            "spec": {"coordinator": {"insecure": True}, **spec},
        }
    )


# --- what the bus tells ---------------------------------------------------------------------------------------------


def test_a_window_lives_through_its_states() -> None:
    window: Window | None = None
    states = []
    for word in (
        WindowExpected(**at(0), window_id=FIRST, opens_at=T0, expected_close_at=None, confidence=0.5),
        opened(10, FIRST),
        WindowClosing(**at(20), window_id=FIRST, closes_at=T0 + timedelta(minutes=30)),
        closed(30, FIRST),
    ):
        window = window_after(window, word)
        assert window is not None
        states.append(window.state)
    assert states == ["expected", "open", "closing", "closed"]
    assert window is not None
    assert window.opened_at == T0 + timedelta(minutes=10)


def test_words_in_any_order_and_any_number_come_to_the_same_window() -> None:
    words: list[WindowWord] = [
        WindowExpected(**at(0), window_id=FIRST, opens_at=T0, expected_close_at=None, confidence=0.5),
        opened(10, FIRST),
        closed(30, FIRST),
        WindowWithdrawn(**at(35), window_id=UUID(int=9)),
        opened(40, SECOND),
    ]
    for seed in range(200):
        chance = random.Random(seed)
        told = words * 2
        chance.shuffle(told)
        heard = Hearsay()
        status = SiteStatus()
        for word in told:
            heard.window(word)
            # Written to the object whenever it pleases, and read from there after a restart.
            if chance.random() < 0.5:
                window, _ = heard.site("quebec", status)
                status = SiteStatus(window=window)
            if chance.random() < 0.1:
                heard = Hearsay()
        for word in words:
            # The newest of each kind comes again at every start.
            heard.window(word)
        window, _ = heard.site("quebec", status)
        assert window is not None
        assert (window.id, window.state) == (str(SECOND), "open")


def test_an_old_close_does_not_shut_the_window_that_is_open() -> None:
    window = window_after(window_after(None, opened(10, SECOND)), closed(12, FIRST))
    assert window is not None
    assert window.state == "open"


def test_a_lease_is_followed_by_its_token() -> None:
    ready = NodeReady(**at(1), window_id=FIRST, lease_id=FIRST, lease_token=2, node="n", backend="kubernetes")
    stale = NodeReleased(**at(5), window_id=FIRST, lease_id=FIRST, lease_token=1, node="old", reason="grace")
    drained = SiteDrained(**at(6), federation="f", window_id=FIRST, lease_token=2, delivered=False)
    released = NodeReleased(**at(7), window_id=FIRST, lease_id=FIRST, lease_token=2, node="n", reason="drained")
    capacity: Capacity | None = None
    states = []
    for word in (ready, stale, drained, released, ready):
        capacity = capacity_after(capacity, word)
        assert capacity is not None
        states.append(capacity.state)
    assert states == ["ready", "ready", "drained", "released", "released"]
    failed = NodeFailed(**at(9), window_id=SECOND, lease_id=SECOND, lease_token=3, reason="no machine")
    after = capacity_after(capacity, failed)
    assert after is not None
    assert (after.state, after.because) == ("failed", "no machine")


def test_progress_is_the_newest_round_and_ends_with_the_federation() -> None:
    heard = Hearsay()
    common = {"base_digest": DIGEST, "model_digest": DIGEST, "contributors": ("quebec",), "tokens": 1, "steps": 1}
    for number in (3, 2):
        heard.progress(
            RoundCompleted(
                id=UUID(int=number),
                at=T0 + timedelta(minutes=number),
                federation="forest",
                round=number,
                tokens_total=number * 10,
                loss_nats=1.5,
                bytes_up=1,
                bytes_down=1,
                **common,
            )
        )
    done = FederationFinished(
        id=FIRST,
        at=T0 + timedelta(hours=1),
        federation="forest",
        rounds=4,
        tokens_total=40,
        model_digest=DIGEST,
        because="enough",
    )
    progress = heard.federation("forest", None)
    assert progress is not None
    assert (progress.round, progress.tokens, progress.finished) == (3, 30, False)
    heard.progress(done)
    progress = heard.federation("forest", progress)
    assert progress is not None
    assert (progress.finished, progress.tokens, progress.because) == (True, 40, "enough")


# --- which sites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"allowedJurisdictions": ["US", "EU"]}, "its jurisdiction CA-QC is not within US, EU"),
        ({"allowedJurisdictions": ["CA"]}, ""),
        ({"allowedJurisdictions": ["CA-QC-MTL"]}, "its jurisdiction CA-QC is not within CA-QC-MTL"),
        ({"siteSelector": {"matchLabels": {"zone": "south"}}}, "its labels are not what siteSelector takes"),
        ({"dataSelector": {"matchLabels": {"topic": "sea"}}}, "none of its data sets is what dataSelector takes"),
        ({"dataSelector": {"matchLabels": {"topic": "forest"}}}, ""),
    ],
)
def test_a_site_is_used_or_it_is_said_why_not(spec: dict[str, Any], reason: str) -> None:
    data = [{"name": "d", "path": "/data/forest", "labels": {"topic": "forest"}}]
    (choice,) = selected(federation(**spec).spec, [site(labels={"zone": "north"}, dataSets=data)])
    assert choice.reason == reason


def test_the_law_comes_before_everything_that_could_be_mended() -> None:
    spec = federation(allowedJurisdictions=["US"], siteSelector={"matchLabels": {"a": "b"}}).spec
    (choice,) = selected(spec, [site(suspend=True)])
    assert "jurisdiction" in choice.reason


def test_selectors_choose_as_kubernetes_does() -> None:
    labels = {"a": "1", "b": "2"}
    for expression, taken in (
        ({"key": "a", "operator": "In", "values": ["1", "3"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "c", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "b", "operator": "Exists"}, True),
        ({"key": "b", "operator": "DoesNotExist"}, False),
    ):
        assert Selector.model_validate({"matchExpressions": [expression]}).takes(labels) is taken
    with pytest.raises(ValidationError, match="In needs values"):
        Selector.model_validate({"matchExpressions": [{"key": "a", "operator": "In"}]})


# --- settings -------------------------------------------------------------------------------------------------------


def test_a_sites_services_are_told_what_the_site_says() -> None:
    said = site(
        natsUrl="nats://leaf:4222",
        signal={
            "signals": {"carbon": {"provider": "static", "value": 1}},
            "rule": "carbon < 100",
            "dwell": "PT10M",
            "settings": {"WINDFALL_PAYBACK": "3"},
        },
        backend={"name": "kubernetes", "parameters": {"kubeNamespace": "a"}, "grace": "PT5M", "attempts": 2},
    )
    assert site_services.watcher_settings(said) == {
        "WINDFALL_DWELL": "PT10M",
        "WINDFALL_NATS_URL": "nats://leaf:4222",
        "WINDFALL_PAYBACK": "3",
        "WINDFALL_RULE": "carbon < 100",
        "WINDFALL_SIGNALS": '{"carbon": {"provider": "static", "value": 1}}',
        "WINDFALL_SITE": "quebec",
    }
    assert site_services.provisioner_settings(said) == {
        "WINDFALL_ATTEMPTS": "2",
        "WINDFALL_BACKEND": "kubernetes",
        "WINDFALL_GRACE": "PT5M",
        "WINDFALL_JURISDICTION": "CA-QC",
        "WINDFALL_KUBE_NAMESPACE": "a",
        "WINDFALL_NATS_URL": "nats://leaf:4222",
        "WINDFALL_SITE": "quebec",
    }
    liar = site(backend={"parameters": {"site": "texas"}})
    assert site_services.faults(liar) == ["settings: WINDFALL_SITE is said by the site itself; leave it out"]


MACHINES: list[dict[str, Any]] = [
    {"name": "a100-1", "address": "192.0.2.11", "sshKeySecret": "quebec-ssh"},
    {"name": "a100-2", "address": "192.0.2.12", "port": 2222, "user": "ops", "sshKeySecret": "quebec-ssh"},
]


def test_the_machines_of_a_sites_pools_are_told_its_provisioner() -> None:
    pools = [{"name": "a100", "machines": MACHINES[:1]}, {"name": "old", "machines": MACHINES[1:]}]
    parameters = {"clusterApi": '{"version": "v1.33.4+k0s.0"}', "kubeNamespace": "energy"}
    said = site(pools=pools, backend={"name": "cluster-api", "parameters": parameters})
    assert site_services.faults(said) == []
    told = site_services.provisioner_settings(said)
    assert json.loads(told["WINDFALL_CLUSTER_API"]) == {"version": "v1.33.4+k0s.0", "machines": MACHINES}
    assert told["WINDFALL_KUBE_NAMESPACE"] == "energy"


def test_the_documented_pool_is_valid() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "capacity.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(  pools:.*?)```", page, re.DOTALL)
    said = site(**yaml.safe_load(text))
    assert site_services.faults(said) == []
    told = site_services.provisioner_settings(said)["WINDFALL_CLUSTER_API"]
    assert [machine["name"] for machine in json.loads(told)["machines"]] == ["a100-1", "a100-2"]


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        ({"name": "kubernetes"}, "pools: machines are for the backend cluster-api; say backend.name: cluster-api, or"),
        (
            {"name": "cluster-api", "parameters": {"clusterApi": '{"machines": []}'}},
            "backend.parameters.clusterApi: machines are said by the pools; leave them out",
        ),
        (
            {"name": "cluster-api", "parameters": {"clusterApi": '{"manage": false}'}},
            "backend.parameters.clusterApi: machines belong to a managed cluster",
        ),
        ({"name": "cluster-api"}, "backend.parameters.clusterApi: version is needed to make a cluster"),
        (
            {"name": "cluster-api", "parameters": {"clusterApi": "{"}},
            "backend.parameters.clusterApi: '{' is not JSON",
        ),
        (
            {"name": "cluster-api", "parameters": {"clusterApi": "[]"}},
            "backend.parameters.clusterApi: '[]' is not a JSON object",
        ),
    ],
)
def test_a_mistake_about_a_sites_machines_is_said(backend: dict[str, Any], fault: str) -> None:
    (said,) = site_services.faults(site(pools=[{"name": "a100", "machines": MACHINES}], backend=backend))
    assert said.startswith(fault)


@pytest.mark.parametrize(
    ("machines", "fault"),
    [
        ([MACHINES[0], {**MACHINES[1], "name": "a100-1"}], "two machines have the name a100-1"),
        ([{**MACHINES[0], "address": "root@192.0.2.11"}], "address"),
        ([{**MACHINES[0], "sshKey": "-----BEGIN"}], "sshKey"),
    ],
)
def test_a_machine_of_a_site_is_whole_and_holds_no_key(machines: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        site(pools=[{"name": "a100", "machines": machines}])


H100 = {"name": "h100", "gpuVendor": "nvidia", "gpuModel": "H100", "count": 8, "nodeSelector": {"gpu": "h100"}}
MI300 = {"name": "mi300", "gpuVendor": "amd"}


def test_what_a_site_needs_and_lends_is_handed_to_its_provisioner() -> None:
    need = {"gpus": 8, "models": ["H100"], "gpuMemory": "79Gi", "samplesPerS": 10, "jurisdictions": ["CA"]}
    told = site_services.provisioner_settings(site(pools=[H100], backend={"name": "kubernetes", "need": need}))
    trainers = load(TrainerSettings, told | {"WINDFALL_KUBE_IMAGE": "trainer:1"})
    assert (trainers.accelerators, trainers.kube_vendor, trainers.jurisdiction) == (8, "nvidia", "CA-QC")
    read = trainers.kube_need
    assert read is not None and read.gpu_memory_bytes == 79 * 2**30 and read.samples_per_s == 10
    assert (read.models, read.jurisdictions) == (("H100",), ("CA",))
    assert read.pools == (Pool("h100", {"gpu": "h100"}, "nvidia", "H100", 8),)
    assert "WINDFALL_KUBE_NEED" not in site_services.provisioner_settings(site(pools=[H100])), "the scheduler chooses"


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"pools": [H100, MI300]}, "pools do not say whose GPUs are meant (amd and nvidia); say kubeVendor"),
        ({}, "pools do not say whose GPUs are meant (none); say kubeVendor"),
        ({"name": "process", "pools": [H100]}, "a process is not placed"),
        ({"gpuMemory": "much", "pools": [H100]}, "'much' is no quantity of memory; write it like 79Gi"),
        (
            {"parameters": {"kubeNeed": "{}"}, "pools": [H100]},
            "WINDFALL_KUBE_NEED is said by backend.need",
        ),
        ({"parameters": {"kubeVendor": "amd"}, "pools": [H100, MI300]}, ""),
    ],
)
def test_a_need_that_cannot_be_met_is_a_fault(more: dict[str, Any], fault: str) -> None:
    need = {"gpus": 8} | ({"gpuMemory": more["gpuMemory"]} if "gpuMemory" in more else {})
    backend = {"name": more.get("name", "kubernetes"), "need": need, "parameters": more.get("parameters", {})}
    found = site_services.faults(site(pools=more.get("pools", []), backend=backend))
    assert len(found) == bool(fault) and fault in "".join(found)


def test_a_lease_that_waits_for_its_node_stands_on_the_site() -> None:
    lease = {"window_id": FIRST, "lease_id": FIRST, "lease_token": 2}
    full = capacity_after(None, NodeHindered(**at(1), **lease, because="has room for 0 of 1 workers"))
    assert full is not None and (full.state, full.because) == ("hindered", "has room for 0 of 1 workers")
    started = capacity_after(full, NodeHindered(**at(2), **lease, because=""))
    assert started is not None and started.state == "starting"
    ready = capacity_after(started, NodeReady(**at(3), **lease, node="n", backend="kubernetes"))
    assert ready is not None and ready.state == "ready"
    waits = site().model_copy(update={"status": SiteStatus(capacity=full)})
    held = condition(site_status(waits, T0).conditions, "CapacityHeld")
    assert held is not None and (held.status, held.reason, held.message) == ("False", "Hindered", full.because)


def test_a_coordinator_and_its_sites_are_told_what_the_federation_says() -> None:
    said = federation(
        allowedJurisdictions=["CA"],
        rounds={"length": "PT10M", "minimumSites": 2, "overlap": True},
        objective={"kind": "carbon", "workTokens": 5, "deadline": "2027-01-01T00:00:00Z"},
        dataSelector={"matchLabels": {"topic": "forest"}},
        trainerSettings={"WINDFALL_DEVICE": "cuda"},
    )
    data = [{"name": "d", "path": "/data/forest", "labels": {"topic": "forest"}}]
    sites = [
        site("quebec", dataSets=data),
        site("texas", jurisdiction="US-TX", dataSets=data),
        site("ontario", dataSets=data),
    ]
    assert said.spec.coordinator is not None
    objects = coordinator.desired(said, said.spec.coordinator, selected(said.spec, sites), Facts())
    configs = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    assert set(configs) == {"forest-coordinator", "forest-site-ontario", "forest-site-quebec"}
    told = configs["forest-coordinator"]
    assert told["WINDFALL_SITES"] == "ontario,quebec"
    assert told["WINDFALL_JURISDICTIONS"] == "CA"
    assert told["WINDFALL_ROUND_LENGTH"] == "PT10M"
    assert told["WINDFALL_OVERLAP"] == "true"
    assert told["WINDFALL_DEADLINE"] == "2027-01-01T00:00:00+00:00"
    assert configs["forest-site-quebec"] == {
        "WINDFALL_COORDINATOR": "forest-coordinator.ns.svc:7443",
        "WINDFALL_TRAINER_COORDINATOR": "forest-coordinator.ns.svc:7443",
        "WINDFALL_TRAINER_DATA_DIR": "/data/forest",
        "WINDFALL_TRAINER_DEVICE": "cuda",
        "WINDFALL_TRAINER_FEDERATION": "forest",
    }
    liar = federation(settings={"WINDFALL_FEDERATION": "other"})
    assert coordinator.faults(liar) == ["settings: WINDFALL_FEDERATION is the operator's to say; leave it out"]


def test_a_coordinator_pushes_where_the_operator_does() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer secret",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/windfall/tls/ca.crt",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/etc/windfall/tls/tls.key",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=operator-0",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
        "PATH": "/usr/bin",
    }

    def told(**changes: Any) -> dict[str, str]:
        said = federation()
        assert said.spec.coordinator is not None
        pod = said.spec.coordinator.model_copy(update=changes)
        objects = coordinator.desired(said, pod, (), Facts(30, environment))
        data = next(one["data"] for one in objects if one["kind"] == "ConfigMap")
        return {name: value for name, value in data.items() if not name.startswith("WINDFALL_")}

    pushes = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    assert told(tls_secret_name=None, insecure=True) == pushes
    assert told(tls_secret_name="tls") == pushes | {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/windfall/tls/ca.crt"}


def test_a_coordinators_pod_is_restricted_and_is_another_when_its_settings_are() -> None:
    def pod(given: Federation) -> Object:
        assert given.spec.coordinator is not None
        objects = coordinator.desired(given, given.spec.coordinator, (), Facts())
        found = next(one for one in objects if one["kind"] == "StatefulSet")
        template: Object = found["spec"]["template"]
        return template

    one, other = pod(federation()), pod(federation(codec="bf16"))
    assert one["metadata"]["annotations"] != other["metadata"]["annotations"]
    spec = one["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["containers"][0]["args"] == ["-m", "windfall.federation_coordinator"]
    assert {"readinessProbe", "livenessProbe", "startupProbe"} <= set(spec["containers"][0])


# --- what is said ---------------------------------------------------------------------------------------------------


def test_a_condition_keeps_its_instant_until_its_status_changes() -> None:
    first = conditions((), [yes("Ready", "AllReady")], 1, T0)
    second = conditions(first, [yes("Ready", "Other", "words")], 2, T0 + timedelta(hours=1))
    third = conditions(second, [no("Ready", "NotReady")], 2, T0 + timedelta(hours=2))
    assert [one[0].last_transition_time for one in (first, second, third)] == [T0, T0, T0 + timedelta(hours=2)]
    assert [one[0].observed_generation for one in (first, second, third)] == [1, 2, 2]


def test_a_site_says_what_is_going_on_there() -> None:
    window = Window(id="w", state="open", at=T0)
    ready = Capacity(lease_token=4, node="n", state="ready", at=T0)
    busy = site().model_copy(update={"status": SiteStatus(window=window, capacity=ready)})
    said = site_status(busy, T0).conditions
    assert {one.type: one.status for one in said} == {
        "Accepted": "True",
        "Applied": "True",
        "CapacityHeld": "True",
        "Drained": "False",
        "Ready": "True",
        "WindowOpen": "True",
    }
    lost = Capacity(lease_token=4, state="drained", at=T0, because="work could not be delivered")
    said = site_status(site().model_copy(update={"status": SiteStatus(capacity=lost)}), T0).conditions
    assert not holds(said, "Drained")
    assert not holds(said, "WindowOpen")


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"spec": {"jurisdiction": "quebec"}}, "spec.jurisdiction"),
        ({"spec": {"jurisdiction": "CA", "colour": "red"}}, "spec.colour"),
        ({"spec": {"jurisdiction": "CA", "signal": {"dwell": "ten minutes"}}}, "spec.signal.dwell"),
        ({"spec": None}, "spec"),
        ({"metadata": {"name": "Not.A.Name"}}, "metadata.name"),
        ({"status": {"conditions": "none"}}, "status.conditions"),
    ],
)
def test_whatever_a_person_writes_comes_to_a_line(spoilt: dict[str, Any], said: str) -> None:
    told = read(Site, {**site_object(), **spoilt})
    assert told.resource is None
    assert any(line.startswith(said) for line in told.faults)


def test_references_that_go_in_a_circle_are_left_to_the_kubelet() -> None:
    circle = [{"name": "B", "value": "$(A)"}, {"name": "A", "value": "$(B)"}]
    assert [one["name"] for one in environment(circle)] == ["A", "B"]
    escaped = [{"name": "A", "value": "$$(B)"}, {"name": "B", "value": "b"}]
    assert [one["name"] for one in environment(escaped)] == ["A", "B"]


def test_what_is_wanted_is_looked_for_in_what_is_there() -> None:
    assert contains({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"c": 2}]})
    assert not contains({"a": 1}, {"b": 1})
    assert not contains({"b": [1, 2]}, {"b": [1]})


# --- whom a change concerns -----------------------------------------------------------------------------------------


def seen_federation(store: Store, name: str, engine: dict[str, Any]) -> None:
    metadata = {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": "1"}
    store.seen(
        FEDERATION, {"apiVersion": "windfall.dev/v1alpha1", "kind": "Federation", "metadata": metadata, "spec": engine}
    )


def test_a_window_concerns_the_pools_at_its_site_and_nobody_else() -> None:
    store = Store()
    pool = {"name": "a", "replicas": 1, "site": "quebec"}
    supernodes = {"image": "i", "pools": [pool]}
    flower = {
        "mode": "StatefulSet",
        "isolationMode": "subprocess",
        "insecure": True,
        "superlink": {"image": "i"},
        "supernodes": supernodes,
    }
    seen_federation(store, "there", {"engine": "flower", "flower": flower})
    elsewhere = {**flower, "supernodes": {"image": "i", "pools": [{**pool, "site": "texas"}]}}
    seen_federation(store, "elsewhere", {"engine": "flower", "flower": elsewhere})
    seen_federation(store, "own", {"coordinator": {"insecure": True}})
    assert len(store.seen(SITE, site_object())) == 4
    found = site_object()
    found["metadata"]["resourceVersion"] = "6"
    found["status"] = {"window": {"id": "w", "state": "open", "at": "2026-01-01T00:00:00Z"}}
    assert store.seen(SITE, found) == {(SITE, "quebec"), (FEDERATION, "there")}
    older = site_object()
    assert store.seen(SITE, older) == set(), "what is older than what is known says nothing"
    lawful = {**found, "metadata": {**found["metadata"], "resourceVersion": "7", "labels": {"a": "b"}}}
    assert len(store.seen(SITE, lawful)) == 4
    another = {**lawful, "metadata": {**lawful["metadata"], "uid": "other"}}
    assert store.gone(SITE, another) == set(), "what went was another of the same name"
    assert len(store.gone(SITE, lawful)) == 4
