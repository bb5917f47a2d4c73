"""What a Prometheus finds that comes and asks, and who may ask."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from windfall.servicekit import metrics
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.instruments import ALL, LAG, Instrument, Shape
from windfall.servicekit.scrape import Door, Scraped, door
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.tls import Tls

HERE = Door("127.0.0.1", 0)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@contextmanager
def scraped(at: Door = HERE, folder: Path | None = None) -> Iterator[tuple[Scraped, metrics.metrics.MeterProvider]]:
    served = Scraped(at, folder)
    source = metrics.provider("energy-watcher", "site-a", [served.reader])
    try:
        yield served, source
    finally:
        source.shutdown()
        served.close()


def recorded(instrument: Instrument, source: metrics.metrics.MeterProvider) -> None:
    metrics.record(instrument, 1.5, dict.fromkeys(instrument.attributes, "x"), source=source)


def series(text: str) -> dict[str, set[str]]:
    """Name → its labels."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels = {pair.partition("=")[0] for pair in rest.partition("}")[0].split(",") if pair}
            found.setdefault(name.split(" ")[0], set()).update(labels)
    return found


def names(instrument: Instrument) -> Iterator[str]:
    ends = ("_bucket", "_sum", "_count") if instrument.shape is Shape.HISTOGRAM else ("",)
    return (f"{instrument.prometheus}{end}" for end in ends)


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
async def test_every_metric_bears_the_name_and_the_labels_that_dashboards_ask_for(accept: str) -> None:
    with scraped() as (served, source):
        for instrument in ALL:
            recorded(instrument, source)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{served.port}/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept.partition(";")[0])
    found = series(answer.text)
    about = found.pop("target_info")
    assert {"service_name", "service_namespace", "service_instance_id", "windfall_whom"} <= about
    assert found.keys() == {name for one in ALL for name in names(one)}
    for one in ALL:
        for name in names(one):
            assert found[name] - {"le"} == set(one.labels), name


async def test_two_replicas_that_ask_at_once_hear_the_same() -> None:
    with scraped() as (served, source):
        for instrument in ALL:
            recorded(instrument, source)
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{served.port}/metrics"
            asking = [client.get(url, params={"name[]": LAG.prometheus} if n % 2 else {}) for n in range(16)]
            answers = [answer.text for answer in await asyncio.gather(*asking)]
    assert len(set(answers)) == 1
    lines = [line for line in answers[0].splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_a_port_of_the_system_s_choice_is_written_down(tmp_path: Path) -> None:
    with scraped(folder=tmp_path / "state") as (served, _):
        assert json.loads((tmp_path / "state" / "metrics.json").read_text())["port"] == served.port
    assert not (tmp_path / "state" / "metrics.json").exists()


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            Mistake, match=r"cannot serve metrics at 127\.0\.0\.1.*OTEL_EXPORTER_PROMETHEUS_PORT"
        ) as said:
            Scraped(Door("127.0.0.1", taken.getsockname()[1]))
    assert said.value.exit_code is ExitCode.RESOURCE


# --- where, and who may ask -------------------------------------------------------------------------------------------


def test_it_is_loopback_unless_somebody_says_otherwise() -> None:
    assert door({}) == Door("localhost", 9464)
    assert door({"OTEL_EXPORTER_PROMETHEUS_HOST": "::1", "OTEL_EXPORTER_PROMETHEUS_PORT": "0"}) == Door("::1", 0)


def test_elsewhere_it_takes_tls_or_somebody_who_insists(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = {"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0"}
    with pytest.raises(Mistake, match=r"0\.0\.0\.0 is not loopback and there is no TLS.*WINDFALL_METRICS_INSECURE"):
        door(elsewhere)
    tls = {f"WINDFALL_TLS_{name.upper()}": f"{name}.pem" for name in ("certificate", "key", "authority")}
    assert door(elsewhere | tls).tls == Tls(Path("certificate.pem"), Path("key.pem"), Path("authority.pem"))
    assert not caplog.records
    assert door(elsewhere | tls | {"WINDFALL_METRICS_INSECURE": "true"}).tls is None
    assert "INSECURE: serving metrics at 0.0.0.0" in caplog.text


@pytest.mark.parametrize("port", ["http", "-1", "65536"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(Mistake, match="OTEL_EXPORTER_PROMETHEUS_PORT"):
        door({"OTEL_EXPORTER_PROMETHEUS_PORT": port})


def asks(port: int, tls: Tls | None, authority: Path) -> str:
    context = ssl.create_default_context(cafile=str(authority))
    if tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return httpx.get(f"https://127.0.0.1:{port}/metrics", verify=context, trust_env=False, timeout=60).text


def test_over_tls_only_who_shows_a_certificate_of_the_authority_is_answered(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    prometheus = authority.issue("prometheus")
    with scraped(Door("127.0.0.1", 0, authority.issue("watcher"))) as (served, source):
        recorded(LAG, source)
        with socket.create_connection(("127.0.0.1", served.port)):
            # One that does not even shake hands.
            assert LAG.prometheus in asks(served.port, prometheus, authority.path)
        for stranger in (None, other.issue("prometheus")):
            with pytest.raises(httpx.TransportError):
                asks(served.port, stranger, authority.path)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{served.port}/metrics", trust_env=False, timeout=60)


def test_a_certificate_that_was_renewed_counts_at_once_and_one_that_was_revoked_no_more(tmp_path: Path) -> None:
    authority, later = Authority(tmp_path, "ours"), Authority(tmp_path, "later")
    own, prometheus = authority.issue("watcher"), authority.issue("prometheus")
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    with scraped(Door("127.0.0.1", 0, Tls(own.certificate, own.key, own.authority, revoked))) as (served, source):
        recorded(LAG, source)
        assert "target_info" in asks(served.port, prometheus, authority.path)
        serial = x509.load_pem_x509_certificate(prometheus.certificate.read_bytes()).serial_number
        revoked.with_suffix(".new").write_text(f"{serial:x}\n")
        revoked.with_suffix(".new").replace(revoked)
        with pytest.raises(httpx.TransportError):
            asks(served.port, prometheus, authority.path)
        renewed, client = later.issue("watcher"), later.issue("prometheus")
        for new, old in ((renewed.certificate, own.certificate), (renewed.key, own.key), (later.path, own.authority)):
            new.rename(old)
        context = ssl.create_default_context(cafile=str(own.authority))
        context.load_cert_chain(client.certificate, client.key)
        url = f"https://127.0.0.1:{served.port}/metrics"
        assert "target_info" in httpx.get(url, verify=context, trust_env=False, timeout=60).text


def test_tls_files_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.pem"
    with pytest.raises(Mistake, match="the TLS files cannot be used"):
        Scraped(Door("127.0.0.1", 0, Tls(nowhere, nowhere, nowhere)))


# --- which exporters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "endpoint", "expected"),
    [
        ("", "", set()),
        ("", "http://collector:4317", {"otlp"}),
        ("prometheus", "", {"prometheus"}),
        ("prometheus", "http://collector:4317", {"prometheus"}),
        ("otlp, prometheus", "http://collector:4317", {"otlp", "prometheus"}),
        ("none", "http://collector:4317", set()),
    ],
)
def test_metrics_go_where_the_variables_say(said: str, endpoint: str, expected: set[str]) -> None:
    told = {"OTEL_METRICS_EXPORTER": said, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    assert metrics.exporters(told) == expected


def test_an_exporter_that_there_is_not_is_one_line() -> None:
    with pytest.raises(
        Mistake, match=r"OTEL_METRICS_EXPORTER: promtheus is not known\. List some of none, otlp, prometheus"
    ):
        metrics.exporters({"OTEL_METRICS_EXPORTER": "otlp,promtheus"})
