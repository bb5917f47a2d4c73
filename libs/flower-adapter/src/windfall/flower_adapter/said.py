"""What a Flower run says on the bus, in the fleet's own events: a training batch is a round, an example a token. Pure.

A strategy's numbers are its app's own. Examples are the metric that it weighs by (``num-examples``), steps and loss are
metrics of those names where the app reports them; what it does not report is 0.
"""

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final

from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    RoundCompleted,
    RoundEvaluated,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)
from windfall.contracts.message import derived_id
from windfall.flower_adapter.values import Answer, Exchange, Gone, Member, Sent, Tally, Told

_EXAMPLES: Final = ("num-examples", "num_examples")
_STEPS: Final = ("num-steps", "num_steps", "steps")


def told(metrics: Mapping[str, Any]) -> Told:
    """What a reply's metrics say, by the names that Flower's apps give them."""
    numbers = {
        key: value
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    }
    named = next(((key, float(value)) for key, value in numbers.items() if "acc" in key.lower()), ("", None))
    loss = next((float(value) for key, value in numbers.items() if "loss" in key.lower()), None)
    return Told(
        examples=_count(numbers, _EXAMPLES), steps=_count(numbers, _STEPS), loss=loss, metric=named[0], value=named[1]
    )


def tallied(tally: Tally, site: str, answer: Answer, told: Told) -> Tally:
    """The tally after one more contribution; one that does not say on how many examples it stands weighs as one."""
    weight = max(1, told.examples)
    update: dict[str, Any] = {
        "contributors": tuple(sorted({*tally.contributors, site})),
        "examples": tally.examples + told.examples,
        "steps": tally.steps + told.steps,
        "bytes_up": tally.bytes_up + answer.body_bytes,
    }
    if told.loss is not None:
        update |= {"weight": tally.weight + weight, "loss": tally.loss + weight * told.loss}
    if told.value is not None:
        update |= {"metric": told.metric, "value": tally.value + weight * told.value}
    return tally.model_copy(update=update)


def joined(exchange: Exchange, member: Member, now: datetime) -> SiteJoined:
    return SiteJoined(
        id=derived_id(f"{exchange.federation}/{member.attempt}", SiteJoined.topic, member.site),
        at=now,
        site=member.site,
        federation=exchange.federation,
        window_id=member.window_id,
        lease_token=member.lease_token,
        attempt=member.attempt,
        round=exchange.rounds,
    )


def left(exchange: Exchange, member: Member, why: Gone, now: datetime) -> SiteLeft:
    return SiteLeft(
        id=derived_id(f"{exchange.federation}/{member.attempt}", SiteLeft.topic, member.site),
        at=now,
        site=member.site,
        federation=exchange.federation,
        attempt=member.attempt,
        reason=why,
    )


def started(exchange: Exchange, tally: Tally, sites: tuple[str, ...], now: datetime) -> RoundStarted:
    return RoundStarted(
        id=derived_id(_round(exchange, tally), RoundStarted.topic, exchange.federation),
        at=now,
        federation=exchange.federation,
        round=tally.round,
        base_digest=tally.base_digest,
        members=sites,
        ends_at=None,
        because="as the Flower strategy asks",
    )


def accepted(exchange: Exchange, sent: Sent, answer: Answer, told: Told, now: datetime) -> ContributionAccepted:
    return ContributionAccepted(
        id=derived_id(answer.id, ContributionAccepted.topic, sent.site),
        at=now,
        site=sent.site,
        federation=exchange.federation,
        round=sent.round,
        attempt=exchange.attempts.get(sent.site, 1),
        tokens=told.examples,
        steps=told.steps,
        loss_nats=round(told.loss or 0.0, 2),
        bytes_up=answer.body_bytes,
        partial=False,
    )


def refused(exchange: Exchange, sent: Sent, reason: Any, detail: str, now: datetime) -> ContributionRefused:
    """``reason`` is one of the event's own."""
    return ContributionRefused(
        id=derived_id(f"{sent.id}/{reason}", ContributionRefused.topic, sent.site),
        at=now,
        site=sent.site,
        federation=exchange.federation,
        round=sent.round,
        attempt=exchange.attempts.get(sent.site, 0),
        reason=reason,
        detail=detail,
    )


def completed(exchange: Exchange, tally: Tally, model_digest: str, now: datetime) -> RoundCompleted:
    return RoundCompleted(
        id=derived_id(_round(exchange, tally), RoundCompleted.topic, exchange.federation),
        at=now,
        federation=exchange.federation,
        round=tally.round,
        base_digest=tally.base_digest,
        model_digest=model_digest,
        contributors=tally.contributors,
        tokens=tally.examples,
        tokens_total=exchange.examples_total,
        steps=tally.steps,
        loss_nats=round(tally.loss / tally.weight, 4) if tally.weight else 0.0,
        bytes_up=tally.bytes_up,
        bytes_down=tally.bytes_down,
    )


def evaluated(exchange: Exchange, tally: Tally, now: datetime) -> tuple[RoundEvaluated, ...]:
    """Nothing where no node reported a loss."""
    if not tally.weight:
        return ()
    event = RoundEvaluated(
        id=derived_id(_round(exchange, tally), RoundEvaluated.topic, exchange.federation),
        at=now,
        federation=exchange.federation,
        round=tally.round,
        model_digest=tally.base_digest,
        loss_nats=round(tally.loss / tally.weight, 4),
        metric=tally.metric,
        value=round(tally.value / tally.weight, 4) if tally.metric else None,
    )
    return (event,)


def finished(exchange: Exchange, now: datetime) -> FederationFinished:
    return FederationFinished(
        id=derived_id(f"{exchange.federation}/{exchange.generation}", FederationFinished.topic, exchange.federation),
        at=now,
        federation=exchange.federation,
        rounds=exchange.rounds,
        tokens_total=exchange.examples_total,
        model_digest=exchange.model_digest,
    )


def _round(exchange: Exchange, tally: Tally) -> str:
    return f"{exchange.federation}/{exchange.generation}/{tally.round}"


def _count(numbers: Mapping[str, int | float], names: tuple[str, ...]) -> int:
    return next((max(0, int(numbers[name])) for name in names if name in numbers), 0)
