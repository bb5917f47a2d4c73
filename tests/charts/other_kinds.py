"""What a ``spec`` may hold of the kinds that Kubernetes itself does not have: no more than the charts say of them, so
that a slip of the pen is an error here, where the owner of the kind would prune it in silence.

Types, enumerations and what is required are those of the definitions that cert-manager and prometheus-operator publish.
Monitors were held against ``example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,servicemonitors}.yaml``
of https://github.com/prometheus-operator/prometheus-operator (Apache-2.0), 0.91.0 and 0.87.0. Where versions differ
(``scheme: HTTP``, a monitor without endpoints), what all of them take.
"""

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]


def closed(required: tuple[str, ...] = (), **properties: object) -> dict[str, Any]:
    """An object that holds nothing else."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def some(items: Schema) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


_TEXT: Final = {"type": "string"}
_NAME: Final = {"type": "string", "minLength": 1}
_KEY: Final = closed(("name", "key"), name=_NAME, key=_NAME)
"""A key of a Secret or ConfigMap. The definitions let ``name`` be left out, and say that this is a mistake."""
_TLS: Final = {
    "ca": closed(secret=_KEY, configMap=_KEY),
    "cert": closed(secret=_KEY, configMap=_KEY),
    "keySecret": _KEY,
    "serverName": _NAME,
}
_ENDPOINT: Final = closed(
    ("port",),
    port=_NAME,
    # A duration of Prometheus: its units in this order, each once at most.
    interval={"type": "string", "minLength": 2, "pattern": r"^(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$"},
    scheme={"enum": ["http", "https"]},
    tlsConfig=closed(tuple(_TLS), **_TLS),
    relabelings=some(closed(("targetLabel", "replacement"), targetLabel=_NAME, replacement=_NAME)),
)
_SELECTOR: Final = closed(
    ("matchLabels",), matchLabels={"type": "object", "minProperties": 1, "additionalProperties": _NAME}
)

SPECS: Final[Mapping[str, Schema]] = {
    "cert-manager.io/v1/Certificate": closed(
        ("secretName", "issuerRef", "dnsNames"),
        secretName=_TEXT,
        commonName={"type": "string", "maxLength": 64},
        dnsNames=some(_TEXT),
        uris=some({"type": "string", "format": "uri"}),
        duration=_TEXT,
        renewBefore=_TEXT,
        usages={"type": "array", "items": {"enum": ["digital signature", "server auth", "client auth"]}},
        privateKey=closed(
            algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]},
            size={"enum": [256, 384, 521]},
            encoding={"enum": ["PKCS1", "PKCS8"]},
            rotationPolicy={"enum": ["Always", "Never"]},
        ),
        issuerRef=closed(("name",), name=_NAME, kind=_NAME, group=_NAME),
    ),
    "monitoring.coreos.com/v1/PodMonitor": closed(
        ("selector", "podMetricsEndpoints"), selector=_SELECTOR, podMetricsEndpoints=some(_ENDPOINT)
    ),
    "monitoring.coreos.com/v1/ServiceMonitor": closed(
        ("selector", "endpoints"), selector=_SELECTOR, endpoints=some(_ENDPOINT)
    ),
    "monitoring.coreos.com/v1/PrometheusRule": closed(
        ("groups",),
        groups={
            "type": "array",
            "items": closed(("name", "rules"), name=_TEXT, rules={"type": "array", "minItems": 1}),
        },
    ),
}
"""``apiVersion/kind`` → schema of its ``spec``."""
