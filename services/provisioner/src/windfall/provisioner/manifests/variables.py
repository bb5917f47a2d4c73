"""The variables that a lease's workers are born with: what may be read by all, and what may not."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from windfall.provisioner.holdings import Lease
from windfall.provisioner.manifests.pod import STATE_DIR

_PASSED_ON: Final = ("WINDFALL_", "OTEL_")
_ELSEWHERE: Final = frozenset(
    {
        "WINDFALL_STATE_DIR",
        "WINDFALL_TRACES_FILE",
        "WINDFALL_READY_FILE",
        "WINDFALL_READY_FD",
        "WINDFALL_NATS_AUTHORITY",
        "WINDFALL_NATS_CERTIFICATE",
        "WINDFALL_NATS_KEY",
        "WINDFALL_NATS_NKEY_FILE",
    }
)
"""Places on the provisioner's machine."""
_SECRET_WORDS: Final = ("PASSWORD", "SECRET", "TOKEN", "CREDENTIAL", "API_KEY", "HEADERS")
_NO_SECRETS: Final = frozenset({"WINDFALL_LEASE_TOKEN"})


def told(lease: Lease, environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What the workers are told: what may be read by all, and what may not. The provisioner's own environment, and what
    names a place on its machine, is not for them."""
    given = {
        name: value
        for name, value in environment.items()
        if name.startswith(_PASSED_ON) and name not in _ELSEWHERE and value
    }
    given |= {
        "WINDFALL_LEASE_ID": str(lease.lease_id),
        "WINDFALL_LEASE_TOKEN": str(lease.token),
        "WINDFALL_WINDOW_ID": str(lease.window_id),
        "WINDFALL_NODE": lease.node,
        "WINDFALL_STATE_DIR": STATE_DIR,
    }
    if lease.traceparent:
        # Of the window, not of this attempt: what is written twice is written alike.
        given["TRACEPARENT"] = lease.traceparent
    secret = {name for name, value in given.items() if _is_secret(name, value)}
    return ({n: v for n, v in given.items() if n not in secret}, {n: v for n, v in given.items() if n in secret})


def _is_secret(name: str, value: str) -> bool:
    if name in _NO_SECRETS:
        return False
    return any(word in name for word in _SECRET_WORDS) or any("@" in urlsplit(url).netloc for url in value.split(","))
