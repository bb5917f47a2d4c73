"""What a trainer says on the bus, each once under a lease: its identity follows from the lease, so that who died saying
it says the same again."""

from datetime import datetime

from windfall.contracts.events import SiteDrained, TaskLearnt, TrainingStarted
from windfall.contracts.message import derived_id
from windfall.site_trainer import overlapping
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.session import Session
from windfall.site_trainer.terms import Terms


def learnt(terms: Terms, membership: Membership, at: datetime) -> TaskLearnt:
    """What is trained here: whoever measures this node measures steps of it. Said again when it is another task."""
    key = f"{membership.task}/{membership.task_settings}"
    return TaskLearnt(
        id=derived_id(f"{_lease(terms)}/{key}", TaskLearnt.topic, terms.site),
        at=at,
        site=terms.site,
        federation=terms.federation,
        window_id=terms.window_id,
        lease_token=terms.lease_token,
        task=membership.task,
        task_settings=membership.task_settings,
    )


def started(terms: Terms, number: int, at: datetime) -> TrainingStarted:
    """The first step was made, in the round of this number."""
    return TrainingStarted(
        id=derived_id(_lease(terms), TrainingStarted.topic, terms.site),
        at=at,
        site=terms.site,
        federation=terms.federation,
        window_id=terms.window_id,
        lease_token=terms.lease_token,
        round=number,
    )


def drained(terms: Terms, session: Session, at: datetime) -> SiteDrained:
    """Nothing of this lease is still to come."""
    return SiteDrained(
        id=derived_id(_lease(terms), SiteDrained.topic, terms.site),
        at=at,
        site=terms.site,
        federation=terms.federation,
        window_id=terms.window_id,
        lease_token=terms.lease_token,
        delivered=overlapping.delivered(session),
    )


def _lease(terms: Terms) -> str:
    return f"{terms.window_id}/{terms.lease_token}"
