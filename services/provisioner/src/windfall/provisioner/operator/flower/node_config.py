"""What a SuperNode is told of itself, as Flower reads it: ``key=value`` pairs with TOML's values.

Placeholders are filled in by the kubelet, from variables that the pod has of itself: no shell ever sees a value, so
nothing in it can run.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from windfall.contracts.resources.flower import Pool

INDEX: Final = "WINDFALL_POD_INDEX"
NODE: Final = "WINDFALL_NODE_NAME"
POD_INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
"""Kubernetes puts it on the pods of a StatefulSet from 1.28 on."""

_KEY: Final = re.compile(r"^[A-Za-z0-9_-]+$")
_PLACE: Final = re.compile(r"\{([a-z]+)\}")
_BARE: Final = re.compile(r"^(?:[+-]?\d+(?:\.\d+)?|true|false)$")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_KNOWN: Final = ("index", "replicas", "pool", "node")


def rendered(pool: Pool) -> str:
    """The value of ``--node-config``, by key.

    Raises:
        ValueError: a key that Flower does not take, a placeholder that nobody knows, or a control character.
    """
    return " ".join(f"{key}={_value(key, pool.node_config[key], pool)}" for key in sorted(pool.node_config))


def placeholders(pool: Pool) -> frozenset[str]:
    return frozenset(name for value in pool.node_config.values() for name in _PLACE.findall(value))


def variables(pool: Pool) -> list[dict[str, Any]]:
    """What the kubelet must tell the container for it, by the downward API."""
    used = placeholders(pool)
    told: Mapping[str, tuple[str, str]] = {
        "index": (INDEX, f"metadata.labels['{POD_INDEX_LABEL}']"),
        "node": (NODE, "spec.nodeName"),
    }
    return [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, (variable, path) in told.items()
        if name in used
    ]


def _value(key: str, text: str, pool: Pool) -> str:
    if not _KEY.match(key):
        raise ValueError(f"nodeConfig of pool {pool.name}: {key!r} is no key; use letters, digits, '-' and '_'")
    if _CONTROL.search(text):
        raise ValueError(f"nodeConfig of pool {pool.name}: {key} has a control character")
    if unknown := [name for name in _PLACE.findall(text) if name not in _KNOWN]:
        raise ValueError(
            f"nodeConfig of pool {pool.name}: {key} has {{{unknown[0]}}}; known are "
            + ", ".join(f"{{{name}}}" for name in _KNOWN)
        )
    # A number, a truth, or what becomes a number; everything else is a string.
    bare = _BARE.match(_PLACE.sub(lambda place: "0" if place[1] in ("index", "replicas") else "x", text))
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        text, bare = text[1:-1], None
    # Flower's reader knows no escaped quote: a string with double ones is a literal one, between single ones.
    literal = '"' in text
    if literal and "'" in text:
        raise ValueError(f"nodeConfig of pool {pool.name}: {key} has both kinds of quotes, which Flower cannot read")
    pieces = enumerate(_PLACE.split(text))
    said = "".join(_place(piece, pool) if index % 2 else _plain(piece, literal) for index, piece in pieces)
    if bare:
        return said
    return f"'{said}'" if literal else f'"{said}"'


def _plain(piece: str, literal: bool) -> str:
    # The kubelet takes $$ for a dollar sign that is meant.
    return (piece if literal else piece.replace("\\", "\\\\")).replace("$", "$$")


def _place(piece: str, pool: Pool) -> str:
    return {
        "index": f"$({INDEX})",
        "node": f"$({NODE})",
        "replicas": str(pool.replicas or 0),
        "pool": pool.name,
    }[piece]
