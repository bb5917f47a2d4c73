"""What is said of a resource in its status: conditions that are honest, and the same as long as nothing changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from windfall.contracts.resources import Federation, Site
from windfall.contracts.resources.conditions import Condition, Truth, condition
from windfall.contracts.resources.federation import (
    MOST_SITES_TOLD,
    Endpoints,
    FederationStatus,
    PoolStatus,
    SiteUse,
)
from windfall.contracts.resources.site import SiteStatus
from windfall.provisioner.operator.selection import Choice

_LONGEST: Final = 1000


@dataclass(frozen=True)
class Finding:
    """A condition before it is known since when."""

    type: str
    status: Truth
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Workload:
    """A workload as its controller says that it is."""

    kind: str
    desired: int = 0
    ready: int = 0
    seen: bool = False
    """Its controller has looked at what is wanted now: until then the numbers are of something else."""
    left: int = 0
    """Pods that are there, wanted or not."""


def yes(type_: str, reason: str, message: str = "") -> Finding:
    return Finding(type_, "True", reason, message)


def no(type_: str, reason: str, message: str = "") -> Finding:
    return Finding(type_, "False", reason, message)


def conditions(
    before: Iterable[Condition], findings: Iterable[Finding], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The findings as conditions, in one order; each since its status changed."""
    known = list(before)
    made = []
    for finding in sorted(findings, key=lambda finding: finding.type):
        was = condition(known, finding.type)
        since = was.last_transition_time if was is not None and was.status == finding.status else now
        made.append(
            Condition(
                type=finding.type,
                status=finding.status,
                reason=finding.reason,
                message=finding.message[:_LONGEST],
                observed_generation=generation,
                last_transition_time=since,
            )
        )
    return tuple(made)


def pool_finding(pools: Sequence[PoolStatus], workloads: Sequence[Workload]) -> Finding:
    """Whether every pool that should run does."""
    running = [pool for pool in pools if not pool.because]
    if not running:
        return no(
            "PoolsReady", "AtZero", "no pool runs: " + "; ".join(f"{pool.name}: {pool.because}" for pool in pools)
        )
    if any(not workload.seen for workload in workloads):
        return no("PoolsReady", "Unobserved", "a controller has not looked yet at what is wanted")
    if empty := [pool.name for pool in running if pool.desired == 0]:
        return no(
            "PoolsReady", "NoNodes", f"no node is there for {', '.join(empty)}; label nodes, or change its nodeSelector"
        )
    if short := [f"{pool.name} {pool.ready}/{pool.desired}" for pool in running if pool.ready < pool.desired]:
        return no("PoolsReady", "NotReady", ", ".join(short))
    return yes("PoolsReady", "AllReady", ", ".join(f"{pool.name} {pool.ready}/{pool.desired}" for pool in running))


def service_finding(type_: str, workload: Workload | None) -> Finding:
    """Whether the one pod of a coordinator or SuperLink is there."""
    if workload is None or not workload.seen:
        return no(type_, "Unobserved", "its controller has not looked yet at what is wanted")
    if workload.desired == 0:
        return no(type_, "Suspended", "it is at 0")
    if workload.ready < workload.desired:
        return no(type_, "NotReady", "its pod is not ready")
    return yes(type_, "Ready")


def sites_finding(choices: Sequence[Choice]) -> Finding:
    used = sum(choice.used for choice in choices)
    refused = [f"{choice.site.metadata.name}: {choice.reason}" for choice in choices if not choice.used]
    message = f"{used} of {len(choices)}" + (f"; not used: {'; '.join(refused[:5])}" if refused else "")
    if len(refused) > 5:
        message += f"; and {len(refused) - 5} more"
    return yes("SitesSelected", "Selected", message) if used else no("SitesSelected", "NoSite", message)


def ready_finding(findings: Sequence[Finding]) -> Finding:
    """The whole: the first thing that is not so is why."""
    wrong = next((finding for finding in findings if finding.status != "True"), None)
    if wrong is None:
        return yes("Ready", "AllReady")
    return no("Ready", wrong.reason, f"{wrong.type}: {wrong.message or wrong.reason}")


def invalid(faults: Sequence[str]) -> list[Finding]:
    """Of a resource that cannot be acted on."""
    said = "; ".join(faults)
    return [no("Accepted", "Invalid", said), no("Ready", "Invalid", said)]


def federation_status(
    federation: Federation,
    findings: Sequence[Finding],
    choices: Sequence[Choice],
    pools: Sequence[PoolStatus],
    endpoints: Endpoints,
    now: datetime,
) -> FederationStatus:
    told = sorted(choices, key=lambda choice: (choice.used, choice.site.metadata.name))[:MOST_SITES_TOLD]
    desired, ready = sum(pool.desired for pool in pools), sum(pool.ready for pool in pools)
    flower = federation.spec.engine == "flower"
    return FederationStatus(
        observed_generation=federation.metadata.generation,
        conditions=conditions(federation.status.conditions, findings, federation.metadata.generation, now),
        selected_sites=sum(choice.used for choice in choices),
        refused_sites=sum(not choice.used for choice in choices),
        sites=tuple(
            SiteUse(name=choice.site.metadata.name, used=choice.used, reason=choice.reason)
            for choice in sorted(told, key=lambda choice: choice.site.metadata.name)
        ),
        supernodes=f"{ready}/{desired}" if flower else "",
        ready_supernodes=ready,
        desired_supernodes=desired,
        endpoints=endpoints,
        pools=tuple(sorted(pools, key=lambda pool: pool.name)),
    )


def site_status(site: Site, now: datetime, applied: Finding | None = None) -> SiteStatus:
    """What a site's status says beside what the bus has told."""
    window, capacity = site.status.window, site.status.capacity
    open_now = window is not None and window.state in ("open", "closing") and not site.spec.suspend
    held = capacity is not None and capacity.state in ("ready", "drained")
    findings = [yes("Accepted", "Valid"), applied or yes("Applied", "Applied")]
    state = "no window has been told" if window is None else f"{window.state}: {window.because}".rstrip(": ")
    findings.append(
        yes("WindowOpen", "Open", state)
        if open_now
        else no("WindowOpen", "Suspended" if site.spec.suspend else "Closed" if window else "Unknown", state)
    )
    findings.append(
        yes("CapacityHeld", "Leased", f"{capacity.node} under lease {capacity.lease_token}")
        if held and capacity is not None
        else no(
            "CapacityHeld",
            (capacity.state.capitalize() if capacity else "NoLease"),
            capacity.because if capacity else "",
        )
    )
    if capacity is None or capacity.state in ("released", "failed", "drained"):
        undelivered = capacity is not None and capacity.state == "drained" and bool(capacity.because)
        findings.append(
            no("Drained", "Undelivered", capacity.because)
            if undelivered and capacity is not None
            else yes("Drained", "NothingAtWork")
        )
    else:
        findings.append(no("Drained", "AtWork", f"{capacity.node or 'a node that is on its way'} is at work"))
    findings.append(ready_finding(findings[:2]))
    if site.metadata.going:
        findings = [one for one in findings if one.type != "Ready"] + [no("Ready", "Deleting", "it is being deleted")]
    return SiteStatus(
        observed_generation=site.metadata.generation,
        conditions=conditions(site.status.conditions, findings, site.metadata.generation, now),
        devices=sum(pool.count or 0 for pool in site.spec.pools),
    )
