"""What a site's services are told: a ConfigMap for each, which their pods take as their environment."""

import json
import re
from typing import Final

from windfall.contracts.resources.site import Site
from windfall.provisioner.operator import site_machines, site_need
from windfall.provisioner.operator.coordinator import environment_of
from windfall.provisioner.operator.marks import INSTANCE, MANAGED_BY, NAME, OPERATOR, SITE, SITE_LABEL, made
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OURS: Final = ("WINDFALL_SITE", "WINDFALL_NATS_URL", "WINDFALL_BACKEND", "WINDFALL_JURISDICTION")


def faults(site: Site) -> list[str]:
    """What a schema cannot say: each with its cure."""
    said = set(site.spec.signal.settings) | set(site.spec.backend.settings)
    said |= {_variable(key) for key in site.spec.backend.parameters}
    twice = [f"settings: {name} is said by the site itself; leave it out" for name in sorted(said & set(_OURS))]
    return twice + site_machines.faults(site) + site_need.faults(site, said)


def desired(site: Site) -> list[Object]:
    return [
        _config(site, "energy-watcher", watcher_settings(site)),
        _config(site, "provisioner", provisioner_settings(site)),
    ]


def watcher_settings(site: Site) -> dict[str, str]:
    """The energy-watcher's environment."""
    signal = site.spec.signal
    told: dict[str, object] = {
        "SITE": site.metadata.name,
        "NATS_URL": site.spec.nats_url,
        "SIGNALS": json.dumps(signal.signals, sort_keys=True) if signal.signals else None,
        "RULE": signal.rule,
        "CHECK": signal.check,
        "DWELL": signal.dwell,
        "GRACE": signal.grace,
        "RIDE_THROUGH": signal.ride_through,
        "MINIMUM_WINDOW": signal.minimum_window,
        "MINIMUM_ON": signal.minimum_on,
        "MINIMUM_OFF": signal.minimum_off,
        "START_UP": signal.start_up,
        "DRAIN": signal.drain,
        "STALE_AFTER": signal.stale_after,
        "POLL_INTERVAL": signal.poll_interval,
        "PUBLISH_FORECAST": signal.publish_forecast,
        "PLAN_LIMIT": signal.plan_limit,
    }
    return dict(signal.settings) | environment_of(told)


def provisioner_settings(site: Site) -> dict[str, str]:
    """The provisioner's environment."""
    backend = site.spec.backend
    told: dict[str, object] = {
        "SITE": site.metadata.name,
        "NATS_URL": site.spec.nats_url,
        "BACKEND": backend.name,
        "JURISDICTION": site.spec.jurisdiction,
        "GRACE": backend.grace,
        "ATTEMPTS": backend.attempts,
        "READY_TIMEOUT": backend.ready_timeout,
        "PATIENCE": backend.patience,
    }
    parameters = {_variable(key): value for key, value in backend.parameters.items()} | site_machines.told(site)
    return site_need.told(site) | parameters | dict(backend.settings) | environment_of(told)


def _variable(key: str) -> str:
    """``kubeNamespace`` → ``WINDFALL_KUBE_NAMESPACE``."""
    return "WINDFALL_" + _HUMP.sub("_", key).upper()


def _config(site: Site, service: str, data: dict[str, str]) -> Object:
    labels = {
        NAME: "windfall",
        INSTANCE: site.metadata.name,
        "app.kubernetes.io/component": service,
        MANAGED_BY: OPERATOR,
        SITE_LABEL: site.metadata.name,
    }
    return made(
        CONFIG_MAP, f"{site.metadata.name}-{service}", SITE, site.metadata, labels, data=dict(sorted(data.items()))
    )
