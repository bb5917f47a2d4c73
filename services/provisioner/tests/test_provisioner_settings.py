"""The provisioner's settings, and what its nodes are born with."""

from datetime import timedelta
from pathlib import Path

import pytest

from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import load

GIVEN = {"WINDFALL_SITE": "quebec", "WINDFALL_STATE_DIR": "/var/lib/windfall"}


def test_defaults() -> None:
    settings = load(ProvisionerSettings, GIVEN)
    assert (settings.grace, settings.attempts, settings.backend) == (timedelta(minutes=10), 3, "process")
    assert settings.on_stop == "leave"
    assert settings.node_module == "windfall.site_trainer"


def test_every_mistake_is_named_at_once() -> None:
    wrong = {
        "WINDFALL_SITE": "Québec",
        "WINDFALL_BACKEND": "mainframe",
        "WINDFALL_GRACE": "-PT1M",
        "WINDFALL_ATTEMPTS": "0",
        "WINDFALL_ON_STOP": "panic",
        "WINDFALL_NODE_MODULE": "rm -rf",
    }
    with pytest.raises(Mistake) as raised:
        load(ProvisionerSettings, wrong)
    for variable in (*wrong, "WINDFALL_STATE_DIR"):
        assert f"{variable}:" in str(raised.value)
    assert "process" in str(raised.value)


def test_what_a_node_is_born_with() -> None:
    environ = {
        **GIVEN,
        "PATH": "/bin",
        "TRACEPARENT": "ours",
        "OTEL_SERVICE_NAME": "provisioner",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "9464",
        "WINDFALL_METRICS_INSECURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "WINDFALL_GRACE": "PT5M",
        "WINDFALL_TRACES_FILE": "/tmp/traces.jsonl",
        "WINDFALL_TRAINER_DATA_DIR": "/data",
        "WINDFALL_TRAINER_COORDINATOR": "127.0.0.1:7000",
    }
    assert load(ProvisionerSettings, environ).node_environment(environ) == {
        "PATH": "/bin",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "WINDFALL_METRICS_INSECURE": "true",
        "WINDFALL_SITE": "quebec",
        "WINDFALL_NATS_URL": "nats://127.0.0.1:4222",
        "WINDFALL_CLOCK": "system",
        "WINDFALL_STATE_DIR": str(Path("/var/lib/windfall/trainer")),
        "WINDFALL_TRACES_FILE": "/tmp/traces.jsonl",
        "WINDFALL_DATA_DIR": "/data",
        "WINDFALL_COORDINATOR": "127.0.0.1:7000",
    }
