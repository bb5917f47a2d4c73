"""What the charts open to Prometheus: nothing unless it is said, and then every pod, for Prometheus alone."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.charts.test_chart_security import OF_KUBERNETES, environment, selects, trainer
from tests.charts.value_sets import SETS, changed, objects, of_kind
from windfall.cli.gitops.documents import Object
from windfall.servicekit.metrics import exporters
from windfall.servicekit.scrape import HOST, PORT, door

ON = {"metrics": {"prometheus": {"enabled": True, "insecure": True, "clientSecret": None}}}
ASKED = ("hub/prometheus", "site/prometheus")
TRAINERS = {"app.kubernetes.io/managed-by": "windfall", "windfall.dev/site": "quebec"}


def with_monitors(name: str, kind: str, more: Mapping[str, Any] | None = None) -> tuple[Object, ...]:
    """A set with monitors of one kind: ``podMonitor`` or ``serviceMonitor``."""
    both = {one: {"enabled": one == kind} for one in ("podMonitor", "serviceMonitor")}
    return changed(name, {"metrics": {**both, **(more or {})}})


def scraped_pods(found: tuple[Object, ...]) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """Component → labels and container of its pods; all but NATS."""
    return {
        container["name"]: (obj["spec"]["template"]["metadata"]["labels"], container)
        for obj in found
        if obj["kind"] in ("StatefulSet", "Deployment")
        for container in obj["spec"]["template"]["spec"]["containers"]
        if container["name"] not in ("nats", "reload")
    }


@pytest.mark.parametrize("name", [name for name in SETS if name not in ASKED])
def test_nothing_is_open_unless_it_is_said(name: str) -> None:
    assert not [
        obj for obj in objects(name) if obj["apiVersion"] == "monitoring.coreos.com/v1" and "Monitor" in obj["kind"]
    ]
    for _, container in scraped_pods(objects(name)).values():
        assert "metrics" not in {port["name"] for port in container.get("ports", ())}
        assert not {HOST, "OTEL_METRICS_EXPORTER", "WINDFALL_METRICS_INSECURE"} & environment(container).keys()
    if name in OF_KUBERNETES:
        assert "ports" not in trainer(name)["containers"][0]


@pytest.mark.parametrize("name", ["hub/production", "site/production"])
def test_no_pod_waits_for_the_secret_of_a_collector(name: str) -> None:
    """One whose Secret is not there does not start, and to be seen is worth less than to train."""
    found = [
        each["valueFrom"]["secretKeyRef"]
        for _, container in scraped_pods(objects(name)).values()
        for each in container["env"]
        if each["name"] == "OTEL_EXPORTER_OTLP_HEADERS"
    ]
    assert found and all(one["optional"] for one in found)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("kind", ["podMonitor", "serviceMonitor"])
def test_every_component_has_a_monitor_that_finds_its_pods_under_the_job_that_alerts_name(name: str, kind: str) -> None:
    found = with_monitors(name, kind)
    monitors = {obj["metadata"]["name"]: obj for obj in found if obj["kind"].lower() == kind.lower()}
    pods = scraped_pods(found)
    labels = {component: labels for component, (labels, _) in pods.items()}
    if name.startswith("site/"):
        labels["site-trainer"] = TRAINERS
    assert monitors.keys() == {f"one-{component}" for component in labels}
    for component, of_its_pods in labels.items():
        spec = monitors[f"one-{component}"]["spec"]
        assert monitors[f"one-{component}"]["metadata"]["labels"]["release"] == "kube-prometheus"
        (endpoint,) = spec["podMetricsEndpoints" if kind == "podMonitor" else "endpoints"]
        assert (endpoint["port"], endpoint["interval"]) == ("metrics", "30s")
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": f"windfall/{component}"}]
        selector = spec["selector"]["matchLabels"]
        if kind == "serviceMonitor":
            (service,) = (
                obj
                for obj in found
                if obj["kind"] == "Service"
                and selector.items() <= obj["metadata"]["labels"].items()
                and "metrics" in {port["name"] for port in obj["spec"].get("ports", ())}
            )
            assert service["spec"]["clusterIP"] == "None"
            selector = service["spec"]["selector"]
        assert selector.items() <= of_its_pods.items()
        assert all(other == component or not selector.items() <= labels[other].items() for other in labels)


@pytest.mark.parametrize("name", ASKED)
def test_each_pod_answers_at_the_port_that_it_declares(name: str) -> None:
    pods = scraped_pods(changed(name, {"metrics": {"prometheus": {"port": 9999}}}))
    for _, container in pods.values():
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == "metrics")
        told = environment(container)
        assert (told[HOST], told[PORT], port) == ("0.0.0.0", "9999", 9999)
        assert exporters(told) == {"prometheus"}
        assert "k8s.pod.name=$(POD_NAME)" in told["OTEL_RESOURCE_ATTRIBUTES"]
    both = scraped_pods(changed(name, {"telemetry": {"endpoint": "https://collector:4317"}}))
    assert {exporters(environment(container)) for _, container in both.values()} == {frozenset({"otlp", "prometheus"})}


def test_so_does_a_trainer() -> None:
    (container,) = trainer("site/prometheus")["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9464, "protocol": "TCP"}]
    assert environment(container) | {HOST: "0.0.0.0", PORT: "9464"} == environment(container)


def test_over_tls_pods_show_their_certificate_and_prometheus_its_own() -> None:
    found = objects("hub/prometheus")
    for _, container in scraped_pods(found).values():
        at = door(environment(container))
        assert at.tls is not None and str(at.tls.certificate) == "/etc/windfall/tls/tls.crt"
        assert "/etc/windfall/tls" in {mount["mountPath"] for mount in container["volumeMounts"]}
    (held,) = (
        obj["spec"]["dnsNames"] for obj in of_kind("hub/prometheus", "Certificate") if obj["metadata"]["name"] == "one"
    )
    for monitor in of_kind("hub/prometheus", "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["scheme"] == "https"
        assert endpoint["tlsConfig"]["serverName"] in held
        assert endpoint["tlsConfig"] == {
            "serverName": endpoint["tlsConfig"]["serverName"],
            "ca": {"secret": {"name": "prometheus-tls", "key": "ca.crt"}},
            "cert": {"secret": {"name": "prometheus-tls", "key": "tls.crt"}},
            "keySecret": {"name": "prometheus-tls", "key": "tls.key"},
        }
    given = {"metrics": {"prometheus": {"enabled": True, "clientSecret": "p", "serverName": "hub.example.org"}}}
    named = changed("hub/example", {"metrics": given["metrics"] | {"podMonitor": {"enabled": True}}})
    (monitor,) = (obj for obj in named if obj["kind"] == "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["tlsConfig"]["serverName"] == "hub.example.org"


def test_in_plain_text_somebody_has_said_so(caplog: pytest.LogCaptureFixture) -> None:
    for _, container in scraped_pods(objects("site/prometheus")).values():
        assert door(environment(container)).tls is None
    assert "INSECURE" in caplog.text


@pytest.mark.parametrize("name", ["hub/operator", "site/example"])
def test_prometheus_alone_is_let_in_and_to_that_port_alone(name: str) -> None:
    there = {"namespace": "observability", "labels": {"app.kubernetes.io/name": None, "app": "prom"}}
    before = {obj["metadata"]["name"]: obj for obj in objects(name) if obj["kind"] == "NetworkPolicy"}
    found = changed(name, {"metrics": {"prometheus": {**ON["metrics"]["prometheus"], **there}, "nats": True}})
    pods = [*scraped_pods(found).items()]
    if name.startswith("site/"):
        pods.append(("site-trainer", (TRAINERS, {})))
    opened = set()
    for policy in (obj for obj in found if obj["kind"] == "NetworkPolicy"):
        was = before[policy["metadata"]["name"]]["spec"].get("ingress", [])
        new = [rule for rule in policy["spec"].get("ingress", []) if rule not in was]
        for rule in new:
            (peer,) = rule["from"]
            assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}
            assert peer["podSelector"] == {"matchLabels": {"app": "prom"}}
            opened.add((policy["metadata"]["name"].removeprefix("one-"), *(port["port"] for port in rule["ports"])))
        assert all(rule in policy["spec"].get("ingress", []) for rule in was)
    assert opened == {("nats", 8222), *((component, 9464) for component, _ in pods)}
    policies = [obj for obj in found if obj["kind"] == "NetworkPolicy"]
    assert all(any(selects(policy, labels) for policy in policies) for _, (labels, _) in pods)
