"""Metrics for a Prometheus that comes and asks: ``OTEL_METRICS_EXPORTER=prometheus``.

On loopback unless ``OTEL_EXPORTER_PROMETHEUS_HOST`` says otherwise; elsewhere over mutual TLS with the files by which
the service serves gRPC, or because somebody insists. Series bear the names that a collector gives them
(:attr:`~windfall.servicekit.instruments.Instrument.prometheus`), without what a process tells of itself besides.
"""

import json
import logging
import os
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import MetricsHandler
from prometheus_client.metrics_core import Metric as Family

from windfall.servicekit.admission import Revoked
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.instruments import ALL
from windfall.servicekit.settings import TlsSettings, load
from windfall.servicekit.tls import Tls, is_loopback

log = logging.getLogger(__name__)

HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
_DEFAULT_PORT: Final = 9464
"""OpenTelemetry specification, *Environment variables*."""
_RATIOS: Final = {one.name.replace(".", "_"): one.prometheus for one in ALL if one.prometheus.endswith("_ratio")}
"""What the reader calls a ratio → what it is called."""
_LOOK_S: Final = 0.1
"""How often the thread looks whether it should end."""
_PATIENCE_S: Final = 10.0
"""Of a connection that says nothing: what Prometheus gives a scrape unless it is told otherwise."""


class ScrapeSettings(TlsSettings):
    """How metrics are served beyond loopback."""

    metrics_insecure: bool = False
    """Without TLS: anybody on the network can read them."""


@dataclass(frozen=True)
class Door:
    """Where metrics are served, and how."""

    host: str
    port: int
    tls: Tls | None = None

    @property
    def loopback(self) -> bool:
        return is_loopback(f"{self.host}:{self.port}")


def door(environ: Mapping[str, str]) -> Door:
    """What the environment says.

    Raises:
        Mistake: the port is none, or it is beyond loopback and there is neither TLS nor somebody who insists.
    """
    host, said = environ.get(HOST) or "localhost", environ.get(PORT) or str(_DEFAULT_PORT)
    if not said.isdecimal() or int(said) > 65535:
        raise Mistake(f"{PORT}: {said!r} is no port", "Say a number up to 65535; 0 takes a free one")
    settings = load(ScrapeSettings, environ)
    found = Door(host, int(said), None if settings.metrics_insecure else settings.tls)
    if found.loopback or found.tls is not None:
        return found
    if not settings.metrics_insecure:
        raise Mistake(
            f"{HOST}: {host} is not loopback and there is no TLS",
            "Set WINDFALL_TLS_CERTIFICATE, WINDFALL_TLS_KEY and WINDFALL_TLS_AUTHORITY, or "
            "WINDFALL_METRICS_INSECURE=true if anybody on the network may read the metrics",
        )
    log.warning("INSECURE: serving metrics at %s without TLS; anybody on the network can read them", host)
    return found


class Scraped:
    """OpenTelemetry's reader, and the server that Prometheus asks.

    Args:
        at: where it is served; port 0 takes a free one.
        folder: where ``metrics.json`` then says which.

    Raises:
        Mistake: the port is in use, or the TLS files cannot be used.
    """

    def __init__(self, at: Door, folder: Path | None = None) -> None:
        registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
        self._server = _listening(at, _Declared(registry))
        self.port: int = self._server.server_address[1]
        self._file = None if folder is None or at.port else folder / "metrics.json"
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({"port": self.port, "pid": os.getpid()}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_S,), name="metrics", daemon=True)
        self._thread.start()
        log.info("metrics at %s://%s:%d/metrics", "https" if at.tls else "http", at.host, self.port)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class _Declared:
    """What a registry holds, one scrape at a time and under the declared names.

    Of two scrapes at once, as of two replicas of Prometheus, the reader would give one everything twice and the other
    nothing. And a gauge of unit 1 is a ratio to the specification and to every collector, which the reader leaves out.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one = threading.Lock()

    def collect(self) -> Iterable[Family]:
        with self._one:
            return [_named(family) for family in self._registry.collect()]

    def restricted_registry(self, names: Iterable[str]) -> "_Declared":
        """Everything, even where only some names are asked for (``?name[]=``)."""
        return self


def _named(family: Family) -> Family:
    name = _RATIOS.get(family.name)
    if name is None:
        return family
    made = Family(name, family.documentation, family.type, "ratio")
    made.samples = [sample._replace(name=name) for sample in family.samples]
    return made


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, at: Door, registry: _Declared) -> None:
        self._tls = at.tls
        self._revoked = Revoked(at.tls.revoked) if at.tls and at.tls.revoked else None
        self.address_family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
        super().__init__((at.host, at.port), MetricsHandler.factory(registry))

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: who does not finish the handshake keeps nobody else waiting.
        request.settimeout(_PATIENCE_S)
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        # Read anew each time, so that a certificate that was renewed counts at once.
        with _context(self._tls).wrap_socket(request, server_side=True) as secured:
            if self._revoked is None or _serial(secured) not in self._revoked:
                super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("a scrape from %s failed", client_address[0], exc_info=log.isEnabledFor(logging.DEBUG))


def _listening(at: Door, registry: _Declared) -> _Server:
    if at.tls is not None:
        _context(at.tls)
    try:
        return _Server(at, registry)
    except OSError as error:
        raise Mistake(
            f"cannot serve metrics at {at.host}:{at.port} ({error.strerror})",
            f"Set {PORT} to a free one, or 0, and {HOST} to an address of this machine",
            ExitCode.RESOURCE,
        ) from error


def _serial(secured: ssl.SSLSocket) -> str:
    """Of the certificate that the other end has shown, as a list of revoked ones has it."""
    shown = secured.getpeercert()
    assert shown is not None
    return f"{int(str(shown['serialNumber']), 16):x}"


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.authority)
    except (OSError, ssl.SSLError) as error:
        raise Mistake(f"the TLS files cannot be used ({error})", "Give PEM files that belong together") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context
