"""What is claimed of a site: by windows that are near, open and close, by people, and by a trainer that is done.

Every function takes what the site holds, what was said, the instant and the policy, as those of
:mod:`windfall.provisioner.lease` do. Whatever arrives twice, late, or about a window of the past changes nothing.
"""

from datetime import datetime
from uuid import UUID

from windfall.contracts.message import derived_id
from windfall.provisioner.holdings import USUAL, Decision, Holdings, Lease, Need, Policy, Start, Turned
from windfall.provisioner.transitions import drain, drain_time, over, put

# --- windows that are near --------------------------------------------------------------------------------------------


def expect(
    holdings: Holdings,
    window_id: UUID,
    said_at: datetime,
    opens_at: datetime,
    traceparent: str | None,
    now: datetime,
    policy: Policy,
) -> Decision:
    """A window is near: its node starts now and is warm when it opens. Said again, the newest ``opens_at`` counts.

    A node that works under an open window is not taken away for it: the lease is taken when it opens.
    """
    awaited_until = opens_at + policy.patience
    lease = holdings.of_window(window_id)
    if awaited_until <= now:
        return Decision(holdings)
    if lease and lease.awaited_until and said_at >= lease.opened_at:
        awaited = {"opens_at": opens_at, "awaited_until": awaited_until, "opened_at": said_at}
        changed = any(getattr(lease, name) != value for name, value in awaited.items())
        return Decision(put(holdings, lease, now, **awaited) if changed else holdings)
    holder = holdings.holder
    if holdings.cordon is not None or not _may_have_one(holdings, window_id):
        return Decision(holdings)
    if holder and (holder.opens_at is None or holder.opened_at > said_at):
        return Decision(holdings)
    return _granted(holdings, window_id, said_at, traceparent, now, policy, opens_at)


def withdraw(holdings: Holdings, window_id: UUID, now: datetime, policy: Policy) -> Decision:
    """An expected window does not come. Of one that has opened this is a word of the past."""
    lease = holdings.of_window(window_id)
    return Decision(holdings) if lease and lease.opens_at is None else close(holdings, window_id, now, policy)


# --- windows that open and close --------------------------------------------------------------------------------------


def open_(
    holdings: Holdings, window_id: UUID, opened_at: datetime, traceparent: str | None, now: datetime, policy: Policy
) -> Decision:
    """A window opened at ``opened_at``. The lease that was taken ahead for it stays as it is, its node with it."""
    lease = holdings.of_window(window_id)
    if lease and lease.live and lease.opens_at and not lease.given_up:
        return Decision(put(holdings, lease, now, opens_at=None, awaited_until=None, opened_at=opened_at))
    return request(holdings, window_id, opened_at, traceparent, now, policy)


def request(
    holdings: Holdings,
    window_id: UUID,
    opened_at: datetime,
    traceparent: str | None,
    now: datetime,
    policy: Policy,
    need: Need = USUAL,
) -> Decision:
    """Somebody asks for the lease of a window that opened at ``opened_at``.

    A site has one window at a time, so an older lease is replaced.
    """
    if not _may_have_one(holdings, window_id):
        return Decision(holdings)
    holder = holdings.holder
    if holder and holder.opens_at is None and holder.opened_at > opened_at:
        return Decision(over(holdings, window_id))
    if holdings.cordon is not None:
        return _turned_away(holdings, Turned(window_id=window_id, opened_at=opened_at, traceparent=traceparent))
    return _granted(holdings, window_id, opened_at, traceparent, now, policy, need=need)


def planned(holdings: Holdings, window_id: UUID, now: datetime, policy: Policy, need: Need = USUAL) -> Lease:
    """The lease that ``request`` would give now, if it gave one."""
    return _next_lease(holdings, window_id, now, None, now, policy, None, need)


def close(holdings: Holdings, window_id: UUID, now: datetime, policy: Policy) -> Decision:
    """A window is over: it gets no lease any more, and the one that it has drains."""
    lease = holdings.of_window(window_id)
    holdings = over(holdings, window_id)
    if holdings.turned_away and holdings.turned_away.window_id == window_id:
        holdings = holdings.model_copy(update={"turned_away": None})
    if lease and lease.given_up:
        holdings = put(holdings, lease, now, given_up=False)
    return drain(holdings, lease, "released", now, policy)


# --- people and trainers ----------------------------------------------------------------------------------------------


def release(holdings: Holdings, window_id: UUID | None, now: datetime, policy: Policy) -> Decision:
    """Somebody asks for the node of a window back, or for every node when none is named."""
    if window_id is not None:
        return close(holdings, window_id, now, policy)
    decision = Decision(holdings)
    for lease in holdings.live:
        after = close(decision.holdings, lease.window_id, now, policy)
        decision = Decision(after.holdings, decision.events + after.events, decision.actions + after.actions)
    return decision


def drained(holdings: Holdings, window_id: UUID, token: int, now: datetime, policy: Policy) -> Decision:
    """The trainer under this token delivered what it had: its node may go. Another token's word is of the past."""
    lease = holdings.of_window(window_id)
    if lease is None or lease.token != token or not lease.live or lease.drained:
        return Decision(holdings)
    return drain(put(holdings, lease, now, drained=True), lease, "released", now, policy)


# --- the provisioner goes and comes -----------------------------------------------------------------------------------


def leave(holdings: Holdings, now: datetime, policy: Policy) -> Decision:
    """The provisioner goes and takes its nodes with it. The next one gives the window that is open another lease."""
    holder, decision = holdings.holder, Decision(holdings)
    for lease in holdings.live:
        held = decision.holdings
        if lease is holder:
            held = put(held, lease, now, given_up=True)
            if holder.opens_at is None:
                held = _turned_away(held, _window_of(holder)).holdings
        after = drain(held, lease, "released", now, policy)
        decision = Decision(after.holdings, decision.events + after.events, decision.actions + after.actions)
    return decision


def come(holdings: Holdings, now: datetime, policy: Policy) -> Decision:
    """The next one is there: whoever was turned away is asked in, unless the site gives no leases."""
    return Decision(holdings) if holdings.cordon is not None else _asked_in(holdings, now, policy)


# --- cordons ----------------------------------------------------------------------------------------------------------


def cordon(holdings: Holdings, why: str, now: datetime, policy: Policy) -> Decision:
    """No leases are given until the site is uncordoned. What is held is kept."""
    return Decision(holdings if holdings.cordon == why else holdings.model_copy(update={"cordon": why}))


def uncordon(holdings: Holdings, now: datetime, policy: Policy) -> Decision:
    """Leases are given again, first to the window that opened in the meantime, if it is still open."""
    if holdings.cordon is None:
        return Decision(holdings)
    return _asked_in(holdings.model_copy(update={"cordon": None}), now, policy)


def _asked_in(holdings: Holdings, now: datetime, policy: Policy) -> Decision:
    turned = holdings.turned_away
    if turned is None:
        return Decision(holdings)
    holdings = holdings.model_copy(update={"turned_away": None})
    return request(holdings, turned.window_id, turned.opened_at, turned.traceparent, now, policy)


def _window_of(lease: Lease) -> Turned:
    return Turned(window_id=lease.window_id, opened_at=lease.opened_at, traceparent=lease.traceparent)


def _turned_away(holdings: Holdings, turned: Turned) -> Decision:
    known = holdings.turned_away
    if known and known.opened_at >= turned.opened_at:
        return Decision(holdings)
    return Decision(holdings.model_copy(update={"turned_away": turned}))


# --- granting ---------------------------------------------------------------------------------------------------------


def _may_have_one(holdings: Holdings, window_id: UUID) -> bool:
    lease = holdings.of_window(window_id)
    return lease.given_up if lease else window_id not in holdings.over


def _granted(
    holdings: Holdings,
    window_id: UUID,
    opened_at: datetime,
    traceparent: str | None,
    now: datetime,
    policy: Policy,
    opens_at: datetime | None = None,
    need: Need = USUAL,
) -> Decision:
    """The site's next lease, in place of the one that holds it."""
    holder = holdings.holder
    if holder and holder.opens_at:
        # It may open yet, and then it gets another lease.
        holdings = put(holdings, holder, now, given_up=True)
    decision = drain(holdings, holder, "replaced", now, policy) if holder else Decision(holdings)
    lease = _next_lease(holdings, window_id, opened_at, traceparent, now, policy, opens_at, need)
    granted = decision.holdings.model_copy(
        update={"next_token": lease.token + 1, "leases": (*decision.holdings.leases, lease)},
    )
    return Decision(granted, decision.events, (*decision.actions, Start(lease)))


def _next_lease(
    holdings: Holdings,
    window_id: UUID,
    opened_at: datetime,
    traceparent: str | None,
    now: datetime,
    policy: Policy,
    opens_at: datetime | None,
    need: Need,
) -> Lease:
    token = holdings.next_token
    return Lease(
        lease_id=derived_id(window_id, f"lease/{token}" if holdings.of_window(window_id) else "lease", holdings.site),
        site=holdings.site,
        window_id=window_id,
        token=token,
        node=_node_name(holdings.site, token),
        workers=need.workers,
        accelerators=need.accelerators,
        drain_time=drain_time(holdings, policy),
        ready_deadline=now + policy.ready_within,
        opened_at=opened_at,
        opens_at=opens_at,
        awaited_until=None if opens_at is None else opens_at + policy.patience,
        requested_at=now,
        changed_at=now,
        traceparent=traceparent,
    )


def _node_name(site: str, token: int) -> str:
    """A name that no other lease of the site gets, within the 48 characters of a ``Name``."""
    suffix = f"-{token}"
    return site[: 48 - len(suffix)].rstrip("-") + suffix
